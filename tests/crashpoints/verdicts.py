"""Whether a run ended as its story must: beside the simulation's judge, which knows nothing of the story."""

from typing import TYPE_CHECKING, Any

from tests.crashpoints.exposure import longest_exposure_s
from tests.crashpoints.stories import Ending
from tests.simulation.checker import Books, judge, liveness

if TYPE_CHECKING:
    from tests.crashpoints.world import CrashWorld

Json = dict[str, Any]
# What one start more may add to the time without an exit: itself, the window in which an exit that may have been posted
# is looked for, and the listing that ends it. The next start begins the window anew, after an orderly stop too.
EXPOSURE_A_START_S = 12.0
_NO_POSITION = frozenset({"ENTRY_NOT_FILLED", "PENDING_ENTRY", "REJECTED"})


def violations(world: "CrashWorld") -> list[str]:
    """Everything that is wrong at the end of a run."""
    truth, dump = world.truth(), world.dump()
    found = judge(truth, dump) + _endings(world, truth, dump)
    found += [f"P the point {point} was never reached" for point in world.points_left]
    found += [f"P {errand.act.name} could not be done" for errand in world.errands if not errand.is_done]
    return found


def exposure_s(world: "CrashWorld") -> float:
    """The longest time a position of any bracket stood at the exchange without an exit."""
    truth, dump = world.truth(), world.dump()
    books = Books(truth, dump)
    # What was released is a person's, and what is held waits for one.
    own = [name for name, b in books.brackets.items() if b["outcome"] != "RELEASED" and not b["is_held"]]
    found = (longest_exposure_s(truth, books, bracket_id, world.now_us) for bracket_id in own)
    return max(found, default=0.0)


def shortfalls(world: "CrashWorld") -> list[str]:
    """What may still come about: the run goes on while there is any."""
    truth, dump = world.truth(), world.dump()
    return liveness(truth, dump) + _endings(world, truth, dump)


def _endings(world: "CrashWorld", truth: Json, dump: Json) -> list[str]:
    books = Books(truth, dump)
    by_ref = {bracket["client_ref"]: bracket for bracket in dump["brackets"]}
    found: list[str] = []
    for scenario, ending in zip(world.scenarios, world.story.endings, strict=True):
        bracket = by_ref.get(scenario.client_ref)
        found += [f"E {scenario.client_ref}: {text}" for text in _ending(world, books, bracket, ending)]
    for client_ref, wanted in world.story.rows.items():
        found += [f"E {client_ref}: {text}" for text in _rows(truth, client_ref, wanted)]
    return found


def _ending(world: "CrashWorld", books: Books, bracket: Json | None, ending: Ending) -> list[str]:
    if bracket is None:
        return [] if ending.clean == "REJECTED" else ["never became a bracket"]
    found: list[str] = []
    label = bracket["outcome"] or bracket["state"]
    bracket_id = bracket["bracket_id"]
    entries = [n for n in books.by_bracket[bracket_id] if books.is_entry(n)]
    names = {books.accepted[n].get("external-identifier") for n in entries}
    if len(entries) > 1 and not names & world.doubled:
        found.append(f"{len(entries)} entries at the exchange")
    if bracket["is_frozen"]:
        found.append(f"frozen: {bracket['attention']}")
    allowed = _allowed(world, ending, has_entry=bool(entries), has_fill=_has_fill(books, bracket_id))
    if label not in allowed:
        found.append(f"ended as {label}, not {' or '.join(sorted(allowed))} ({bracket['attention']})")
    return found


def _has_fill(books: Books, bracket_id: str) -> bool:
    return any(books.filled(bracket_id, entries=True).values())


def _allowed(world: "CrashWorld", ending: Ending, *, has_entry: bool, has_fill: bool) -> set[str]:
    if world.life_count == 1:
        return {ending.clean}
    if has_fill:
        return {ending.clean, *ending.filled}
    if not has_entry:
        # An entry is posted by the run that accepted it, or never.
        return {"ENTRY_NOT_FILLED", *ending.unfilled}
    return {*ending.unfilled, *({ending.clean} & _NO_POSITION)}


def _rows(truth: Json, client_ref: str, wanted: tuple[str, ...]) -> list[str]:
    told: list[str] = []
    for row in truth["rows"].values():
        answer = row["answer"]
        if row["client_ref"] == client_ref:
            told.append("open" if answer is None else "rejected" if answer["bracket_id"] is None else "accepted")
    return [] if tuple(told) == wanted else [f"its rows are {', '.join(told)}, not {', '.join(wanted)}"]
