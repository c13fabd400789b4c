"""`python -m tests.planted`: every planted bug against the simulation; ends with 1 if one survives."""

import argparse
import sys
import time

from tests.planted.bugs import BUGS, UNSEEN, Bug
from tests.planted.planting import in_fresh_process
from tests.planted.trial import Catch, Hunt, clean_violations, hunt


def _caught(bugs: tuple[Bug, ...], seeds: range, most: int, jobs: int, ignored: tuple[str, ...]) -> list[Catch]:
    """The first seed of each bug that catches it and passes without it."""
    done: list[Catch] = []
    open_hunts = [Hunt(bug, seeds.start, seeds.stop - 1, most, ignored) for bug in bugs]
    while open_hunts:
        found: list[Catch] = []
        for catch in in_fresh_process(hunt, open_hunts, jobs=jobs):
            found.append(catch)
            _tell(catch)
        tried = sorted({catch.seed for catch in found if catch.seed is not None})
        dirty = {seed: texts for seed, texts in in_fresh_process(clean_violations, tried, jobs=jobs) if texts}
        for seed, texts in sorted(dirty.items()):
            print(f"seed {seed} fails without any bug, and counts for none: {texts[0]}", flush=True)
        again = [catch for catch in found if catch.seed in dirty]
        done += [catch for catch in found if catch.seed not in dirty]
        open_hunts = [Hunt(c.bug, c.seed + 1, seeds.stop - 1, most, ignored) for c in again if c.seed is not None]
    order = {bug.name: place for place, bug in enumerate(bugs)}
    return sorted(done, key=lambda catch: order[catch.bug.name])


def _tell(catch: Catch) -> None:
    if catch.seed is None:
        print(f"{catch.bug.name} SURVIVES {catch.brackets} brackets {' '.join(catch.violations)}", flush=True)
    else:
        print(f"{catch.bug.name}: seed {catch.seed}, {catch.violations[0][:140]}", flush=True)


def _table(catches: list[Catch]) -> str:
    lines = ["| bug | file | seed | brackets | rule |", "|---|---|---|---|---|"]
    for catch in catches:
        file = catch.bug.file.removeprefix("otocod/")
        seed = "survives" if catch.seed is None else str(catch.seed)
        lines.append(f"| {catch.bug.name} | {file} | {seed} | {catch.brackets} | {catch.rule} |")
    return "\n".join(lines)


def _range(text: str) -> range:
    first, _, last = text.partition("..")
    return range(int(first), int(last or first) + 1)


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.planted", description=__doc__)
    parser.add_argument("--only", action="append", default=[], help="a bug by its name; may be given several times")
    parser.add_argument("--unseen", action="store_true", help="those instead that no rule of the checker speaks of yet")
    parser.add_argument("--seeds", type=_range, default=range(1, 20_001), help="a..b, both included")
    parser.add_argument("--most", type=int, default=2_000, help="seeds tried on one bug")
    parser.add_argument("--ignore", action="append", default=[], help="words of a violation that counts for nothing")
    parser.add_argument("--jobs", type=int, choices=(1, 2), default=2)
    given = parser.parse_args()
    named = {bug.name: bug for bug in (*BUGS, *UNSEEN)}
    if unknown := set(given.only) - named.keys():
        parser.error(f"no such bug: {', '.join(sorted(unknown))}")
    chosen = tuple(named[name] for name in given.only) or (UNSEEN if given.unseen else BUGS)
    started_s = time.monotonic()
    catches = _caught(chosen, given.seeds, given.most, given.jobs, tuple(given.ignore))
    print(_table(catches))
    survivors = [catch.bug.name for catch in catches if catch.seed is None]
    brackets = sum(catch.brackets for catch in catches)
    print(
        f"{len(catches) - len(survivors)} of {len(catches)} planted bugs caught, {brackets} brackets,"
        f" {time.monotonic() - started_s:.0f} s"
    )
    if given.unseen and not given.only:
        return 0
    for name in survivors:
        print(f"SURVIVES: {name}")
    return 1 if survivors else 0


if __name__ == "__main__":
    sys.exit(main())
