"""What only a real account can say: each open question about the broker, the answer assumed, and what otocod does
under either answer. `docs/open-questions.md` is made from this table (`python -m otocod.questions`).
"""

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import UTC, datetime

from otocod.domain.specs import Protection
from otocod.ports.store import Capability


@dataclass(frozen=True, slots=True)
class Question:
    """`proved_by`: modes whose record in the capability record of spreads answers it."""

    number: int
    text: str
    assumed: str
    if_so: str
    if_not: str
    proved_by: tuple[Protection, ...] = ()


OTOCO, OCO = Protection.NATIVE_OTOCO, Protection.NATIVE_OCO

QUESTIONS = (
    Question(
        1,
        "Does `external-identifier` come back in the POST's answer, in reads, listings and the stream?",
        "yes",
        "an order whose answer was lost is found by it.",
        "orders are followed by the broker's own id, by the chain of replacements and by their place in a group. One"
        " whose answer was lost is then taken for absent after its window, and an exit is sent again: a second one is"
        " refused by the broker's rule against closing more than the position, a second entry is never sent.",
    ),
    Question(
        2,
        "Does a replacement, or a member of an OTOCO, keep it?",
        "not known, and not needed",
        "it is found by it.",
        "a replacement is known by the order it replaces, a member by its group, order type and legs.",
    ),
    Question(
        3,
        "Are OCO and OTOCO with members of several legs accepted?",
        "OTOCO yes, OCO until it is refused",
        "`auto` uses them, the strongest first.",
        "the mode is not used for `auto` for seven days, then asked again; a bracket in the middle of it goes down to"
        " the next one at once, at last to `watched`.",
        (OTOCO, OCO),
    ),
    Question(
        4,
        "Does a Stop Limit on a spread stay working?",
        "yes",
        "it is the stop, and rests.",
        "one that the broker ends unasked is sent again twice; then the ladder moves: the stop is watched for on quotes"
        " while the target rests, and where there are no quotes the position is closed. Each step is alarmed.",
    ),
    Question(
        5,
        "Does strict validation refuse the exits of an OTOCO, for which there is no position yet?",
        "no",
        "every exit carries it, inside an OTOCO too.",
        "the dry-run of the OTOCO is refused, and the mode is not used: no exit of ours ever leaves without it.",
        (OTOCO,),
    ),
    Question(
        6,
        "Do armed exits of a group show as Live or as Contingent?",
        "either",
        "Live (or Received) is in force as it is.",
        "Contingent counts as armed once the container was read after the trigger's fill with both members open; it is"
        " read again half a minute later.",
    ),
    Question(
        7,
        "What does an OCO do when one member fills in part?",
        "the broker takes the other one down by as much, or leaves it",
        "what rests is compared with what is open, and nothing has to be done.",
        "a sibling that is too large is taken away by otocod; the surplus of a double fill is measured leg by leg and"
        " told, `on_double_exit` decides.",
    ),
    Question(
        8,
        "Is reserved quantity free at Cancel Requested, or only at Cancelled?",
        "at Cancelled",
        "the next closing order goes only after the cancel is confirmed.",
        "the same, a moment later than it could.",
    ),
    Question(
        9,
        "DELETE on an order that is cancelled already: 200 or 422?",
        "either",
        "200 is taken as asked for, and the end is read.",
        "422 says only that it is over: the order is read.",
    ),
    Question(
        10,
        "By what rule does the sandbox fill orders now?",
        "not known",
        "nothing depends on it.",
        "nothing depends on it; do not judge fills by the sandbox.",
    ),
    Question(
        11,
        "Does the sandbox take the `Accept-Version` header?",
        "yes",
        "it is sent.",
        "`accept_versions.sandbox` set to nothing leaves it out.",
    ),
    Question(
        12,
        "What does the stream answer to a heartbeat with an expired token?",
        "nothing good",
        "the token is renewed long before, and every heartbeat carries the newest.",
        "an error to a heartbeat is taken for a lost line: a new one is made with a new token.",
    ),
    Question(
        13,
        "What status does a GTC order have overnight, and does it always rest again in the morning?",
        "Received, Contingent or Live; and yes",
        "each of them is in force while the market is closed.",
        "each exit is read once a minute after the open. One that the broker dropped is sent again; one that it still"
        " holds is no longer counted as protection, and an alarm says so.",
    ),
    Question(
        14,
        "How many orders may one page hold?",
        "200",
        "listings ask for 200 and read every page.",
        "a page that is shorter than it says is no complete listing, and proves no absence.",
    ),
    Question(
        15,
        "Do condition orders work for spreads?",
        "not known",
        "they are not used.",
        "they are not used.",
    ),
    Question(
        16,
        "How long until a new order can be read?",
        "less than a second",
        "an exit whose answer was lost is looked for during 10 s, an entry during 120 s.",
        "one that shows up after its window is cancelled, or if it has filled its bracket is opened again; both are"
        " alarmed.",
    ),
    Question(
        17,
        "With what code is a stop refused that the market has passed already?",
        "not known",
        "no code is needed: a refused stop goes down the ladder, where it is watched for on quotes; they are at its"
        " trigger, so the position is closed at the natural price.",
        "without usable quotes it is tried again three times and the position then closed (`on_unprotectable`).",
    ),
    Question(
        18,
        "An OCO of two limits: refused, or needed for spreads?",
        "refused",
        "otocod sends a Limit and a Stop or Stop Limit.",
        "a refusal of that pair is remembered, and `watched` used.",
    ),
)


def answers(records: Iterable[Capability]) -> str:
    """What the capability record says of the questions, in one line."""
    of_spreads = {each.protection: each for each in records if each.product == "spread"}
    told = []
    for question in QUESTIONS:
        found = [_answer(of_spreads[mode]) for mode in question.proved_by if mode in of_spreads]
        if question.proved_by:
            told.append(f"{question.number}: {', '.join(found) or 'not asked yet'}")
    others = sum(not question.proved_by for question in QUESTIONS)
    return f"{'; '.join(told)}; {others} others only time can answer (docs/open-questions.md)"


def _answer(record: Capability) -> str:
    day = datetime.fromtimestamp(record.at_us // 1_000_000, UTC).date().isoformat()
    return f"{record.protection} {'accepted' if record.is_accepted else 'refused'} on {day} ({record.evidence})"


def page() -> str:
    lines = [
        "# Open questions about the broker",
        "",
        "otocod has never traded a real account, and no document answers these. For each: what is assumed, and what",
        "otocod does if that is right and if it is wrong. `otocod doctor` shows what this account has answered so far:",
        "a dry-run of a complex order has no effect and is made at the start and once a day for every kind of product",
        "that was traded before; every real order's answer counts as well, and more.",
        "",
    ]
    for question in QUESTIONS:
        lines += [
            f"## {question.number}. {question.text}",
            "",
            f"- **Assumed:** {question.assumed}.",
            f"- **If so:** {question.if_so}",
            f"- **If not:** {question.if_not}",
        ]
        if question.proved_by:
            lines.append(f"- **Answered by:** the record of {' and '.join(question.proved_by)} in `otocod doctor`.")
        lines.append("")
    return "\n".join(lines)


if __name__ == "__main__":
    print(page(), end="")  # noqa: T201 - its whole purpose
