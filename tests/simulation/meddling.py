"""What the world does besides answering: moods of the market, people at the platform, crashes, clocks, operators."""

from contextlib import suppress
from dataclasses import fields
from decimal import Decimal
from functools import partial
from itertools import pairwise
from typing import TYPE_CHECKING, Any

from otocod.domain.brackets import Bracket, BracketState
from otocod.domain.events import (
    ChangeRequested,
    CloseRequested,
    EntryCancelRequested,
    Event,
    ReleaseRequested,
    UnfreezeRequested,
)
from otocod.domain.ids import BracketId
from otocod.engine.operator import _changed_specs
from otocod.paper import lifecycle
from otocod.paper.errors import Refused
from otocod.paper.exchange import Settling
from otocod.paper.rules import Rules
from otocod.ports.admin import AdminRefused
from tests.simulation.plan import Plan

if TYPE_CHECKING:
    from tests.simulation.world import Life, World

_TERMINAL = frozenset({"Filled", "Cancelled", "Expired", "Rejected", "Removed", "Partially Removed"})
_TRIED_AGAIN_S = 0.5
# Happen a few times in a run, at random moments.
_VISITS = (
    "outage",
    "partial_fills",
    "late_fills",
    "broker_ends",
    "hand_cancels",
    "hand_edits",
    "stream_down",
    "stream_silent",
    "crashes",
    "clean_stops",
    "store_full",
    "clock_steps",
    "operator",
    "repeated_rows",
    "token_death",
    "second_daemon",
    "hand_closes",
    "foreign_orders",
    "closed_market",
    "quotes_down",
    "quotes_lie",
    "exits_moved",
)
# Of a credit and of a debit: targets, and triggers with limits, that exits are moved to; ten times it for shares.
_MOVED_TO = {
    True: (("0.45", "0.30"), (("1.75", "1.95"), ("1.50", "1.80"))),
    False: (("1.75", "2.00"), (("0.55", "0.40"), ("0.70", "0.50"))),
}
# What the exchange's rules are while the market is closed, and otherwise.
_AFTER_EXPIRY_S = 90.0  # until the end of a position is believed, without a word of the stream
_CLOSED, _OPEN = {"sessions": "closed"}, {"sessions": "always-open"}


def draw_rules(plan: Plan) -> Rules:
    random = plan.random("rules")
    changes: dict[str, Any] = {
        "margin_check": False,
        "reservation": random.random() < 0.6,
        "status_step_ms": random.choice((0, 1, 20)),
    }
    if plan.is_on("partial_fills"):
        changes |= {
            "max_units_per_fill": random.choice((0, 1, 2)),
            "fill_gap_ms": random.choice((5, 200, 3000)),
            "partial_one_leg_first": random.random() < 0.5,
        }
    if plan.is_on("cancel_race"):
        changes |= {
            "cancel_delay_ms": random.choice((2, 50, 1000)),
            "cancel_race": random.choice(("market", "market", "cancel-wins")),
            "replace_race": random.choice(("market", "market", "cancel-wins")),
            "replace_delay_ms": random.choice((2, 100)),
        }
    if plan.is_on("listing_lag"):
        changes["read_lag_ms"] = random.choice((50, 500, 2000))
    if plan.is_on("position_lag"):
        changes |= {"position_lag_ms": random.choice((20, 500, 3000)), "position_jitter_ms": random.choice((0, 500))}
    if plan.is_on("refusals"):
        changes |= {
            "native_otoco_spreads": random.random() < 0.5,
            "native_oco_spreads": random.random() < 0.5,
            "strict_on_children": random.random() < 0.5,
            "invalid_oco_price": random.random() < 0.5,
            "stop_through_market": random.choice(("accept", "reject", "refuse")),
        }
    if plan.is_on("odd_rules"):
        changes |= {
            "reserve_until": random.choice(("cancelled", "cancel-requested")),
            "armed_status": random.choice(("Live", "Contingent")),
            "oco_race": random.choice(("safe", "open" if plan.is_on("both_exits") else "safe")),
            "oco_partial": random.choice(("reduce-sibling", "keep" if plan.is_on("both_exits") else "reduce-sibling")),
            "partial_trigger_end": random.choice(("stay-contingent", "cancelled")),
            "member_cancel": random.choice(("refuse", "one", "both")),
            "member_end": random.choice(("keep-sibling", "cancel-sibling")),
            "replace_members": random.random() < 0.5,
            "initial_status": random.choice(("Routed", "Received")),
            "skip_steps": random.random() < 0.5,
            "first_filled_one_leg": random.random() < 0.5,
            "fills_per_leg": random.choice((1, 3)),
            "leg_gap_ms": random.choice((1, 400, 2500)),
            "cancel_cancelled_ok": random.random() < 0.5,
            "cancel_needs_cancellable": random.random() < 0.5,
            "replace_partial": random.choice(("carry", "abort")),
            "aborted_replacement_status": random.choice(("Rejected", "Cancelled")),
            "replacement_inherits_identifier": random.random() < 0.3,
            "arm_delay_ms": random.choice((1, 300)),
            "oco_cancel_delay_ms": random.choice((2, 300)),
        }
    rules = Rules()
    rules.patch(changes)
    return rules


