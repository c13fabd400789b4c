"""From what was said to what is known: one event joined into the record. Nothing is decided here."""

from dataclasses import replace
from typing import assert_never

from otocod.domain.brackets import STAGED_ROLES, BracketState, Close, ClosePurpose
from otocod.domain.commands import LearnCapability, ReadOrder, Sweep
from otocod.domain.events import (
    AttentionAcknowledged,
    BestPriceHeld,
    CancelLost,
    CancelRefused,
    ChangeRequested,
    CloseRequested,
    ComplexReported,
    DaemonRestarted,
    EntryCancelRequested,
    Event,
    HoursResolved,
    LostIdentifiersFound,
    OrderReported,
    PositionsDisagreed,
    QuoteMissing,
    QuoteReported,
    QuotesJudged,
    ReleaseRequested,
    SubmitConfirmed,
    SubmitDenied,
    SubmitLost,
    SubmitNotSent,
    SubmitRefused,
    SweepCompleted,
    TimeExitResolved,
    TimeReached,
    UnfreezeRequested,
    WatchTriggered,
)
from otocod.domain.hours import hours_resolved
from otocod.domain.ids import ExternalIdentifier
from otocod.domain.machine import BracketEvent, OrderEvent
from otocod.domain.moving_stop import best_price_held
from otocod.domain.orders import BrokerStatus, Order, OrderReport, OrderState, Refusal
from otocod.domain.outside import learn_positions
from otocod.domain.reconcile import attribute, spec_from_report
from otocod.domain.records import changed
from otocod.domain.specs import Protection, Role
from otocod.domain.timing import RETRY_FIRST_US, RETRY_MAX_US, VERIFY_AGAIN_US, backoff_us
from otocod.domain.turn import Turn
from otocod.domain.watched import quotes_judged, watch_triggered

_EVENT_OF_STATUS = {
    BrokerStatus.UNRECOGNISED: OrderEvent.ACKNOWLEDGE,
    BrokerStatus.CONTINGENT: OrderEvent.HOLD,
    BrokerStatus.RECEIVED: OrderEvent.ACKNOWLEDGE,
    BrokerStatus.ROUTED: OrderEvent.ACKNOWLEDGE,
    BrokerStatus.IN_FLIGHT: OrderEvent.ACKNOWLEDGE,
    BrokerStatus.LIVE: OrderEvent.WORK,
    BrokerStatus.REPLACE_REQUESTED: OrderEvent.ASK_REPLACE,
    BrokerStatus.CANCEL_REQUESTED: OrderEvent.ASK_CANCEL,
    BrokerStatus.REJECTED: OrderEvent.REJECT,
    BrokerStatus.EXPIRED: OrderEvent.EXPIRE,
    BrokerStatus.REMOVED: OrderEvent.CANCEL,
    BrokerStatus.PARTIALLY_REMOVED: OrderEvent.CANCEL,
    BrokerStatus.CANCELLED: OrderEvent.CANCEL,
    BrokerStatus.FILLED: OrderEvent.FILL,
}

# The market is closed; the order waits for the next session. The second is an older spelling still seen.
_SESSION_WARNINGS = frozenset({"tif.next_valid_session", "tif_next_valid_sesssion"})


