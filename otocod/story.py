"""A bracket's life in plain words, from its journal and its orders.

Nothing here is known that is not in the record: each line names its evidence, the journal's sequence number and the
identifiers of the order it is about, so that a reader can check it against the broker.
"""

from collections.abc import Mapping, Sequence
from typing import Any

from otocod.text import sanitise

Told = dict[str, Any]

# What the journal's words mean. `{detail}` is the entry's own text, which names the order or the reason.
_SENTENCES: Mapping[str, str] = {
    "BracketAccepted": "The request was accepted and the entry handed to the executor.",
    "AdoptionAccepted": "{detail} asked for a bracket around a position that was there already.",
    "PositionAdopted": "The position was taken over ({detail}). From here it must be protected.",
    "EntryFilled": "The entry filled. From here the position is open and must be protected.",
    "EntryNotFilled": "The entry ended without a fill; no position came of it.",
    "ProtectionConfirmed": "The protection is in force, confirmed by the broker.",
    "TargetReached": "The quotes show the watched target within reach ({detail}): the stop makes room for it.",
    "TargetWithdrawn": "The target gave way to the stop again ({detail}).",
    "StopReached": "The quotes show the watched stop reached ({detail}): the position is being closed.",
    "StopJumped": "The market has jumped over the resting stop ({detail}), which has not filled.",
    "StopFollowed": "The stop follows the profit: {detail}.",
    "TimeExitDue": "The time exit is due: the position is being closed.",
    "ProtectionLost": "The protection is no longer in force; the unprotected time runs again.",
    "ProtectionRefused": "The broker refused this way of protecting the position; the next one is taken: {detail}",
    "TargetFilled": "The target filled: closed with the profit that was asked for.",
    "StopFilled": "The stop filled: closed with the loss that was allowed.",
    "BracketClosed": "The bracket is closed: {detail}",
    "CloseBegun": "Closing begins, the exits are taken away first: {detail}",
    "CloseAborted": "The close did not work and the exits are put back: {detail}",
    "DecisionFailed": "A decision broke a rule of otocod's own and was dropped; the bracket is frozen: {detail}",
    "RecordRejected": "The database did not take the record, and the bracket is frozen: {detail}",
    "EntryFilledLate": "An entry that had been given up turned out to be filled; the bracket is open again. {detail}",
    "FillsMissing": "The fills' prices are not known yet: {detail}",
    "GroupLeft": "The broker's group is not used any longer: {detail}",
    "MoveRequested": "An order was asked to move: {detail}",
    "SuspectsCleared": "Nothing that may have been sent before the restart matters any longer: {detail}",
    "CloseRequested": "Closing was asked for by {detail}: the exits are taken away, then the position is closed.",
    "EntryCancelRequested": "Cancelling the entry was asked for by {detail}.",
    "ChangeRequested": "Other exits were asked for by {detail}.",
    "AttentionAcknowledged": "{detail} has seen what needed attention.",
    "AttentionRaised": "A person should look: {detail}",
    "Unfrozen": "{detail} let new orders go again.",
    "Released": "{detail} took the bracket over; its orders and position were left as they are.",
    "CancelRequested": "A cancel was sent: {detail}",
    "CancelRefused": "The broker refused a cancel, so the order had ended: {detail}",
    "CancelLost": "A cancel got no answer; it is asked again: {detail}",
    "OrderRefused": "The broker refused an order: {detail}",
    "OrderNotSent": "An order provably did not leave, and goes again under the same identifier: {detail}",
    "OrderAdopted": "An order of ours, not known before, was found at the broker and taken in: {detail}",
    "OutcomeLost": "An order was sent and no answer came. It is looked for before anything else is sent: {detail}",
    "AbsenceProved": "The broker's complete listings do not have it, so it never arrived: {detail}",
    "RefusalContradicted": "An order that had been refused showed up after all: {detail}",
    "QuoteMissing": "The market's price could not be had: {detail}",
    "NightChecked": "A new session began, and each exit was read at the broker: {detail}.",
    "DaemonRestarted": "otocod was started again; the stop before was {detail}.",
}

_STATES: Mapping[str, str] = {
    "PENDING_ENTRY": "the entry has not filled",
    "ENTRY_FILLED": "a position is open and its protection is not yet confirmed",
    "EXITS_LIVE": "a position is open and its protection is in force",
    "CLOSING": "the position is being closed",
    "CLOSED": "it is over",
}

