"""An overview in a terminal's words. Much of it was written by others: every text is cleaned, and none is markup."""

from collections.abc import Mapping, Sequence
from typing import Any

from rich.text import Text

from otocod.cli.output import SHORT_ID, at_text, seconds_text
from otocod.text import sanitise

Row = Mapping[str, Any]

COLUMNS = (
    "bracket",
    "ref",
    "standing",
    "stop ↔ target",
    "price",
    "to target",
    "to stop",
    "result",
    "unprotected",
    "protection",
)
MARKS = {"good": "●", "warn": "▲", "bad": "■", "idle": "–"}
STYLES = {"good": "green", "warn": "yellow", "bad": "bold red", "idle": "dim"}
_OUTCOMES = {"TARGET_FILLED": "good", "STOP_FILLED": "warn", "DOUBLE_EXIT": "bad"}
_REF_MAX = 22
GAUGE = 21


def clean(value: object, limit: int = 300) -> str:
    return "" if value is None else sanitise(str(value), limit)


def toned(tone: str, words: object) -> Text:
    """With a shape, for eyes that do not tell the colours apart."""
    style = STYLES.get(tone, "")
    return Text(f"{MARKS.get(tone, ' ')} {clean(words)}", style=style)


def cells(row: Row) -> list[Text]:
    """One line of the table: of an open bracket, or of one that closed lately."""
    return _open_cells(row) if "standing" in row else _closed_cells(row)


def _open_cells(row: Row) -> list[Text]:
    is_unprotected = row["unprotected_now"]
    seconds = seconds_text(row["unprotected_s"]) if row["entry_net_price"] or is_unprotected else ""
    return [
        Text(clean(row["name"]), style="bold"),
        Text(clean(row["client_ref"], _REF_MAX)),
        toned(row["tone"], row["standing"]),
        gauge(row),
        _right(row.get("price")),
        _right(row.get("to_target")),
        _right(row.get("to_stop")),
        result(row),
        Text(seconds, style=STYLES["bad"] if is_unprotected else "", justify="right"),
        Text(clean(row["protection"]), style="dim"),
    ]


def _closed_cells(row: Row) -> list[Text]:
    blank = Text("")
    outcome = clean(row["outcome"])
    exit_price = clean(row["exit_net_price"]).lstrip("-")
    return [
        Text(clean(row["bracket_id"])[:SHORT_ID], style="dim"),
        Text(clean(row["client_ref"], _REF_MAX), style="dim"),
        toned(_OUTCOMES.get(outcome, "idle"), outcome.lower().replace("_", " ")),
        Text(f"in {clean(row['entry_net_price']).lstrip('-')}, out {exit_price}" if exit_price else "", style="dim"),
        blank,
        blank,
        blank,
        blank,
        Text(seconds_text(row["unprotected_s"]) if exit_price else "", style="dim", justify="right"),
        Text(clean(row["protection"]), style="dim"),
    ]


def differ(one: Text, other: Text) -> bool:
    """Whether they look different; of their own, texts are equal whatever their style."""
    return (one.plain, one.style, one.spans) != (other.plain, other.style, other.spans)


def gauge(row: Row) -> Text:
    """From the stop, left, to the target, right: `●` is the market, `│` where it began."""
    place = row.get("place")
    if place is None:
        to_entry = row.get("to_entry")
        if to_entry is not None:
            return Text(f"{clean(to_entry)} to the entry")
        quotes = row.get("quotes") or {}
        return Text(clean(quotes.get("text"), GAUGE + 9), style=STYLES.get(str(quotes.get("tone")), ""))
    here = round(place * (GAUGE - 1))
    begun = row.get("entry_place")
    start = None if begun is None else round(begun * (GAUGE - 1))
    drawn = Text()
    for at in range(GAUGE):
        is_run = start is not None and min(start, here) <= at <= max(start, here)
        run = "green" if start is not None and here >= start else "red"
        if at == here:
            drawn.append("●", "bold")
        elif at == start:
            drawn.append("│", "blue")
        else:
            drawn.append("━" if is_run else "─", run if is_run else "dim")
    return drawn


def result(row: Row) -> Text:
    profit, dollars = row.get("profit"), row.get("profit_dollars")
    if profit is None:
        return Text("")
    shown = clean(profit) if dollars is None else f"{clean(dollars)} $"
    is_loss = shown.startswith("-")
    return Text(shown if is_loss else f"+{shown}", style="red" if is_loss else "green", justify="right")


def _right(value: object) -> Text:
    return Text(clean(value), justify="right")


def vital(found: Row) -> Text:
    text = Text().append(f"{clean(found['what'])}\n", "dim")
    text.append_text(toned(str(found["tone"]), found["text"]))
    text.append(f"\n{clean(found['detail'], 120)}", "dim")
    return text


def attention(lines: Sequence[Row]) -> Text:
    text = Text()
    for number, line in enumerate(lines):
        text.append(("\n" if number else "") + f"▲ {clean(line['client_ref'], 40)}: ", "bold yellow")
        text.append(clean(line["attention"]))
    return text


def title(found: Row) -> Text:
    text = Text("otocod", style="bold")
    environment = clean(found.get("environment"))
    if environment:
        text.append(f"  {environment}", "bold red" if environment == "production" else "cyan")
    counts = found.get("counts") or {}
    text.append("  " + (", ".join(f"{count} {clean(state)}" for state, count in counts.items()) or "nothing is open"))
    if found.get("unshown"):
        text.append(f", {found['unshown']} of them not shown", "yellow")
    text.append(f"   {at_text(clean(found.get('at')))[11:19]} UTC", "dim")
    return text


def facts(seen: Row) -> Text:
    """The bracket of a view, in one or two lines."""
    row = seen["bracket"]
    text = Text(clean(row["name"]), style="bold")
    text.append(f"  {clean(row['expires'])}  ", "dim")
    text.append_text(toned(row["tone"], row["standing"] if row["outcome"] is None else row["outcome"]))
    parts = [
        ("state", row["state"]),
        ("units", row["quantity"]),
        ("entry", row["entry"]),
        ("target", row["target"]),
        ("stop", row["stop"]),
        ("limit", row["stop_limit"]),
        ("price", row["price"]),
        ("account", row["account"]),
    ]
    shown = [f"{name} {clean(value)}" for name, value in parts if value is not None]
    tags = [f"{clean(name, 40)}={clean(value, 60)}" for name, value in row["tags"].items()]
    text.append("\n" + "   ".join(shown + tags))
    return text


def timeline(seen: Row) -> Text:
    text = Text()
    for number, line in enumerate(seen["story"]):
        text.append(("\n" if number else "") + f"{at_text(line['at'])[11:] or '':<14}", "dim")
        text.append(clean(line["text"], 2_000))
        if line["evidence"]:
            text.append(f"  ({', '.join(clean(each) for each in line['evidence'])})", "dim")
    return text
