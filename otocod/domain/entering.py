"""The entry, from sent to terminal; and the two things common to all orders: outcomes unknown, cancels chased."""

from otocod.domain.acceptance import send_entry
from otocod.domain.brackets import BracketState
from otocod.domain.commands import (
    CancelComplex,
    CancelOrder,
    Command,
    Member,
    ReadOrder,
    ReplaceOrder,
    SubmitComplex,
    SubmitOrder,
    Sweep,
)
from otocod.domain.ids import BrokerOrderId, ExternalIdentifier
from otocod.domain.learning import keep_forerunner
from otocod.domain.machine import BracketEvent, OrderEvent
from otocod.domain.orders import Order, OrderState
from otocod.domain.specs import Protection, Role
from otocod.domain.spreads import unmatched_quantities
from otocod.domain.timing import (
    CANCEL_REPEAT_MAX_US,
    CANCEL_REPEAT_US,
    CANCEL_TRIES_BEFORE_ALARM,
    ENTRY_WINDOW_US,
    EXIT_WINDOW_US,
    HEIR_ASKED_AGAIN_US,
    LISTINGS_FOR_ABSENCE,
    LONGEST_LISTING_GAP_US,
    RATIO_JUDGED_AFTER_US,
    STREAMLESS_LISTINGS,
    STREAMLESS_WINDOW_US,
    backoff_us,
)
from otocod.domain.turn import Turn


def pursue_entry(turn: Turn) -> None:
    _note_first_fill(turn)
    entries = turn.bracket.entries
    if not entries:
        return
    entry = entries[-1]
    if entry.state is OrderState.REJECTED and entry.refusal is not None:
        _entry_refused(turn, entry)
    elif not entry.is_terminal:
        _entry_working(turn, entry)
    elif entry.has_any_fill:
        if turn.bracket.exits_allowed_us is None:
            turn.set(exits_allowed_us=turn.now_us)
        _tell_late_fill(turn)
        _check_ratio(turn)


def _tell_late_fill(turn: Turn) -> None:
    """What fills after its end was seen is protected like the rest, and a person told. Legs follow one another for a
    moment, and a fill may be told behind the cancel that it won against.
    """
    bracket = turn.bracket
    assert bracket.exits_allowed_us is not None
    is_late = turn.now_us >= bracket.exits_allowed_us + RATIO_JUDGED_AFTER_US and not bracket.uneven
    if is_late and bracket.entry_units > turn.before.entry_units:
        turn.attend(
            "entry_filled_late",
            f"the entry has filled further after its end was seen: {bracket.entry_units} units now, all are being"
            " protected",
        )


def _note_first_fill(turn: Turn) -> None:
    bracket = turn.bracket
    if bracket.first_fill_us is not None or not any(order.has_any_fill for order in bracket.entries):
        return
    turn.set(first_fill_us=turn.now_us, unprotected_since_us=turn.now_us)
    _clear_suspects(turn)
    _follow_suspects(turn)  # they matter from this fill on; if it is the last news, nothing else would look for them
    if bracket.state is BracketState.PENDING_ENTRY:
        turn.move(BracketEvent.FILL_ENTRY, "EntryFilled")


def _clear_suspects(turn: Turn) -> None:
    """Exits are posted after a fill. If the entry had none when this run began, no earlier run can have posted any.

    Both must say so, the first listing and the broker's time of each fill: either may lag, or go by another clock.
    """
    bracket = turn.bracket
    since_us = bracket.suspect_since_us
    if not bracket.suspects or since_us is None or not bracket.was_unfilled_at_restart:
        return
    times = [fill.filled_at_us for order in bracket.entries for _, fill in order.fills]
    if times and all(at_us is not None and at_us >= since_us for at_us in times):
        turn.set(suspects=(), suspect_since_us=None, suspect_listings=0)
        turn.note("SuspectsCleared", "the entry filled after the restart")


def _entry_refused(turn: Turn, entry: Order) -> None:
    """A refused group may only mean that groups are not taken: the entry goes again alone, on its next id."""
    if entry.group is None or entry.is_settled or turn.bracket.entry_cancel_asked:
        return
    turn.put(entry, is_settled=True)
    if turn.bracket.state is not BracketState.PENDING_ENTRY or turn.bracket.protection is not Protection.NATIVE_OTOCO:
        return
    turn.set(ladder=turn.bracket.ladder[1:])
    turn.note("ProtectionRefused", f"{Protection.NATIVE_OTOCO}: {entry.refusal.text if entry.refusal else ''}")
    send_entry(turn)