_OUTCOMES: Mapping[str, str] = {
    "TARGET_FILLED": "the target filled",
    "STOP_FILLED": "the stop filled",
    "ENTRY_NOT_FILLED": "the entry never filled",
    "CLOSED_BY_OPERATOR": "an operator closed it",
    "CLOSED_OUTSIDE": "it was closed outside otocod",
    "TIME_EXIT": "its time was up",
    "EXPIRED": "the options expired",
    "RELEASED": "it was handed over to a person",
    "DOUBLE_EXIT": "both exits filled, and a person must look at the position",
}


def is_worth_telling(event: Mapping[str, Any]) -> bool:
    """False for the many messages of the broker that were taken in and changed nothing that a person would look for."""
    return bool(event.get("detail")) or event.get("from") != event.get("to") or event.get("event") in _SENTENCES


def told(bracket: Mapping[str, Any], events: Sequence[Mapping[str, Any]]) -> list[Told]:
    """The story in order: what was asked, what happened, how the orders stand, how it ended.

    bracket: as `show --json`. events: its journal entries (seq, at, event, from, to, detail).
    Each line has `at` (None for a summary), `text`, and `evidence`, a list of identifiers; one that tells of a row of
    the journal has its `seq`.
    """
    lines = [_opening(bracket)]
    lines += [_happening(event) for event in events if is_worth_telling(event)]
    lines += [_order(order) for order in bracket.get("orders", ())]
    lines.append(_ending(bracket))
    return lines


def _line(at: str | None, text: str, evidence: Sequence[object] = ()) -> Told:
    return {"at": at, "text": sanitise(text, 2000), "evidence": [sanitise(str(each)) for each in evidence if each]}


def _opening(bracket: Mapping[str, Any]) -> Told:
    quantity = bracket.get("quantity")
    text = (
        f"Asked for as {bracket.get('client_ref')} in account {bracket.get('account')}: {quantity} "
        f"{'unit' if quantity == 1 else 'units'}, protection in force {bracket.get('protection')}."
    )
    return _line(None, text, [bracket.get("bracket_id")])


def _happening(event: Mapping[str, Any]) -> Told:
    name, detail = str(event.get("event", "")), str(event.get("detail") or "")
    sentence = _SENTENCES.get(name)
    if sentence is None:
        text = f"{_spaced(name)}: {detail}" if detail else f"{_spaced(name)}."
    elif "{detail}" in sentence:
        text = sentence.replace("{detail}", detail or "(no detail)")
    else:
        text = f"{sentence} {detail}" if detail else sentence
    before, after = event.get("from"), event.get("to")
    if before is not None and before != after:
        text = f"{text} [{before} → {after}]"
    seq = event.get("seq")
    return _line(event.get("at"), text, [f"journal {seq}" if seq is not None else None]) | {"seq": seq}


def _order(order: Mapping[str, Any]) -> Told:
    filled, quantity = order.get("filled_quantity", 0), order.get("quantity")
    if order.get("status") == "Adopted":
        text = f"The position was there before, opened by no order of otocod: {filled} taken over"
        return _line(None, f"{text} at {_price(str(order.get('net_fill_price')))}.")
    text = f"The {order.get('role')} order is {order.get('status')}: {filled} of {quantity} filled"
    price = order.get("net_fill_price")
    if price:
        text += f" at {_price(str(price))}"
    identifiers = [order.get("external_identifier")]
    if order.get("broker_order_id"):
        identifiers.append(f"order {order['broker_order_id']}")
    return _line(None, f"{text}.", identifiers)


def _ending(bracket: Mapping[str, Any]) -> Told:
    state, outcome = str(bracket.get("state")), bracket.get("outcome")
    text = f"Now {state}: {_STATES.get(state, 'a state this release does not know')}"
    if outcome:
        text = f"{state}, {outcome}: {_OUTCOMES.get(str(outcome), 'an outcome this release does not know')}"
    entry, leaving = bracket.get("entry_net_price"), bracket.get("exit_net_price")
    if entry:
        text += f"; entered at {_price(str(entry))}"
    if leaving:
        text += f", left at {_price(str(leaving))}"
    unprotected = bracket.get("unprotected_s")
    if entry and unprotected is not None:
        text += f"; unprotected for {float(unprotected) * 1000:.0f} ms in all"
    text += "."
    if bracket.get("attention"):
        text += f" A person should look: {bracket['attention']}"
    return _line(None, text)


def _price(net_price: str) -> str:
    return f"a credit of {net_price[1:]}" if net_price.startswith("-") else f"a debit of {net_price}"


def _spaced(name: str) -> str:
    """`OrderAdopted` as `Order adopted`."""
    words = "".join(f" {letter.lower()}" if letter.isupper() else letter for letter in name).strip()
    return words[:1].upper() + words[1:]