def learn(turn: Turn, event: Event) -> None:
    match event:
        case SubmitConfirmed():
            _confirmed(turn, event)
        case SubmitRefused():
            for order in _named(turn, event.external_identifiers):
                _refused(turn, order, event.refusal)
            _doubt_position(turn, event)
            _learn_capability(turn, event.external_identifiers, event.refusal)
        case SubmitDenied():
            turn.set(is_frozen=True)
            turn.attend("order_denied", f"an order was stopped by the last gate ({event.why}): frozen, report this")
            for order in _named(turn, event.external_identifiers):
                _refused(turn, order, Refusal(0, ("last_gate",), event.why))
        case SubmitNotSent():
            for order in _named(turn, event.external_identifiers):
                _not_sent(turn, order, event.why)
        case SubmitLost():
            for order in _named(turn, event.external_identifiers):
                _lost(turn, order, event.why)
        case CancelRefused():
            for order in _named(turn, event.external_identifiers):
                turn.note("CancelRefused", event.refusal.text)
                _read(turn, order)
        case CancelLost():
            turn.note("CancelLost", event.why)
        case OrderReported():
            learn_report(turn, event.report, event.external_identifier)
        case LostIdentifiersFound():
            _lost_ids_found(turn, event)
        case ComplexReported():
            _complex_reported(turn, event)
        case SweepCompleted():
            _listed(turn, event)
        case QuoteReported():
            turn.hear_quote(event.natural, event.far, event.mark)
            turn.quote_fault = event.fault
        case QuoteMissing():
            turn.is_quote_missing = True
            turn.note("QuoteMissing", event.why)
        case WatchTriggered():
            watch_triggered(turn, event)
        case QuotesJudged():
            quotes_judged(turn, event)
        case BestPriceHeld():
            best_price_held(turn, event)
        case HoursResolved():
            hours_resolved(turn, event)
        case TimeExitResolved():
            if event.at_us is not None:
                turn.set(time_exit_us=event.at_us)
        case PositionsDisagreed():
            learn_positions(turn, event)
        case TimeReached():
            pass
        case DaemonRestarted():
            _restarted(turn, event)
        case EntryCancelRequested():
            turn.set(entry_cancel_asked=True)
            turn.note("EntryCancelRequested", event.by)
        case CloseRequested():
            turn.set(
                close=Close(ClosePurpose.OPERATOR, event.by, event.net_price, turn.now_us),
                entry_cancel_asked=True,
                is_held=False,
            )
            turn.note("CloseRequested", event.by)
        case ChangeRequested():
            moved = dict(turn.bracket.moved) | dict(event.specs)
            turn.set(moved=tuple(moved.items()))
            turn.note("ChangeRequested", event.by)
        case AttentionAcknowledged():
            turn.set(attention=None, rearms=0)
            turn.note("AttentionAcknowledged", event.by)
        case UnfreezeRequested():
            turn.set(is_frozen=False, is_held=False)
            turn.note("Unfrozen", event.by)
        case ReleaseRequested():
            _released(turn, event.by)
        case _:
            assert_never(event)


def _named(turn: Turn, external_identifiers: tuple[ExternalIdentifier, ...]) -> tuple[Order, ...]:
    found = (turn.bracket.order(external_identifier) for external_identifier in external_identifiers)
    return tuple(order for order in found if order is not None)


def _confirmed(turn: Turn, event: SubmitConfirmed) -> None:
    for order, report in zip(_named(turn, event.external_identifiers), event.reports, strict=False):
        changes: dict[str, object] = {"complex_order_id": order.complex_order_id or event.complex_order_id}
        if _SESSION_WARNINGS.intersection(event.warnings):
            changes["waits_for_session"] = True
        turn.put(order, **changes)
        learn_report(turn, report, order.external_identifier)
    if event.complex_order_id is not None:
        _learn_capability(turn, event.external_identifiers, None)
    orders = _named(turn, event.external_identifiers)
    unknown = sorted(set(event.warnings) - _SESSION_WARNINGS)
    if unknown and any(order.role is not Role.ENTRY for order in orders):
        turn.attend("exit_warned", f"the broker accepted an exit with a warning: {', '.join(unknown)}")


def learn_report(turn: Turn, report: OrderReport, external_identifier: ExternalIdentifier) -> None:
    order = turn.bracket.order(external_identifier)
    if order is None:
        order = _adopt(turn, report, external_identifier)
        if order is None:
            return
    if report.status is BrokerStatus.UNRECOGNISED and not order.is_terminal:
        # Before the join: a word without a rank adds nothing to what is known, and must be looked into all the same.
        turn.attend("status_unrecognised", f"order {report.broker_order_id} has a status we do not know")
    learned = order.learn(report)
    if learned is order and order.state is not OrderState.UNKNOWN:
        return
    if learned.acknowledged_at_us is None:
        learned = changed(learned, {"acknowledged_at_us": turn.now_us})
    turn.put(learned)
    observe(turn, learned)
    if learned.replaces is not None:
        forerunner = turn.bracket.order(learned.replaces)
        if forerunner is not None:
            observe(turn, forerunner)


