"""Commands that only look: status, list, show, explain, events."""

import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

from otocod.cli import output
from otocod.cli.commands import Bracket, Json, command
from otocod.cli.failure import ExitStatus, Failed
from otocod.cli.source import Source, open_source
from otocod.story import is_worth_telling

if TYPE_CHECKING:
    from otocod.adapters.sqlite.replay import Replayed

_FOLLOW_WAIT_S = 20.0
# Without the daemon the file is looked at; a person who follows does not notice a quarter of a second.
_FOLLOW_POLL_S = 0.25
_EVENTS_PAGE = 1000


def register(app: typer.Typer) -> None:
    command(app, "status")(status)
    command(app, "list")(list_brackets)
    command(app, "show")(show)
    command(app, "events")(events)
    command(app, "replay")(replay)


def status(as_json: bool = Json) -> None:
    """Is it ready, what is it doing, what needs a person."""
    with open_source() as source:
        found = source.status()
    if as_json:
        output.print_json(found)
    else:
        print_status(found)


def print_status(found: Mapping[str, Any]) -> None:
    for name, value in _status_lines(found):
        output.say(f"{name:<15} {value}")


def _status_lines(found: Mapping[str, Any]) -> list[tuple[str, str]]:
    running = found.get("running", True)
    lines = [("ready", _ready(found) if running else "no: otocod is not running; this is what the database says")]
    if found.get("environment"):
        lines.append(
            ("environment", f"{found['environment']}, accounts {', '.join(found.get('accounts') or ()) or '-'}")
        )
    streamer = found.get("streamer")
    if streamer:
        age = output.seconds_text(streamer.get("age_s")) or "never"
        lines.append(("streamer", f"{'healthy' if streamer.get('healthy') else 'NOT HEALTHY'}, last message {age} ago"))
    if running:
        lines.append(("last reconcile", output.at_text(found.get("last_reconcile_at")) or "never"))
    counts = found.get("counts") or {}
    lines.append(("brackets", ", ".join(f"{count} {state}" for state, count in counts.items()) or "none"))
    if found.get("unknown_outcomes"):
        lines.append(("unknown", f"{found['unknown_outcomes']} orders whose outcome is not known"))
    if found.get("longest_unprotected_s"):
        lines.append(("unprotected", f"longest {output.seconds_text(found['longest_unprotected_s'])}"))
    if found.get("halted"):
        lines.append(("halted", f"{found.get('halt_level') or 'entries'}: {found.get('halt_reason') or 'yes'}"))
    if found.get("adoption"):
        lines.append(("adopt", str(found["adoption"])))
    if found.get("login") not in (None, "ok"):
        lines.append(("log-in", str(found["login"])))
    lines += [("attention" if number == 0 else "", text) for number, text in enumerate(_attention(found))]
    if running and found.get("pid"):
        uptime = output.seconds_text(found.get("uptime_s"))
        lines.append(("process", f"{found['pid']}, up {uptime}, version {found.get('version')}"))
    return lines


def _ready(found: Mapping[str, Any]) -> str:
    if found.get("ready"):
        return "yes"
    return "no: " + ("; ".join(map(str, found.get("reasons_not_ready") or ())) or "starting")


def _attention(found: Mapping[str, Any]) -> list[str]:
    attention = found.get("attention") or ()
    return [
        f"{output.short_id(each)} {each.get('client_ref', '')}: {each.get('attention', each.get('text', ''))}"
        if isinstance(each, Mapping)
        else str(each)
        for each in attention
    ]


def list_brackets(
    state: str | None = typer.Option(None, "--state", help="Only brackets in this state."),
    account: str | None = typer.Option(None, "--account", help="Only this account's."),
    is_open: bool = typer.Option(False, "--open", help="Only brackets that are not CLOSED."),
    attention: bool = typer.Option(False, "--attention", help="Only brackets a person must look at."),
    as_json: bool = Json,
) -> None:
    """Brackets, oldest first."""
    if state is not None:
        _require_state(state)
    filters = {
        "state": state,
        "account": account,
        "open": "1" if is_open else None,
        "attention": "1" if attention else None,
    }
    with open_source() as source:
        found = source.brackets({name: value for name, value in filters.items() if value})
    if as_json:
        output.print_json(found)
    else:
        print_brackets(found)