class Meddler:
    def __init__(self, world: "World") -> None:
        self._world = world
        self._foreign: set[int] = set()  # orders of a person's own
        self._is_night = False

    def plan(self) -> None:
        plan = self._world.plan
        for name in _VISITS:
            if not plan.is_on(name):
                continue
            random = plan.random(f"visits-{name}")
            for _ in range(random.randint(1, 2 + int(plan.rates[name] * 20))):
                self._world.later(random.uniform(0.0, plan.active_s), self._visit, name)
        self._plan_days()

    def _visit(self, name: str) -> None:
        if not self._world.is_calm:
            self._world.struck()
            with suppress(Refused):
                getattr(self, f"_{name}")()

    def calm(self) -> None:
        defaults = {rule.name: rule.default for rule in fields(Rules) if rule.metadata}
        kept = (
            "read_lag_ms",
            "position_lag_ms",
            "position_jitter_ms",
            "stop_through_market",
            "cancel_race",
            "replace_race",
        )
        self._world.rules.patch({name: defaults[name] for name in kept})
        if self._world.is_market_closed and not self._is_night:
            self._market_opens()
        self._clear_foreign()

    def _clear_foreign(self) -> None:
        """A person takes their own orders away, and tries again where the broker does not let one go yet."""
        for order in self._living():
            if order["id"] in self._foreign:
                try:
                    self._cancel_by_hand(order["id"])
                except Refused:
                    self._world.expect(_TRIED_AGAIN_S)
                    self._world.later(_TRIED_AGAIN_S, self._clear_foreign)
                    return

    def _random(self, name: str) -> Any:
        return self._world.plan.random(name)

    # Orders.

    def _living(self, *, of_exits: bool | None = None) -> list[dict[str, Any]]:
        return [
            order
            for order in self._world.exchange.exchange_view()
            if order["status"] not in _TERMINAL
            and (of_exits is None or of_exits == order["legs"][0]["action"].endswith("Close"))
        ]

    def _pick(self, name: str, orders: list[dict[str, Any]]) -> int | None:
        return self._random(name).choice(orders)["id"] if orders else None

    def _partial_fills(self) -> None:
        found = [o for o in self._living() if o["size"] > 1 and o["status"] == "Live" and not self._has_filled_mate(o)]
        order_id = self._pick("partial_fills", found)
        if order_id is None:
            return
        world = self._world
        order = next(o for o in found if o["id"] == order_id)
        is_alone = "complex-order-id" not in order and not order["legs"][0]["action"].endswith("Close")
        is_uneven = is_alone and self._random("partial_fills").random() < 0.2
        world.trace("market", f"part of {order_id} fills" + (", one leg of it" if is_uneven else ""))
        told = world.act(
            lambda: world.exchange.fill(order_id, now_us=world.now_us, quantity=1, first_leg_only=is_uneven)
        )
        if is_uneven and told["status"] == "Filled":
            world.later(0.5, self._fill_other_legs, order_id)

    def _fill_other_legs(self, order_id: int) -> None:
        """Filled speaks for all legs; the others follow."""
        world = self._world
        with suppress(Refused):
            world.act(lambda: world.exchange.fill(order_id, now_us=world.now_us))

    def _late_fills(self) -> None:
        world = self._world
        # An order that a person moved carries no mark of ours; once its bracket is closed nobody knows it any more.
        ended = [
            o
            for o in world.exchange.exchange_view()
            if o["status"] == "Cancelled" and "replacing-order-id" not in o and "external-identifier" in o
        ]
        order_id = self._pick("late_fills", ended)
        if order_id is not None:
            world.trace("market", f"{order_id} turns out to be filled")
            world.act(lambda: world.exchange.fill(order_id, now_us=world.now_us, even_if_terminal=True))

    def _broker_ends(self) -> None:
        order_id = self._pick("broker_ends", self._living())
        if order_id is None:
            return
        world, exchange = self._world, self._world.exchange
        how = self._random("broker_ends").choice(("cancel", "reject", "expire", "remove"))
        world.trace("market", f"the broker ends {order_id}: {how}")
        match how:
            case "cancel":
                world.act(lambda: exchange.cancel_by_hand(order_id, now_us=world.now_us))
            case "reject":
                world.act(lambda: exchange.reject(order_id, now_us=world.now_us, reason="simulated"))
            case "expire":
                world.act(lambda: exchange.expire(order_id, now_us=world.now_us))
            case _:
                world.act(lambda: exchange.remove(order_id, now_us=world.now_us))

    def _hand_cancels(self) -> None:
        order_id = self._pick("hand_cancels", self._living(of_exits=self._random("hand_cancels").random() < 0.8))
        if order_id is not None:
            self._cancel_by_hand(order_id)

    def _cancel_by_hand(self, order_id: int) -> None:
        world = self._world
        world.trace("hand", f"cancels {order_id}")
        world.act(lambda: world.exchange.cancel(world.accounts[0], order_id, now_us=world.now_us, by="user"))

    def _hand_closes(self) -> None:
        """The position goes: closed on the platform, its exits first, or assigned under them."""
        world, random = self._world, self._random("hand_closes")
        held = world.exchange.true_positions(world.accounts[0])
        found = [s for s in world.scenarios if all(held.get(leg.symbol) for leg in s.legs)]
        if not found:
            return
        symbols = [leg.symbol for leg in random.choice(found).legs]
        if random.random() < 0.4:
            world.trace("hand", f"assigned: {', '.join(symbols)}")
            for symbol in symbols:
                self._end(symbol, held[symbol])
            return
        for order in self._living(of_exits=True):
            if order["legs"][0]["symbol"] in symbols:
                with suppress(Refused):
                    self._cancel_by_hand(order["id"])
        world.later(random.choice((0.1, 1.0, 4.0)), self._close_by_hand, symbols)

    def _end(self, symbol: str, held: int) -> None:
        """Options by the clearing house, shares by a transfer."""
        world = self._world
        if symbol.isalpha():
            world.act(partial(world.exchange.set_position, world.accounts[0], symbol, 0, now_us=world.now_us))
            return
        settling = Settling(symbol, "exercise" if held > 0 else "assignment", None, None)
        world.act(partial(world.exchange.settle, world.accounts[0], settling, now_us=world.now_us))

    def _close_by_hand(self, symbols: list[str]) -> None:
        world = self._world
        for symbol in symbols:
            held = world.exchange.true_positions(world.accounts[0]).get(symbol, 0)
            if held and not world.is_calm:
                world.trace("hand", f"closes {held:+d} {symbol}")
                side = "Sell to Close" if held > 0 else "Buy to Close"
                with suppress(Refused):
                    order_id = self._order_by_hand(symbol, side, abs(held), "1.00")
                    world.act(partial(world.exchange.fill, order_id, now_us=world.now_us))

    def _order_by_hand(self, symbol: str, action: str, quantity: int, price: str) -> int:
        world = self._world
        kind = "Equity" if symbol.isalpha() else "Equity Option"
        body = {
            "time-in-force": "GTC",
            "order-type": "Limit",
            "price": price,
            "price-effect": "Credit" if action.startswith("Sell") else "Debit",
            "legs": [{"instrument-type": kind, "symbol": symbol, "quantity": quantity, "action": action}],
        }
        told = world.act(lambda: world.exchange.submit(world.accounts[0], body, now_us=world.now_us, by="user"))
        order_id = int(told["order"]["id"])
        self._foreign.add(order_id)
        return order_id

    def _foreign_orders(self) -> None:
        """Far from the market, so that it rests."""
        random = self._random("foreign_orders")
        symbol = random.choice(random.choice(self._world.scenarios).legs).symbol
        side, price = random.choice((("Buy to Open", "0.01"), ("Sell to Open", "90.00")))
        self._world.trace("hand", f"places an order of their own: {side} {symbol}")
        self._order_by_hand(symbol, side, 1, price)

    # The market's hours.

    def _plan_days(self) -> None:
        """By the calendar, which goes on when the faults have stopped."""
        days = self._world.days
        for today, tomorrow in pairwise(days):
            self._world.later(today.closes_s, self._evening, tomorrow is days[-1])
            self._world.later(tomorrow.opens_s, self._morning)
        if days:
            self._world.expect(days[-1].opens_s + _AFTER_EXPIRY_S)

    def _morning(self) -> None:
        self._is_night = False
        self._market_opens()

    def _evening(self, is_of_expiry: bool) -> None:
        world = self._world
        self._is_night = True
        world.struck()
        self._market_closes()
        if not is_of_expiry:
            return
        world.trace("market", "the options expire")
        for order in self._living():
            if not order["legs"][0]["symbol"].isalpha():
                with suppress(Refused):
                    world.act(partial(world.exchange.expire, order["id"], now_us=world.now_us))
        for symbol in world.exchange.true_positions(world.accounts[0]):
            if not symbol.isalpha():
                settling = Settling(symbol, "expiration", None, None)
                world.act(partial(world.exchange.settle, world.accounts[0], settling, now_us=world.now_us))

    def _closed_market(self) -> None:
        if not self._world.is_market_closed:
            self._market_closes()
            self._world.later(self._random("closed_market").choice((1.0, 8.0, 25.0)), self._market_opens)

    def _market_closes(self) -> None:
        world = self._world
        if world.is_market_closed:
            return
        world.is_market_closed = True
        world.trace("market", "closes")
        world.act(lambda: lifecycle.close_session(world.exchange._state, world.now_us))
        world.rules.patch(_CLOSED)
        world.act(lambda: None)

    def _market_opens(self) -> None:
        world = self._world
        if world.is_market_closed and not self._is_night:
            world.is_market_closed = False
            world.struck()
            world.trace("market", "opens")
            world.rules.patch(_OPEN)
            world.act(lambda: None)

    def _hand_edits(self) -> None:
        found = [o for o in self._living(of_exits=True) if o["status"] == "Live" and "price" in o]
        order_id = self._pick("hand_edits", found)
        if order_id is None:
            return
        world = self._world
        order = next(o for o in found if o["id"] == order_id)
        price = f"{float(order['price']) + 0.05:.2f}"
        world.trace("hand", f"moves {order_id} to {price}")
        body = {"order-type": order["order-type"], "time-in-force": order["time-in-force"], "price": price}
        world.act(
            lambda: world.exchange.replace(world.accounts[0], order_id, body, now_us=world.now_us, by="user", edit=True)
        )

    def saw(self, entry: dict[str, Any]) -> None:
        """The exchange's log, as it grows: fills overtake cancels; the other exit fills a moment after the first."""
        world = self._world
        if entry["event"] == "status" and entry["status"] in ("Cancel Requested", "Replace Requested"):
            self._race(entry)
        if entry["event"] != "fill" or world.is_calm or not world.plan.is_on("both_exits"):
            return
        if not entry["action"].endswith("Close") or self._random("both_exits").random() > 0.5:
            return
        world.later(self._random("both_exits").uniform(0, 0.02), self._fill_sibling, entry["symbol"], entry["order-id"])

    def _race(self, entry: dict[str, Any]) -> None:
        world = self._world
        if world.is_calm or not world.plan.is_on("cancel_race") or self._random("cancel_race").random() < 0.5:
            return
        world.later(self._random("cancel_race").uniform(0, 0.05), self._fill_after_all, entry["order-id"])

    def _fill_after_all(self, order_id: int) -> None:
        """A fill that was on its way when the cancel arrived. A group never fills twice: the broker sees to that."""
        world = self._world
        order = world.exchange.exchange_order(order_id)
        if order["status"] in _TERMINAL or self._has_filled_mate(order) or world.is_calm:
            return
        world.struck()
        world.trace("market", f"{order_id} fills before its cancel")
        with suppress(Refused):
            world.act(lambda: world.exchange.fill(order_id, now_us=world.now_us))

    def _has_filled_mate(self, order: dict[str, Any]) -> bool:
        """Whether it is an exit of a group of which an exit has filled, if only in part."""
        group = order.get("complex-order-id")
        if group is None or not order["legs"][0]["action"].endswith("Close"):
            return False
        view = self._world.exchange.exchange_view()
        mates = (o for o in view if o.get("complex-order-id") == group and o["id"] != order["id"])
        return any(o["legs"][0]["action"].endswith("Close") and o["legs"][0]["fills"] for o in mates)

    def _fill_sibling(self, symbol: str, order_id: int) -> None:
        world = self._world
        siblings = [
            order["id"]
            for order in self._living(of_exits=True)
            if order["id"] != order_id
            and order["legs"][0]["symbol"] == symbol
            and "complex-order-id" not in order
            and order["status"] in ("Live", "Cancel Requested")
        ]
        if siblings:
            world.struck()
            world.trace("market", f"the other exit {siblings[0]} fills too")
            with suppress(Refused):
                world.act(lambda: world.exchange.fill(siblings[0], now_us=world.now_us))

    # The daemon's surroundings.

    def _outage(self) -> None:
        world = self._world
        seconds = self._random("outage").choice((1.0, 6.0, 25.0)) * self._random("outage").uniform(0.5, 1.2)
        world.is_outage = True
        world.trace("outage", f"for {seconds:.1f} s")
        if world.life is not None:
            world.life.streamer.go_down("outage", unnoticed_s=self._random("outage").uniform(0, 20))
            if world.life.quotes is not None:
                world.life.quotes.go_down("outage", unnoticed_s=5.0)
        world.later(seconds, self._outage_ends)

    def _outage_ends(self) -> None:
        self._world.struck()
        self._world.is_outage = False

    def _token_death(self) -> None:
        world, random = self._world, self._random("token_death")
        world.is_token_dead = True
        if random.random() < 0.5:
            world.trace("token", "dies")
            return
        # The authenticator tries again after 10 s, then after a minute.
        seconds = random.choice((10.0, 10.0, 70.0))
        world.trace("token", f"dies, and the log-in is refused for {seconds:g} s")
        world.is_login_refused = True
        for life in world.present_lives():
            life.streamer.go_down("token refused")
        world.later(seconds, self._login_works)

    def _login_works(self) -> None:
        self._world.struck()
        self._world.is_login_refused = False

    def _second_daemon(self) -> None:
        self._world.steal_lock()

    def _quotes_down(self) -> None:
        random = self._random("quotes_down")
        unnoticed_s = random.choice((0.0, 4.0, 15.0)) * random.random()
        for life in self._world.present_lives():
            if life.quotes is not None:
                life.quotes.go_down("reset", unnoticed_s=unnoticed_s)

    def _quotes_lie(self) -> None:
        random = self._random("quotes_lie")
        for life in self._world.present_lives():
            feed = life.quotes
            if feed is not None and feed.quoted:
                symbol = random.choice(feed.quoted)
                price = random.choice((Decimal("0.05"), Decimal("9.00"), Decimal(0)))
                self._world.trace("quotes", f"{symbol} is said to be at {price}")
                feed.lie(symbol, (price, price + Decimal("0.05")))
                self._world.later(random.choice((0.05, 0.5, 0.9)), feed.tell_truth, symbol)

    def _stream_down(self) -> None:
        if self._world.life is not None:
            self._world.life.streamer.go_down("reset")

    def _stream_silent(self) -> None:
        if self._world.life is not None:
            self._world.life.streamer.go_down("half open", unnoticed_s=self._random("stream_silent").uniform(2, 25))

    def _store_full(self) -> None:
        self._world.is_disk_full = True
        self._world.trace("disk", "is full")
        self._world.later(self._random("store_full").uniform(0.2, 15), self._store_has_room)

    def _store_has_room(self) -> None:
        self._world.struck()
        self._world.is_disk_full = False

    def _clock_steps(self) -> None:
        self._world.step_clock(
            self._random("clock_steps").choice((-86_400.0, -3600.0, -5.0, -0.5, 0.5, 5.0, 3600.0, 86_400.0))
        )

    def _crashes(self) -> None:
        self._world.crash(self._random("crashes").choice((0.01, 0.5, 5.0, 20.0)))

    def crashed(self, down_s: float) -> None:
        world = self._world
        if world.plan.is_on("crash_again") and not world.is_calm and self._random("crash_again").random() < 0.5:
            delay_s = (
                down_s
                + self._random("crash_again").choice((0.002, 0.05, 0.5, 2.0)) * self._random("crash_again").random()
            )
            world.later(delay_s, self._visit, "crashes")

    def _clean_stops(self) -> None:
        self._world.stop_in_order(self._random("clean_stops").choice((0.05, 3.0, 15.0)))

    # People.

    def _operator(self) -> None:
        world, random = self._world, self._random("operator")
        life = world.life
        if life is None or life.is_dead or not life.supervisor.is_ready:
            return
        present = list(life.supervisor.mailboxes.open_brackets())
        if not present:
            return
        bracket = random.choice(present)
        if bracket.state is BracketState.CLOSED:
            return
        event: Event
        match random.choice(("cancel", "close", "close at", "change", "change", "release", "unfreeze")):
            case "cancel":
                event = EntryCancelRequested("simulation")
            case "close":
                event = CloseRequested("simulation", None)
            case "close at":
                entry = bracket.request.entry.net_price
                event = CloseRequested("simulation", None if entry is None else -entry)
            case "change":
                try:
                    is_credit = any(s.is_credit for s in world.scenarios if s.client_ref == bracket.client_ref)
                    specs = _changed_specs(bracket, "0.45" if is_credit else "1.75", None)
                except (AdminRefused, ValueError):
                    return
                event = ChangeRequested("simulation", specs)
            case "release":
                if random.random() < 0.6:
                    return
                event = ReleaseRequested("simulation")
            case _:
                event = UnfreezeRequested("simulation")
        self._tell(life, bracket, event)

    def _exits_moved(self) -> None:
        """Of any bracket that stands, one exit or both; a second time while the first move is under way."""
        world, random = self._world, self._random("exits_moved")
        if world.life is None or world.life.is_dead or not world.life.supervisor.is_ready:
            return
        present = [b for b in world.life.supervisor.mailboxes.open_brackets() if b.state is BracketState.EXITS_LIVE]
        if not present:
            return
        bracket_id = random.choice(present).bracket_id
        self._move_exits(bracket_id)
        if random.random() < 0.3:
            world.later(random.uniform(0.0, 0.5), self._move_exits, bracket_id)

    def _move_exits(self, bracket_id: BracketId) -> None:
        world, random = self._world, self._random("exits_moved")
        life = world.life
        bracket = None if life is None or life.is_dead else life.supervisor.mailboxes.brackets.get(bracket_id)
        if life is None or bracket is None or bracket.state is not BracketState.EXITS_LIVE or world.is_calm:
            return
        scenario = next(s for s in world.scenarios if s.client_ref == bracket.client_ref)
        targets, stops = _MOVED_TO[scenario.is_credit]
        target, stop = random.choice(((True, False), (False, True), (True, True)))
        times = 1 if " " in scenario.legs[0].symbol else 10
        trigger, limit = (str(Decimal(price) * times) for price in random.choice(stops))
        price = str(Decimal(random.choice(targets)) * times)
        with suppress(AdminRefused):
            specs = _changed_specs(bracket, price if target else None, (trigger, limit) if stop else None)
            self._tell(life, bracket, ChangeRequested("simulation", specs))

    def _tell(self, life: "Life", bracket: Bracket, event: Event) -> None:
        world = self._world
        world.trace("operator", f"{bracket.client_ref} {type(event).__name__}")
        world.operated.append({"at_us": world.loop.now_us, "bracket_id": str(bracket.bracket_id)})
        life.supervisor.tell(bracket.bracket_id, event)

    def _repeated_rows(self) -> None:
        world, random = self._world, self._random("repeated_rows")
        if world.rows:
            scenario = random.choice(world.scenarios)
            world.insert_row(scenario)