def _entry_working(turn: Turn, entry: Order) -> None:
    bracket = turn.bracket
    first_fill_us = bracket.first_fill_us
    wants_cancel = bracket.entry_cancel_asked
    if first_fill_us is not None:
        # Exits may not be sent while the entry works: the rest gets its grace, then goes.
        grace_ends_us = first_fill_us + bracket.request.partial_entry_grace_us
        if turn.now_us < grace_ends_us:
            turn.wake(grace_ends_us)
        else:
            wants_cancel = True
    if entry.state is OrderState.INTENDED:
        is_stale = turn.now_us >= bracket.request.not_after_us
        if wants_cancel or is_stale:
            _give_up_group(turn, entry)
        else:
            turn.wake(bracket.request.not_after_us)
        return
    if wants_cancel:
        request_cancel(turn, entry)


def _give_up_group(turn: Turn, entry: Order) -> None:
    """Proved not sent and not wanted any more: neither the entry nor its exits will ever be."""
    for order in turn.bracket.orders:
        is_with = order is entry or (entry.group is not None and order.group == entry.group)
        if is_with and order.state is OrderState.INTENDED:
            turn.tell(order, OrderEvent.GIVE_UP, retry_at_us=None)


def _check_ratio(turn: Turn) -> None:
    """Legs out of ratio are told once for what they are: also after a fill that came late, and when one has mended it.

    The stream may tell a fill leg by leg and lose a part of it, so the entry is read before (`complete_fills`).
    """
    bracket = turn.bracket
    uneven = tuple(unmatched_quantities(bracket.request.entry.legs, bracket.filled_of(bracket.entries)).items())
    if uneven == bracket.uneven:
        return
    if not uneven:
        turn.set(uneven=())
        turn.attend(
            "legs_uneven",
            f"the entry's legs are in ratio after all: all {bracket.entry_units} units are being protected,"
            " nothing of them is yours to close",
        )
        return
    asked_us = turn.now_us if bracket.fills_asked_us is None else bracket.fills_asked_us
    if turn.now_us < asked_us + RATIO_JUDGED_AFTER_US:
        turn.wake(asked_us + RATIO_JUDGED_AFTER_US)
        return
    turn.set(is_frozen=True, uneven=uneven)
    turn.attend(
        "legs_uneven",
        f"the entry ended with legs out of ratio ({', '.join(symbol.strip() for symbol, _ in uneven)}): "
        f"{bracket.entry_units} whole units are being protected, the rest is yours to close",
    )


def settle_doubles(turn: Turn) -> None:
    """Two orders with one identifier: a proxy repeated our request. The oldest that works stays, the others go.

    Once one of them has filled and ended, none of the others is wanted.
    """
    for order in turn.bracket.orders:
        working = [view for view in order.heads if not view.status.is_terminal]
        if len(order.heads) < 2:
            continue
        turn.attend("order_doubled", f"the broker shows two {order.role} orders with one identifier")
        filled = [view for view in order.heads if any(view.filled(leg.symbol) for leg in order.spec.legs)]
        if len(filled) > 1:
            turn.set(is_frozen=True)
            turn.attend(
                "order_doubled",
                f"two {order.role} orders with one identifier have filled: what exceeds the bracket is yours to close",
            )
        surplus = working if any(view.status.is_terminal for view in filled) else working[1:]
        if not surplus:
            continue
        sent_us = turn.bracket.doubles_cancelled_us
        if sent_us is not None and turn.now_us < sent_us + CANCEL_REPEAT_US:
            turn.wake(sent_us + CANCEL_REPEAT_US)
            continue
        turn.set(doubles_cancelled_us=turn.now_us)
        turn.wake(turn.now_us + CANCEL_REPEAT_US)
        for view in surplus:
            if view.complex_order_id is not None:
                # A member of a group does not go alone; with its container the other doubles of the group go too.
                turn.ask(CancelComplex(view.complex_order_id, (order.external_identifier,)))
            else:
                turn.ask(CancelOrder(order.external_identifier, view.broker_order_id))


def seek_heirs(turn: Turn) -> None:
    """An order that somebody else moved is not over: the one in its place is asked for until it has been seen."""
    unseen: list[tuple[Order, BrokerOrderId]] = []
    for order in turn.bracket.orders:
        for heir in order.unseen_heirs:
            if _is_known(turn, heir):  # on a record of its own: a move of ours whose intent was lost with a crash
                moved = (view.broker_order_id for view in order.views if view.replaced_by == heir)
                order = turn.put(order, moved_ids=(*order.moved_ids, *moved))
            else:
                unseen.append((order, heir))
    asked_us = turn.bracket.heirs_asked_us
    if not unseen:
        turn.set(heirs_asked_us=None)
    elif asked_us is not None and turn.now_us < asked_us + HEIR_ASKED_AGAIN_US:
        turn.wake(asked_us + HEIR_ASKED_AGAIN_US)
    else:
        turn.set(heirs_asked_us=turn.now_us)
        turn.wake(turn.now_us + HEIR_ASKED_AGAIN_US)
        for order, heir in unseen:
            turn.ask(ReadOrder(order.external_identifier, heir))