def _require_state(state: str) -> None:
    """A word that no bracket can have would list nothing, which looks like an answer."""
    from otocod.domain.brackets import BracketState

    if state not in set(BracketState):
        raise Failed(ExitStatus.USAGE, f"--state: one of {', '.join(BracketState)}, not {state}")


def print_brackets(brackets: Sequence[Mapping[str, Any]]) -> None:
    shown = unique_prefixes([str(each["bracket_id"]) for each in brackets])
    rows = [
        (
            shown[str(each["bracket_id"])],
            each["client_ref"],
            each["state"],
            each["outcome"],
            each["protection"],
            each["quantity"],
            output.price_text(each["entry_net_price"]),
            output.price_text(each["exit_net_price"]),
            output.seconds_text(each["unprotected_s"]) if each["entry_net_price"] else "",
            each["attention"],
        )
        for each in brackets
    ]
    columns = (
        "bracket",
        "ref",
        "state",
        "outcome",
        "protection",
        "units>",
        "entry>",
        "exit>",
        "unprotected>",
        "attention",
    )
    output.print_table(columns, rows, empty="no brackets")


def unique_prefixes(ids: Sequence[str]) -> dict[str, str]:
    """Each id cut to the shortest length, at least 13, at which all of these differ."""
    length = output.SHORT_ID
    while length < 36 and len({each[:length] for each in ids}) < len(set(ids)):
        length += 1
    return {each: each[:length] for each in ids}


def show(bracket: str = Bracket, as_json: bool = Json) -> None:
    """One bracket with its orders and history."""
    with open_source() as source:
        found = source.bracket(bracket)
    if as_json:
        output.print_json(found)
    else:
        print_bracket(found)


def print_bracket(found: Mapping[str, Any]) -> None:
    facts = [
        ("bracket", found["bracket_id"]),
        ("ref", found["client_ref"]),
        ("account", found["account"]),
        ("state", f"{found['state']}{', ' + found['outcome'] if found['outcome'] else ''}"),
        ("protection", found["protection"]),
        ("units", found["quantity"]),
        ("entry", output.price_text(found["entry_net_price"])),
        ("exit", output.price_text(found["exit_net_price"])),
        ("unprotected", output.seconds_text(found["unprotected_s"]) if found["entry_net_price"] else ""),
        ("tags", ", ".join(f"{key}={value}" for key, value in (found.get("tags") or {}).items())),
        ("attention", found["attention"]),
        ("archived", _archived(found.get("archived"))),
    ]
    for name, value in facts:
        if value not in (None, ""):
            output.say(f"{name:<12} {value}")
    output.say()
    orders = [
        (
            order["role"],
            order["status"] + (", handed over" if order.get("handed_over") else ""),
            f"{order['filled_quantity']}/{order['quantity']}",
            output.price_text(order["net_fill_price"]),
            order["broker_order_id"],
            order["external_identifier"],
        )
        for order in found["orders"]
    ]
    output.print_table(
        ("order", "status", "filled>", "at>", "broker's id>", "our id"), orders, empty="no orders were sent"
    )
    output.say()
    history = [
        (output.at_text(each["at"]), each["event"], _move(each), each.get("detail") or "") for each in found["history"]
    ]
    output.print_table(("at (UTC)", "event", "state", "detail"), history, empty="no history")


def _archived(archived: Mapping[str, Any] | None) -> str | None:
    """Only where something of the history is missing: what is in its place needs no word."""
    if archived is None or archived["is_there"]:
        return None
    return f"its journal is in {archived['file']}, which is not there"


def _move(entry: Mapping[str, Any]) -> str:
    before, after = entry.get("from"), entry.get("to")
    if before == after:
        return ""
    return f"{before} → {after}" if before else f"→ {after}"


def replay(
    bracket: str | None = typer.Argument(None, metavar="[B]", help="A bracket, by its id or ref:CLIENT_REF."),
    file: str | None = typer.Option(None, "--file", metavar="FILE", help="A journal that `replay B --save` has kept."),
    save: str | None = typer.Option(None, "--save", metavar="FILE", help="Keep B's journal in a file of its own."),
    as_json: bool = Json,
) -> None:
    """Decide a bracket's journal again: the same decisions, or the first that this release makes otherwise."""
    from otocod.adapters.sqlite import replay as again

    try:
        found = again.replay(_recording(bracket, file, save))
    except again.RecordingUnreadable as error:
        raise Failed(ExitStatus.FAILED, f"{file or bracket}: {error}") from None
    told = replayed_json(found)
    if as_json:
        output.print_json(told)
    else:
        print_replayed(told)
    if not found.is_same:
        raise typer.Exit(ExitStatus.FAILED)