def _lost_ids_found(turn: Turn, event: LostIdentifiersFound) -> None:
    """No identifier is made twice: what a lost record made is passed over."""
    if event.ids_made > turn.bracket.ids_made:
        turn.set(ids_made=event.ids_made)
        turn.attend(
            "older_database",
            "the broker has orders of this bracket that a later state of the database made and this one does not know:"
            " they were taken in; look whether all is as it should be, then `otocod reconcile --adopt`",
        )


def _adopt(turn: Turn, report: OrderReport, external_identifier: ExternalIdentifier) -> Order | None:
    """An id whose intent was lost with a crash has turned up at the broker: it is an order of ours."""
    bracket = turn.bracket
    role = bracket.role_of_id(external_identifier)
    if role is None:
        return None
    turn.set(
        suspects=tuple(pair for pair in bracket.suspects if pair[1] != external_identifier),
        staged=tuple(pair for pair in bracket.staged if pair[1] != external_identifier),
    )
    turn.note("OrderAdopted", f"{role} {external_identifier}")
    return turn.put(
        Order(
            external_identifier=external_identifier,
            role=role,
            spec=spec_from_report(bracket, report),
            state=OrderState.UNKNOWN,
            intended_at_us=report.received_at_us or turn.now_us,
            unknown_since_us=turn.now_us,
            group=_group_of(turn, report),
        )
    )


def _group_of(turn: Turn, report: OrderReport) -> ExternalIdentifier | None:
    """The group of an adopted component: named by the first component of the same container that we met."""
    if report.complex_order_id is None:
        return None
    for order in turn.bracket.orders:
        if order.complex_order_id == report.complex_order_id:
            return order.group
    return report.external_identifier


def observe(turn: Turn, order: Order) -> None:
    """Moves the order's machine to where the joined view stands."""
    head = order.head
    if head is None:
        return
    heir = _heir(turn, order)
    if head.status is BrokerStatus.CANCELLED and order.unseen_heirs:
        if not order.state.is_terminal:
            turn.tell(order, OrderEvent.ASK_REPLACE)
        return  # moved by somebody else; `seek_heirs` asks for the new one
    is_moving = heir is not None and not heir.is_known_at_broker and not heir.is_terminal
    if head.status is BrokerStatus.CANCELLED and head.replaced_by is not None and is_moving:
        return
    if not head.status.is_terminal:
        order = _stand(turn, order, is_moving=is_moving)
    turn.tell(order, _EVENT_OF_STATUS[head.status], unknown_since_us=None, retry_at_us=None)


def _stand(turn: Turn, order: Order, *, is_moving: bool) -> Order:
    """The order that counts works, whatever was heard of its doubles and of those it replaced."""
    if order.state in (OrderState.CANCELLED, OrderState.EXPIRED, OrderState.REJECTED):
        return turn.tell(order, OrderEvent.REVIVE, refusal=None, is_settled=False, ended_at_us=None)
    is_cancel_of_other = order.state is OrderState.CANCEL_PENDING and order.cancel_asked_us is None
    if is_cancel_of_other or (order.state is OrderState.REPLACE_PENDING and not is_moving):
        return turn.tell(order, OrderEvent.KEEP)
    return order


def _heir(turn: Turn, order: Order) -> Order | None:
    for other in turn.bracket.orders:
        if other.replaces == order.external_identifier:
            return other
    return None


def _refused(turn: Turn, order: Order, refusal: Refusal) -> None:
    if order.is_known_at_broker:
        # It exists, whatever this answer says: the broker's own record stands.
        turn.note("RefusalContradicted", f"{order.role} {refusal.text}")
        return
    turn.tell(order, OrderEvent.REFUSE, refusal=refusal, unknown_since_us=None)
    turn.note("OrderRefused", f"{order.role} {refusal.text}")
    keep_forerunner(turn, order)


