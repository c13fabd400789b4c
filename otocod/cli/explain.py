"""explain: a bracket as a story, what was believed at each step, and the broker's own record beside it."""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import typer

from otocod.cli import output
from otocod.cli.commands import Bracket, Json, command
from otocod.cli.failure import Failed
from otocod.cli.source import Source, open_source

if TYPE_CHECKING:
    from otocod.adapters.sqlite.replay import Replayed
    from otocod.beside import Truth

# As wide as a time by `at_text`: what belongs to a line stands under its words.
_MARGIN = f"{'':<23}  "
_Truths = Mapping[str, Sequence["Truth"]] | None


def register(app: typer.Typer) -> None:
    command(app, "explain")(explain)


def explain(
    bracket: str = Bracket,
    offline: bool = typer.Option(False, "--offline", help="Do not ask the broker for its own record."),
    as_json: bool = Json,
) -> None:
    """One bracket told as a story: each line with its evidence, what was believed of its orders then, and what the
    broker's own record says; what protects it and what it can lose."""
    with open_source() as source:
        found = _explained(source, bracket, offline=offline)
    if as_json:
        output.print_json(found)
    else:
        _print(found)


def _explained(source: Source, bracket: str, *, offline: bool) -> dict[str, Any]:
    from otocod import beside, story
    from otocod.adapters.sqlite import readmodel, replay

    found = source.explain(bracket)
    bracket_id = found["bracket"]["bracket_id"]
    recording = source.recording(bracket_id)
    # The whole journal: what answers `explain` itself cuts off at a thousand rows.
    found["story"] = story.told(found["bracket"], [readmodel.event_from_row(row) for row in recording["journal"]])
    replayed: Replayed | None = None
    try:
        replayed = replay.replay(recording)
        found["belief"] = _why_not_all(replayed)
    except replay.RecordingUnreadable as error:
        found["belief"] = f"what was believed is not told: {error}"
    truths: _Truths = None
    if offline:
        found["broker"] = "not asked"
    else:
        try:
            answer = source.truth(bracket_id)
            truths = beside.truths_from(answer, answer["clock_offset_us"])
            found["broker"] = "; ".join(beside.unread(answer)) or None
        except Failed as failure:
            found["broker"] = f"the broker's own record was not read: {failure.message}"
    if replayed is not None:
        _put_beside(found["story"], replayed, truths)
    return found


def _why_not_all(replayed: "Replayed") -> str | None:
    if replayed.unrecorded:
        return f"what was believed is not told from here on: {replayed.unrecorded}"
    if replayed.difference is not None:
        seq = replayed.difference.seq
        return f"what was believed is not told after journal {seq}: this release decides it otherwise (`otocod replay`)"
    return None


def _put_beside(lines: list[dict[str, Any]], replayed: "Replayed", truths: _Truths) -> None:
    """Adds to the last line of each decision: believed, broker, apart; lists of texts."""
    from otocod import beside

    by_row = {seq: belief for belief in replayed.beliefs for seq in range(belief.seq, belief.last_seq + 1)}
    told = {by_row[line["seq"]].seq: line for line in lines if line.get("seq") in by_row}
    before = None
    for line in told.values():
        belief = by_row[line["seq"]]
        bracket, at_us = belief.bracket, belief.at_us
        line["believed"] = beside.beliefs_of(bracket, before)
        if truths is not None:
            line["broker"] = beside.truths_of(bracket, before, truths, at_us)
            line["apart"] = beside.differences(bracket, before, truths, at_us)
        before = bracket


def _print(found: Mapping[str, Any]) -> None:
    for line in found["story"]:
        output.say(f"{output.at_text(line['at']):<23}  {line['text']}")
        if line["evidence"]:
            output.say(f"{_MARGIN}({', '.join(line['evidence'])})")
        for title, name in (("believed", "believed"), ("broker", "broker"), ("apart", "APART")):
            if line.get(title):
                output.say(f"{_MARGIN}{name:<8}  {', '.join(line[title])}")
    for why in (found["belief"], found["broker"]):
        if why:
            output.say()
            output.say(why)
    if found["safety"]:
        output.say()
    for line in found["safety"]:
        output.say(line)