def _is_known(turn: Turn, broker_order_id: BrokerOrderId) -> bool:
    return any(view.broker_order_id == broker_order_id for order in turn.bracket.orders for view in order.views)


# Outcomes that are not known.


def follow_unknowns(turn: Turn) -> None:
    for order in turn.bracket.unknown_orders:
        since_us = order.unknown_since_us if order.unknown_since_us is not None else turn.now_us
        is_entry = order.role is Role.ENTRY or _goes_with_unfilled_entry(turn, order)
        window_us = ENTRY_WINDOW_US if is_entry else EXIT_WINDOW_US
        if _is_absence_proved(turn, since_us, window_us, order.absent_listings):
            _absence(turn, order, is_entry=is_entry)
        else:
            _ask_listing(turn, since_us, window_us)
    _follow_suspects(turn)


def _goes_with_unfilled_entry(turn: Turn, order: Order) -> bool:
    return (
        order.group is not None
        and turn.bracket.first_fill_us is None
        and any(entry.group == order.group for entry in turn.bracket.entries)
    )


def _is_absence_proved(turn: Turn, since_us: int, window_us: int, listings: int) -> bool:
    if not turn.bracket.is_stream_healthy:
        window_us = max(window_us, STREAMLESS_WINDOW_US)
        return listings >= STREAMLESS_LISTINGS and _listed_after(turn, since_us + window_us)
    return listings >= LISTINGS_FOR_ABSENCE and _listed_after(turn, since_us + window_us)


def _listed_after(turn: Turn, at_us: int) -> bool:
    """The last listing began after the window: an order accepted late would have been in it."""
    return turn.bracket.listed_at_us is not None and turn.bracket.listed_at_us >= at_us