def keep_forerunner(turn: Turn, order: Order) -> None:
    if order.replaces is None:
        return
    forerunner = turn.bracket.order(order.replaces)
    if forerunner is None:
        return
    if forerunner.state is OrderState.REPLACE_PENDING:
        turn.tell(forerunner, OrderEvent.KEEP, moved_ids=())
        _read(turn, forerunner)
    else:
        # Wanted gone meanwhile, or gone: what took its place, if anything did, is not our move.
        turn.put(forerunner, moved_ids=())


def _not_sent(turn: Turn, order: Order, why: str) -> None:
    if order.is_known_at_broker:
        return
    retries = order.retries + 1
    retry_at_us = turn.now_us + backoff_us(retries, RETRY_FIRST_US, RETRY_MAX_US)
    turn.tell(order, OrderEvent.DEFER, retries=retries, retry_at_us=retry_at_us)
    turn.note("OrderNotSent", f"{order.role} {why}")


def _lost(turn: Turn, order: Order, why: str) -> None:
    if order.is_known_at_broker or order.is_terminal:
        turn.note("AnswerLost", f"{order.role} {why}; the order is known already")
        return
    turn.tell(order, OrderEvent.LOSE, unknown_since_us=turn.now_us, absent_listings=0)
    turn.note("OutcomeLost", f"{order.role} {why}")


def _read(turn: Turn, order: Order) -> None:
    if order.broker_order_id is not None:
        turn.ask(ReadOrder(order.external_identifier, order.broker_order_id))


_DOUBTS_POSITION = frozenset({"closing_with_no_position", "cannot_close_against_more_than_existing_position"})


def _doubt_position(turn: Turn, event: SubmitRefused) -> None:
    """The broker sees less to close: a fill was lost, or an exit that we gave up works. A listing shows it."""
    if _DOUBTS_POSITION.intersection(event.refusal.codes) and turn.bracket.first_fill_us is not None:
        turn.ask(Sweep(turn.bracket.listed_from_us))


# Answers that speak of the moment, not of what the account can do.
_PASSING_CODES = frozenset(
    {
        "illegal_buy_and_sell_on_same_symbol",
        "cannot_close_against_more_than_existing_position",
        "closing_with_no_position",
        "margin_check_failed",
        "last_gate",
    }
)


def _learn_capability(turn: Turn, names: tuple[ExternalIdentifier, ...], refusal: Refusal | None) -> None:
    orders = _named(turn, names)
    if len(orders) < 2:
        return
    is_otoco = any(order.role is Role.ENTRY for order in orders)
    mode = Protection.NATIVE_OTOCO if is_otoco else Protection.NATIVE_OCO
    if refusal is None:
        turn.ask(LearnCapability(mode, True, "accepted"))
    elif refusal.http_status == 422 and not refusal.reasons <= _PASSING_CODES:
        turn.ask(LearnCapability(mode, False, refusal.text))


def _complex_reported(turn: Turn, event: ComplexReported) -> None:
    report = event.report
    for component in report.orders:
        external_identifier = attribute(turn.bracket, component)
        if external_identifier is not None:
            learn_report(turn, component, external_identifier)
    members = [order for order in turn.bracket.orders if order.complex_order_id == report.complex_order_id]
    exits = [order for order in members if order.role is not Role.ENTRY]
    has_triggered = report.trigger is None or report.trigger.status is BrokerStatus.FILLED
    if has_triggered and len(exits) == 2 and not any(order.is_terminal for order in exits):
        if turn.bracket.verified_group != exits[0].group:
            turn.set(verified_group=exits[0].group, verify_at_us=turn.now_us + VERIFY_AGAIN_US)
        else:
            turn.set(verify_at_us=None)


def _listed(turn: Turn, event: SweepCompleted) -> None:
    bracket = turn.bracket
    turn.set(is_stream_healthy=event.is_stream_healthy)
    if event.covers_from_us > bracket.listed_from_us:
        return  # it does not reach back far enough, and counts for nothing, not even as the last after a window
    for order in bracket.unknown_orders:
        since = order.unknown_since_us
        if since is not None and event.started_us >= since:
            turn.put(order, absent_listings=order.absent_listings + 1)
    turn.set(listed_at_us=event.started_us)
    since = bracket.suspect_since_us
    if bracket.suspects and since is not None and event.started_us >= since:
        is_unfilled = not any(order.has_any_fill for order in bracket.entries)
        turn.set(suspect_listings=bracket.suspect_listings + 1, was_unfilled_at_restart=is_unfilled)


