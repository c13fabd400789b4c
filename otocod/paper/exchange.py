"""The exchange of the paper broker: orders in, fills out, under switchable rules.

Pure: it has no clock, no input or output and no chance but its seed. Every call names the time; what falls due before
is done first, each step at its own time, so the same calls give the same answers, messages and log. Answers are
JSON-ready, as they go under `data`; a refusal is a `Refused`.
"""

from collections.abc import Mapping, Sequence
from decimal import Decimal
from typing import Any

from otocod.paper import complex_orders, filling, lifecycle, replacing, sessions, settlement, wire
from otocod.paper.complex_orders import ComplexOrder, Groups, complex_object
from otocod.paper.endings import end, reject
from otocod.paper.errors import Refused, cannot_update, not_found
from otocod.paper.matching import Quote
from otocod.paper.orders import CANCEL_REQUESTED, CANCELLED, CONTINGENT, EXPIRED, FILLED, Order, digest, order_from_body
from otocod.paper.preflight import Around, Verdict, check, warning_objects
from otocod.paper.replacing import Replacements
from otocod.paper.rules import Rules
from otocod.paper.sessions import Session
from otocod.paper.settlement import Settling
from otocod.paper.state import FIRST_COMPLEX_ID, FIRST_ORDER_ID, Notice, State
from otocod.paper.symbols import guess_type, instrument
from otocod.paper.views import Views

__all__ = ["Exchange", "Notice", "Quote", "Refused", "Rules", "Session", "Settling"]

Json = dict[str, Any]


