"""`make journals`: choose simulated brackets anew among some seeds (`--choose 1..260`), and record them. Without it
those of the last choice; `--replay 1..300` records nothing and decides the journals of all of these seeds again.

A simulated bracket is recorded the same on every machine. The choice is made so that a few small recordings hold every
kind of event, command, line of the journal, outcome and mode that the seeds have to offer.
"""

import argparse
import json
import sys
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from otocod.adapters.sqlite.journal import EVENTS
from otocod.adapters.sqlite.replay import replay, save
from tests.journals.simulated import Recording, recordings_of
from tests.simulation.plan import plan_from_seed
from tests.simulation.world import World

HERE = Path(__file__).parent
RECORDED = HERE / "recorded"
CHOSEN = HERE / "chosen.json"
_LARGEST = 40_000  # characters of a recording

Name = tuple[int, str]  # seed, client_ref


def recorded(seeds: Iterable[int]) -> Iterator[tuple[Name, Recording]]:
    for seed in seeds:
        world = World(plan_from_seed(seed), keeps_hash=False)
        world.run()
        for recording in recordings_of(world).values():
            yield (seed, recording["bracket"]["client_ref"]), recording


def features_of(recording: Mapping[str, Any]) -> frozenset[str]:
    found = {f"outcome {recording['bracket']['outcome']}", f"mode {recording['bracket']['protection']}"}
    for row in recording["journal"]:
        if not set(row["event"].split(", ")) <= EVENTS.keys():
            found.add(f"line {row['event']}")
        for step in json.loads(row["payload_json"] or "[]"):
            found.update(f"event {told['event']}" for told in step.get("told", ()))
            found.update(f"command {asked['command']}" for asked in step["asked"])
    return frozenset(found)


def chosen_among(seeds: Iterable[int]) -> list[Name]:
    """Greedily: whatever shows the most that is new for its size."""
    offered = {}
    for name, recording in recorded(seeds):
        size = len(json.dumps(recording))
        if size <= _LARGEST:
            offered[name] = (features_of(recording), size)
    left = frozenset[str]().union(*(features for features, _ in offered.values()))
    chosen: list[Name] = []
    while left:
        best = max(offered, key=lambda name: (len(offered[name][0] & left) / offered[name][1], name))
        chosen.append(best)
        left -= offered[best][0]
    return sorted(chosen)


def replayed(seeds: Iterable[int]) -> int:
    """Tells each journal that does not lead to its stored record; how many."""
    journals = decisions = failed = 0
    for (seed, client_ref), recording in recorded(seeds):
        found = replay(recording)
        journals, decisions = journals + 1, decisions + len(found.beliefs)
        if not found.is_same or found.unrecorded:
            failed += 1
            print(f"seed {seed} {client_ref}: {found.difference or found.astray or found.unrecorded}")
    print(f"{journals} journals, {decisions} decisions made again; {failed} differ")
    return failed


def seeds_of(text: str) -> Iterable[int]:
    first, last = (int(each) for each in text.split(".."))
    return range(first, last + 1)


def main(argv: list[str]) -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.journals", description=__doc__)
    parser.add_argument("--choose", metavar="A..B", help="choose the brackets anew among these seeds")
    parser.add_argument("--replay", metavar="A..B", help="decide the journals of all brackets of these seeds again")
    asked = parser.parse_args(argv)
    if asked.replay:
        return 1 if replayed(seeds_of(asked.replay)) else 0
    if asked.choose:
        CHOSEN.write_text(json.dumps(chosen_among(seeds_of(asked.choose))) + "\n")
    chosen = {(seed, client_ref) for seed, client_ref in json.loads(CHOSEN.read_text())}
    RECORDED.mkdir(exist_ok=True)
    for old in RECORDED.glob("*.jsonl"):
        old.unlink()
    for name, recording in recorded(sorted({seed for seed, _ in chosen})):
        if name in chosen:
            save(recording, RECORDED / f"seed-{name[0]}-{name[1]}.jsonl")
    size = sum(file.stat().st_size for file in RECORDED.glob("*.jsonl"))
    print(f"recorded {len(list(RECORDED.glob('*.jsonl')))} journals, {size // 1024} KiB, in {RECORDED.name}/")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