def _restarted(turn: Turn, event: DaemonRestarted) -> None:
    """Windows begin anew: how long the daemon was away is not known, and the wall clock may have moved.

    After a stop that was not clean every staged id of an exit may have been posted beside a commit that never came.
    The entry's ids may not: a second entry is only ever sent after its commit.
    """
    turn.note("DaemonRestarted", "clean" if event.is_clean else "not clean")
    for order in turn.bracket.orders:
        _restart_order(turn, order, is_clean=event.is_clean)
    turn.set(verified_group=None, verify_at_us=None, moving_since_us=None, retry_exits_at_us=None)
    turn.set(in_force_since_us=None)
    # Quotes of another run say nothing: a target that was tried in the stop's place gives way.
    turn.set(has_quotes=False, has_feed=False, quote_fault=None, blind_since_us=None)
    turn.set(swap_since_us=None, swap_after_us=None, target_walk=None, passed=None, quote_asked_us=None)
    # The last listing was another run's: by a clock set back since, it would lie after windows that begin now.
    turn.set(fills_asked_us=None, doubles_cancelled_us=None, heirs_asked_us=None, flat_since_us=None, listed_at_us=None)
    turn.set(
        first_fill_us=_not_ahead(turn, turn.bracket.first_fill_us),
        exits_allowed_us=_not_ahead(turn, turn.bracket.exits_allowed_us),
        unprotected_since_us=_not_ahead(turn, turn.bracket.unprotected_since_us),
    )
    close = turn.bracket.close
    if close is not None:
        # Orders that were sent for it are told by their times from those of a close before it.
        walked = replace(close.walked, at_us=_not_ahead(turn, close.walked.at_us))
        turn.set(close=replace(close, since_us=min(close.since_us, turn.now_us), walked=walked))
    if turn.bracket.suspects:
        turn.set(suspect_since_us=turn.now_us, suspect_listings=0)
    if event.is_clean or turn.bracket.state is BracketState.CLOSED:
        return
    suspects = tuple(pair for pair in turn.bracket.staged if pair[0] is not Role.ENTRY)
    turn.set(suspects=(*turn.bracket.suspects, *suspects), staged=(), suspect_since_us=turn.now_us)
    turn.set(suspect_listings=0, was_unfilled_at_restart=False)
    for role in STAGED_ROLES:
        turn.stage(role)


def _not_ahead(turn: Turn, at_us: int | None) -> int | None:
    """A moment of the past, wherever the clock stood then."""
    return None if at_us is None else min(at_us, turn.now_us)


def _restart_order(turn: Turn, order: Order, *, is_clean: bool) -> None:
    if order.is_terminal:
        turn.put(order, ended_at_us=_not_ahead(turn, order.ended_at_us))
        return
    acknowledged_at_us = _not_ahead(turn, order.acknowledged_at_us)
    order = turn.put(order, cancel_sent_us=None, cancel_tries=0, acknowledged_at_us=acknowledged_at_us)
    if order.is_known_at_broker:
        return
    if is_clean and order.state is OrderState.INTENDED:
        # An entry is posted by the run that accepted it or never; what waits to be sent again is an exit.
        if order.role is Role.ENTRY or _is_with_entry(turn, order):
            turn.tell(order, OrderEvent.GIVE_UP, retry_at_us=None)
        else:
            turn.put(order, retry_at_us=turn.now_us)
        return
    turn.tell(order, OrderEvent.LOSE, unknown_since_us=turn.now_us, absent_listings=0, retry_at_us=None)


def _is_with_entry(turn: Turn, order: Order) -> bool:
    return order.group is not None and any(entry.group == order.group for entry in turn.bracket.entries)


def _released(turn: Turn, by: str) -> None:
    if turn.bracket.state is not BracketState.CLOSED:
        turn.move(BracketEvent.RELEASE, "Released", by)