class Exchange(Views):
    """One market with its accounts. `by` is "api", "user" (a person in the broker's platform) or "broker"."""

    def __init__(self, *, rules: Rules, seed: int, now_us: int, accounts: Sequence[str] = ("5WT00001",)) -> None:
        self._numbers = tuple(accounts)
        super().__init__(State(rules, seed, now_us, self._numbers))
        self._state.listeners = [Replacements(), Groups()]
        self._rules_version = rules.version
        self._account_state = rules.account_state
        self._plan_session()

    # Time.

    def next_due_us(self) -> int | None:
        """When `advance` has something to do next; None when nothing is planned."""
        if self.rules.version != self._rules_version:
            return self._state.now_us
        return self._state.next_due_us()

    def advance(self, now_us: int) -> None:
        """Do everything that is due up to and including `now_us`."""
        if self.rules.version != self._rules_version:
            self._rules_changed(now_us)
        self._state.run_until(now_us)

    def drain(self) -> list[Notice]:
        """The messages of the streamer since the last call, in order."""
        notices, self._state.notices = self._state.notices, []
        return notices

    def reset(self, now_us: int) -> None:
        """A fresh day: no orders, positions or quotes, new cash. Rules and the log stay; ids go on, unless by rule."""
        state = self._state
        self.advance(now_us)
        state.now_us = max(state.now_us, now_us)
        if self.rules.ids_restart_on_reset:
            state.next_order_id = FIRST_ORDER_ID
            state.next_complex_id = FIRST_COMPLEX_ID
        state.clear(self._numbers)
        state.note("reset")
        self._plan_session()

    # Orders.

    def submit(self, account: str, body: Json, *, now_us: int, dry_run: bool = False, by: str = "api") -> Json:
        self.advance(now_us)
        state = self._state
        try:
            state.account(account)
            order = order_from_body(body, account, by)
            verdict = check(state, order, Around())
            verdict.refuse()
        except Refused as refused:
            self._note_refused("submit", account, body, refused, by, dry_run)
            raise
        if dry_run:
            state.note("dry-run", order, operation="submit", by=by, **digest(order))
            order.status = state.rules.initial_status if state.is_open else "Received"
        else:
            state.add(order)
            state.note_accepted(order, "submit")
            lifecycle.start(state, order)
        return _placed({"order": wire.order_object(order)}, [(None, verdict)])

    def submit_complex(self, account: str, body: Json, *, now_us: int, dry_run: bool = False, by: str = "api") -> Json:
        self.advance(now_us)
        state = self._state
        try:
            state.account(account)
            found = complex_orders.complex_from_body(body, account, by)
            verdicts = complex_orders.check_complex(state, found)
            Verdict([error for _, verdict in verdicts for error in verdict.errors]).refuse()
        except Refused as refused:
            self._note_refused("submit-complex", account, body, refused, by, dry_run)
            raise
        if dry_run:
            for order in found.components():
                state.note("dry-run", order, operation="submit-complex", by=by, **digest(order))
            return _placed({"complex-order": _placeholder(found)}, verdicts)
        complex_orders.accept_complex(state, found)
        return _placed({"complex-order": complex_object(found)}, verdicts)

    def cancel(self, account: str, order_id: int, *, now_us: int, by: str = "api") -> Json:
        self.advance(now_us)
        state = self._state
        order = state.order_of(account, order_id)
        if order.status == CANCELLED and self.rules.cancel_cancelled_ok:
            return wire.order_object(order)
        if order.is_terminal:
            state.note("cancel-refused", order, by=by)
            raise cannot_update()
        if order.status == CANCEL_REQUESTED:
            if order.id in state.stuck:
                self._release_stuck()
            return wire.order_object(order)
        if self.rules.cancel_needs_cancellable and not wire.order_object(order)["cancellable"]:
            state.note("cancel-refused", order, by=by)
            raise cannot_update()
        if order.complex is None:
            lifecycle.request_cancel(state, order, by)
        else:
            complex_orders.cancel_member(state, order, order.complex, by)
        return wire.order_object(order)

    def cancel_complex(self, account: str, complex_id: int, *, now_us: int, by: str = "api") -> Json:
        self.advance(now_us)
        found = self._state.complex_of(account, complex_id)
        complex_orders.cancel_complex(self._state, found, by)
        return complex_object(found)

    def replace(
        self, account: str, order_id: int, body: Json, *, now_us: int, by: str = "api", edit: bool = False
    ) -> Json:
        """The new order. `edit` is PATCH: the same, but legs in the body are not looked at."""
        self.advance(now_us)
        old, new, _ = self._replacement(account, order_id, body, by, edit, dry_run=False)
        replacing.begin(self._state, old, new)
        return wire.order_object(new)

    def replace_dry_run(self, account: str, order_id: int, body: Json, *, now_us: int) -> Json:
        self.advance(now_us)
        _, new, verdict = self._replacement(account, order_id, body, "api", edit=False, dry_run=True)
        new.status = CONTINGENT
        self._state.note("dry-run", new, operation="replace", by="api", **digest(new))
        return _placed({"order": wire.order_object(new)}, [(None, verdict)])

    def _replacement(
        self, account: str, order_id: int, body: Json, by: str, edit: bool, dry_run: bool
    ) -> tuple[Order, Order, Verdict]:
        try:
            old = self._state.order_of(account, order_id)
            if edit and isinstance(body, Mapping):
                body = {key: value for key, value in body.items() if key != "legs"}
            new, verdict = replacing.draft(self._state, old, body, by)
            verdict.refuse()
        except Refused as refused:
            self._note_refused("replace", account, body, refused, by, dry_run)
            raise
        return old, new, verdict

    # The market.

    def set_quote(
        self,
        symbol: str,
        bid: Decimal,
        ask: Decimal,
        *,
        now_us: int,
        bid_size: int = 10,
        ask_size: int = 10,
        last: Decimal | None = None,
    ) -> None:
        """A leg's quote; resting orders on the symbol react, oldest first. ValueError below 0."""
        self.advance(now_us)
        self._put_quote(symbol, bid, ask, bid_size, ask_size, last)
        watching = self._state.watching.get(symbol)
        if watching:
            for order in list(watching.values()):
                filling.consider(self._state, order)

    def set_quotes(self, quotes: Mapping[str, tuple[Decimal, Decimal]], *, now_us: int) -> None:
        """Bid and ask of several legs at one instant, so that no spread is seen half moved."""
        self.advance(now_us)
        state = self._state
        moved: dict[int, Order] = {}
        for symbol, (bid, ask) in quotes.items():
            self._put_quote(symbol, bid, ask, 10, 10, None)
            moved.update(state.watching.get(symbol, {}))
        for order_id in sorted(moved):
            filling.consider(state, moved[order_id])

    def clear_quote(self, symbol: str, *, now_us: int) -> None:
        """Nobody quotes the symbol any more: nothing with that leg fills."""
        self.advance(now_us)
        self._state.quotes.pop(symbol, None)

    # By hand.

    def fill(
        self,
        order_id: int,
        *,
        now_us: int,
        quantity: int | None = None,
        net_price: Decimal | None = None,
        first_leg_only: bool = False,
        even_if_terminal: bool = False,
    ) -> Json:
        """Fill all or `quantity` units, at the order's price or a net price in the order's own direction.

        `first_leg_only` leaves the other legs open until a later fill, also when the order shows Filled by then.
        `even_if_terminal` is a fill that arrives after the order's end.
        """
        self.advance(now_us)
        order = self._any_order(order_id)
        open_units = max(
            (leg.remaining + leg.ratio - 1) // leg.ratio for leg in (order.legs[:1] if first_leg_only else order.legs)
        )
        is_legs_due = order.status == FILLED and open_units > 0
        if order.is_terminal and not (is_legs_due or even_if_terminal):
            raise cannot_update("the order is terminal")
        units = open_units if quantity is None else quantity
        if not 0 < units <= open_units:
            raise Refused(422, "invalid_fill_quantity", f"between 1 and {open_units} units can be filled")
        net = None
        if net_price is not None:
            net = net_price if order.effect == "Debit" or (order.effect is None and order.is_debit) else -net_price
        if order.is_held:
            trigger = order.complex.trigger if order.complex else None
            if order.waits_for_original or (trigger is not None and trigger.status != FILLED):
                raise Refused(422, "order_not_at_market", "the order waits for another one")
            order.is_held = False
            self._state.count(order)
        filling.execute(self._state, order, units, net, first_leg_only)
        return wire.order_object(order)

    def reject(self, order_id: int, *, now_us: int, reason: str, by: str = "broker") -> Json:
        order = self._living(order_id, now_us)
        reject(self._state, order, reason, by)
        return wire.order_object(order)

    def cancel_by_hand(self, order_id: int, *, now_us: int, reason: str | None = None, by: str = "broker") -> Json:
        """Cancelled at once, without Cancel Requested; by a user the order names one."""
        order = self._living(order_id, now_us)
        end(self._state, order, CANCELLED, by=by, reason=reason)
        return wire.order_object(order)

    def expire(self, order_id: int, *, now_us: int) -> Json:
        order = self._living(order_id, now_us)
        end(self._state, order, EXPIRED)
        return wire.order_object(order)

    def remove(self, order_id: int, *, now_us: int) -> Json:
        """Removed by an administrator."""
        order = self._living(order_id, now_us)
        end(self._state, order, "Removed")
        return wire.order_object(order)

    def set_position(
        self, account: str, symbol: str, quantity: int, *, now_us: int, price: Decimal = Decimal(0)
    ) -> None:
        """Make a position so many signed contracts, as a trade elsewhere or a correction would."""
        self.advance(now_us)
        state = self._state
        found = instrument(symbol, guess_type(symbol))
        if found is None:
            raise not_found(f"Instrument {symbol}")
        owner = state.account(account)
        change = quantity - owner.truth.get(symbol, 0)
        filling.move_position(state, owner, found, change, price, None)
        filling.ledger_entry(state, owner, found, "Receive Deliver", "Adjustment", state.now_us)
        state.note("position-set", account=account, symbol=symbol, quantity=quantity)

    def settle(self, account: str, settling: Settling, *, now_us: int) -> None:
        self.advance(now_us)
        settlement.settle(self._state, self._state.account(account), settling)

    # Inside.

    def _put_quote(
        self, symbol: str, bid: Decimal, ask: Decimal, bid_size: int, ask_size: int, last: Decimal | None
    ) -> None:
        if not (bid.is_finite() and ask.is_finite() and bid >= 0 and ask >= 0):
            raise ValueError("bid and ask are finite and not negative")
        state = self._state
        before = state.quotes.get(symbol)
        if last is None and before is not None:
            last = before.last
        quote = state.quotes[symbol] = Quote(bid, ask, bid_size, ask_size, state.now_us, last)
        for account in state.accounts.values():
            if symbol in account.record:
                account.revalue(symbol, quote.mid)

    def _living(self, order_id: int, now_us: int) -> Order:
        self.advance(now_us)
        order = self._any_order(order_id)
        if order.is_terminal:
            raise cannot_update("the order is terminal")
        return order

    def _note_refused(self, operation: str, account: str, body: Any, refused: Refused, by: str, dry_run: bool) -> None:
        given = body if isinstance(body, Mapping) else {}
        self._state.note(
            "refused",
            operation=operation,
            account=account,
            by=by,
            dry_run=dry_run,
            http_status=refused.status,
            code=refused.code,
            errors=[list(item) for item in refused.errors],
            source=given.get("source"),
            body=given,
            **{"external-identifier": given.get("external-identifier")},
        )

    def _release_stuck(self) -> None:
        state = self._state
        if self.rules.stuck_cancel:
            return
        for order in list(state.stuck.values()):
            state.after(self.rules.cancel_delay_ms, lifecycle.confirm_cancel, order, "user")
        state.stuck.clear()

    def _rules_changed(self, now_us: int) -> None:
        """A switch was thrown between calls: it holds from the later of the last call and its own due steps."""
        self._rules_version = self.rules.version
        state = self._state
        state.run_until(now_us)
        self._release_stuck()
        if self.rules.account_state != self._account_state:
            self._account_state = self.rules.account_state
            for number in state.accounts:
                state.say(number, "TradingStatus", self.trading_status(number))
        was_open = state.is_open
        self._plan_session()
        if state.is_open and not was_open:
            lifecycle.open_session(state)
        elif state.is_open:
            for order in list(state.unfinished.values()):
                filling.consider(state, order)

    def _plan_session(self) -> None:
        """Look where in the trading day we are, and be called again at its next boundary."""
        state = self._state
        state.session = sessions.current_or_next(self.rules, state.now_us)
        state.is_open = state.session.is_open(state.now_us)
        state.session_token += 1
        boundary_us = sessions.next_boundary_us(self.rules, state.now_us)
        if boundary_us is not None:
            state.at(boundary_us, self._session_boundary, state.session_token)

    def _session_boundary(self, state: State, token: int) -> None:
        if token != state.session_token:
            return
        if state.is_open:
            state.is_open = False
            lifecycle.close_session(state, state.now_us)
            self._plan_session()
        else:
            self._plan_session()
            lifecycle.open_session(state)


def _placed(what: Json, verdicts: Sequence[tuple[str | None, Verdict]]) -> Json:
    """The answer to a POST; effect and fees are those of the order, of a complex order those of its first."""
    effect = verdicts[0][1].effect
    answer = dict(what)
    answer["warnings"] = warning_objects(verdicts)
    if effect is not None:
        answer["buying-power-effect"] = effect.buying_power_object()
        answer["fee-calculation"] = effect.fee_object()
    return answer


def _placeholder(found: ComplexOrder) -> Json:
    """A dry run's complex order: no ids but a placeholder in the components."""
    data = complex_object(found)
    for component in [*data["orders"], *([data["trigger-order"]] if "trigger-order" in data else [])]:
        component["complex-order-id"] = 1
    return data