def _recording(bracket: str | None, file: str | None, save: str | None) -> Mapping[str, Any]:
    from otocod.adapters.sqlite import replay as again

    if (bracket is None) == (file is None) or (file and save):
        raise Failed(ExitStatus.USAGE, "replay: one bracket, or one --file; --save goes with a bracket")
    if file:
        try:
            return again.load(Path(file))
        except OSError as error:
            raise Failed(ExitStatus.FAILED, f"{file}: {error.strerror}") from None
    assert bracket is not None
    with open_source() as source:
        found = source.recording(bracket)
    if save:
        try:
            again.save(found, Path(save))
        except OSError as error:
            raise Failed(ExitStatus.FAILED, f"{save}: {error.strerror}") from None
    return found


def replayed_json(found: "Replayed") -> dict[str, Any]:
    different = found.difference
    return {
        "bracket_id": found.bracket_id,
        "decisions": len(found.beliefs),
        "same": found.is_same,
        "unrecorded": found.unrecorded,
        "astray": list(found.astray),
        "first_difference": None
        if different is None
        else {
            "decision": different.number,
            "seq": different.seq,
            "at": output.iso_from_us(different.at_us),
            "told": different.told,
            "recorded": list(different.recorded),
            "now": list(different.now),
        },
    }


def print_replayed(told: Mapping[str, Any]) -> None:
    name, count, different = told["bracket_id"], told["decisions"], told["first_difference"]
    if different is not None:
        seq, at = different["seq"], output.at_text(different["at"])
        output.say(f"{name}: decision {different['decision']} (journal {seq}, {at} UTC) is another one now")
        output.say(f"  told      {different['told']}")
        for title in ("recorded", "now"):
            for line in different[title] or ("nothing else",):
                output.say(f"  {title:<8}  {line}")
    elif told["unrecorded"]:
        output.say(f"{name}: not to be decided again: {told['unrecorded']}")
        output.say(f"  decisions before that, decided again and the same: {count}")
    elif told["astray"]:
        output.say(f"{name}: {count} decisions, all the same, and the stored record is another one than they lead to")
        output.say(f"  it differs in {', '.join(told['astray'])}")
    else:
        output.say(f"{name}: {count} decisions, all the same, and they lead to the record that is stored")


def events(
    bracket: str | None = typer.Argument(None, metavar="[B]", help="Only this bracket's."),
    follow: bool = typer.Option(False, "--follow", help="Go on as new ones come; with --json, one object a line."),
    after: int = typer.Option(0, "--after", help="Only after this sequence number."),
    limit: int = typer.Option(0, "--limit", help="At most so many, the newest; 0 is all."),
    everything: bool = typer.Option(False, "--all", help="With every message that changed nothing; JSON has them all."),
    as_json: bool = Json,
) -> None:
    """The journal."""
    with open_source() as source:
        found = _pages(source, bracket, after)
    last = int(found[-1]["seq"]) if found else after
    shown = found[-limit:] if limit > 0 else found
    if as_json and not follow:
        output.print_json(shown)
        return
    _print_events(shown, everything=everything, as_json=as_json)
    while follow:
        # Opened for each round: the daemon may come and go while somebody watches.
        with open_source() as source:
            fresh = source.events(bracket, after=last, limit=_EVENTS_PAGE, wait_s=_FOLLOW_WAIT_S)
            if not fresh and not source.waits:
                time.sleep(_FOLLOW_POLL_S)
        _print_events(fresh, everything=everything, as_json=as_json)
        last = int(fresh[-1]["seq"]) if fresh else last


def _pages(source: Source, bracket: str | None, after: int) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = []
    while True:
        page = source.events(bracket, after=after, limit=_EVENTS_PAGE, wait_s=0)
        found += page
        if len(page) < _EVENTS_PAGE:
            return found
        after = int(page[-1]["seq"])


def _print_events(entries: Sequence[Mapping[str, Any]], *, everything: bool, as_json: bool) -> None:
    for entry in entries:
        if as_json:
            output.print_json_line(entry)
            continue
        if not everything and not is_worth_telling(entry):
            continue
        parts = (
            output.at_text(entry["at"]),
            output.short_id(entry),
            entry["event"],
            _move(entry),
            entry.get("detail") or "",
        )
        output.say("  ".join(part for part in parts if part))
    output.flush()