def _ask_listing(turn: Turn, since_us: int, window_us: int) -> None:
    """Listings are spread over the window, and one begins after its end."""
    listings = LISTINGS_FOR_ABSENCE
    if not turn.bracket.is_stream_healthy:
        window_us, listings = max(window_us, STREAMLESS_WINDOW_US), STREAMLESS_LISTINGS
    gap_us = min(window_us // listings, LONGEST_LISTING_GAP_US)
    last_us = turn.bracket.listed_at_us
    due_us = turn.now_us
    if last_us is not None and last_us >= since_us:
        ends_us = since_us + window_us
        due_us = last_us + gap_us if last_us >= ends_us else min(last_us + gap_us, ends_us)
    if turn.now_us >= due_us:
        turn.ask(Sweep(turn.bracket.listed_from_us))
        due_us = turn.now_us + gap_us
    turn.wake(due_us)


def _absence(turn: Turn, order: Order, *, is_entry: bool) -> None:
    turn.tell(order, OrderEvent.GIVE_UP)
    turn.note("AbsenceProved", f"{order.role} {order.external_identifier}")
    keep_forerunner(turn, order)
    if is_entry and order.role is Role.ENTRY:
        turn.attend(
            "entry_given_up", "the entry's outcome was not known and no trace of it was found: given up, not sent again"
        )


def _follow_suspects(turn: Turn) -> None:
    bracket = turn.bracket
    if not bracket.suspects or bracket.first_fill_us is None:
        return
    since_us = bracket.suspect_since_us if bracket.suspect_since_us is not None else turn.now_us
    if _is_absence_proved(turn, since_us, EXIT_WINDOW_US, bracket.suspect_listings):
        turn.set(suspects=(), suspect_since_us=None, suspect_listings=0)
        turn.note("AbsenceProved", "identifiers staged before the restart were never posted")
    else:
        _ask_listing(turn, since_us, EXIT_WINDOW_US)


# Sends that were proved not to have left.


def resend_deferred(turn: Turn) -> None:
    due = [
        order for order in turn.bracket.orders if order.state is OrderState.INTENDED and order.retry_at_us is not None
    ]
    groups: set[ExternalIdentifier] = set()
    for order in due:
        retry_at_us = order.retry_at_us
        assert retry_at_us is not None
        if turn.now_us < retry_at_us:
            turn.wake(retry_at_us)
        elif _is_overtaken(turn, order) or _is_too_late(turn, order):
            _give_up_group(turn, order)
            keep_forerunner(turn, order)
        elif order.group is None or order.replaces is not None:
            turn.ask(_submit(turn, turn.tell(order, OrderEvent.SEND, retry_at_us=None)))
        elif order.group not in groups:
            groups.add(order.group)
            members = [mate for mate in turn.bracket.orders if mate.group == order.group and mate.replaces is None]
            sent = [turn.tell(mate, OrderEvent.SEND, retry_at_us=None) for mate in members]
            turn.ask(SubmitComplex(tuple(Member(m.external_identifier, m.role, m.spec) for m in sent)))


def _is_overtaken(turn: Turn, order: Order) -> bool:
    """Fills or a cancel came while an exit waited to be sent: what is wanted now is another order, or none."""
    if order.role is Role.ENTRY or _goes_with_unfilled_entry(turn, order):
        return False
    if order.cancel_asked_us is not None:
        return True
    return any(leg.quantity > turn.bracket.closable(leg) for leg in order.spec.legs)


def _is_too_late(turn: Turn, order: Order) -> bool:
    """Nothing is left to be replaced."""
    forerunner = turn.bracket.order(order.replaces) if order.replaces is not None else None
    return forerunner is not None and forerunner.is_terminal


def _submit(turn: Turn, order: Order) -> Command:
    member = Member(order.external_identifier, order.role, order.spec)
    forerunner = turn.bracket.order(order.replaces) if order.replaces is not None else None
    if forerunner is not None and forerunner.broker_order_id is not None:
        return ReplaceOrder(forerunner.broker_order_id, member)
    return SubmitOrder(member)


# Cancels.


def request_cancel(turn: Turn, order: Order) -> None:
    """Wanted gone. The cancel leaves in `chase_cancels`, once the broker's id is known, and until it is terminal."""
    current = turn.bracket.order(order.external_identifier)
    if current is None or current.is_terminal or current.cancel_asked_us is not None:
        return
    if current.state is OrderState.INTENDED:
        turn.tell(current, OrderEvent.GIVE_UP, retry_at_us=None)
        return
    turn.put(current, cancel_asked_us=turn.now_us)
    turn.note("CancelRequested", f"{current.role} {current.external_identifier}")


def chase_cancels(turn: Turn) -> None:
    """A cancel may be repeated, and is, until the broker shows the order terminal: only that is proof."""
    groups: set[ExternalIdentifier] = set()
    for order in turn.bracket.orders:
        if order.cancel_asked_us is None or order.is_terminal or order.head is None or order.head.status.is_terminal:
            continue
        sent_us = order.cancel_sent_us
        if sent_us is not None:
            due_us = sent_us + backoff_us(order.cancel_tries, CANCEL_REPEAT_US, CANCEL_REPEAT_MAX_US)
            if turn.now_us < due_us:
                turn.wake(due_us)
                continue
        if order.group is not None:
            if order.group not in groups:
                groups.add(order.group)
                _cancel_group(turn, order)
            continue
        sent = _mark_cancel(turn, order)
        assert sent.broker_order_id is not None
        turn.ask(
            CancelOrder(sent.external_identifier, sent.broker_order_id, after_commit=_removes_protection(turn, sent))
        )


def _cancel_group(turn: Turn, order: Order) -> None:
    if order.complex_order_id is None:
        # Without the container's id the member has to do; reading it will bring the id.
        sent = _mark_cancel(turn, order)
        assert sent.broker_order_id is not None
        turn.ask(
            CancelOrder(sent.external_identifier, sent.broker_order_id, after_commit=_removes_protection(turn, sent))
        )
        return
    # One that the broker has not shown stays what it is, until it turns up or its absence is proved.
    mates = [
        m for m in turn.bracket.orders if m.group == order.group and not m.is_terminal and m.broker_order_id is not None
    ]
    after_commit = any(_removes_protection(turn, mate) for mate in mates)
    sent_mates = [_mark_cancel(turn, mate) for mate in mates]
    turn.ask(
        CancelComplex(
            order.complex_order_id, tuple(mate.external_identifier for mate in sent_mates), after_commit=after_commit
        )
    )


def _mark_cancel(turn: Turn, order: Order) -> Order:
    tries = order.cancel_tries + 1
    if tries == CANCEL_TRIES_BEFORE_ALARM:
        turn.attend(
            "cancel_stuck", f"the {order.role} order {order.broker_order_id} does not go away after {tries} cancels"
        )
    turn.wake(turn.now_us + backoff_us(tries, CANCEL_REPEAT_US, CANCEL_REPEAT_MAX_US))
    asked_us = order.cancel_asked_us if order.cancel_asked_us is not None else turn.now_us
    return turn.tell(
        order, OrderEvent.ASK_CANCEL, cancel_sent_us=turn.now_us, cancel_tries=tries, cancel_asked_us=asked_us
    )


def _removes_protection(turn: Turn, order: Order) -> bool:
    """While a position is open, an exit may go only once the reason is on disk, so that recovery knows why it went."""
    return (
        order.role is not Role.ENTRY and turn.bracket.first_fill_us is not None and turn.bracket.flat_since_us is None
    )
