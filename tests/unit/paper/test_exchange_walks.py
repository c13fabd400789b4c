"""Random walks through the exchange under random rules; whatever happens, its records must agree with each other.

Each walk is a function of its seed: many calls of every kind against a moving market. Afterwards, and from every
message on the way: terminal orders stay terminal, fills only grow, positions are the sum of fills, and nothing is
left behind.
"""

import json
import random
from collections.abc import Callable
from decimal import Decimal
from typing import Any

import pytest

from otocod.paper.exchange import Exchange, Notice, Refused, Rules
from otocod.paper.orders import TERMINAL
from tests.unit.paper.desk import ACCOUNT, LONG, SHORT, START_US, Json, entry, oco, otoco, stop, target

STEPS = 120


def random_rules(rng: random.Random) -> Rules:
    """Each switch at its default or, now and then, at any value it may have; hours stay open."""
    rules = Rules()
    for row in rules.describe():
        if row["name"] in ("sessions", "account_state", "fill_style") or rng.random() < 0.7:
            continue
        if row["kind"] == "bool":
            rules.patch({row["name"]: rng.random() < 0.5})
        elif row["kind"].startswith("one of "):
            rules.patch({row["name"]: rng.choice(row["kind"].removeprefix("one of ").split(", "))})
        elif row["kind"].startswith("milliseconds"):
            rules.patch({row["name"]: rng.choice([0, 1, 7, 40])})
    return rules


class Walk:
    def __init__(self, seed: int) -> None:
        self.rng = random.Random(seed)
        self.exchange = Exchange(rules=random_rules(self.rng), seed=seed, now_us=START_US)
        self.now_us = START_US
        self.notices: list[Notice] = []

    def run(self) -> None:
        actions: list[Callable[[], Any]] = [self.market, self.market, self.submit, self.group, self.cancel]
        actions += [self.container, self.replace, self.hand]
        for _ in range(STEPS):
            self.now_us += self.rng.choice([0, 1_000, 3_000, 20_000, 200_000])
            try:
                self.rng.choice(actions)()
            except Refused as refused:
                json.dumps(refused.body())
            self.notices += self.exchange.drain()
        self.now_us += 10_000_000
        self.exchange.advance(self.now_us)
        self.notices += self.exchange.drain()

    def some_order(self) -> int:
        return self.rng.randrange(771_000, 771_000 + max(len(self.exchange.exchange_view()), 1))

    def size(self) -> int:
        return self.rng.choice([1, 2, 4])

    def market(self) -> None:
        debit = Decimal(self.rng.randrange(10, 400)) / 100
        quotes = {SHORT: (5 + debit - Decimal("0.05"), 5 + debit), LONG: (Decimal(5), Decimal("5.05"))}
        self.exchange.set_quotes(quotes, now_us=self.now_us)

    def submit(self) -> None:
        size = self.size()
        body = self.rng.choice([entry(quantity=size), entry(quantity=size), target(quantity=size), stop(quantity=size)])
        self.exchange.submit(ACCOUNT, body, now_us=self.now_us, dry_run=self.rng.random() < 0.1)

    def group(self) -> None:
        size = self.size()
        exits = target(quantity=size), stop(quantity=size)
        body: Json = oco(*exits)
        if self.rng.random() < 0.6:
            body = otoco(*exits, trigger=entry(quantity=size))
        self.exchange.submit_complex(ACCOUNT, body, now_us=self.now_us)

    def cancel(self) -> None:
        self.exchange.cancel(ACCOUNT, self.some_order(), now_us=self.now_us)

    def container(self) -> None:
        self.exchange.cancel_complex(ACCOUNT, 56_544 + self.rng.randrange(8), now_us=self.now_us)

    def replace(self) -> None:
        body = {"price": str(Decimal(self.rng.randrange(5, 300)) / 100)}
        self.exchange.replace(ACCOUNT, self.some_order(), body, now_us=self.now_us, by="user")

    def hand(self) -> None:
        order_id, now_us = self.some_order(), self.now_us
        choice = self.rng.randrange(5)
        if choice < 3:
            self.exchange.fill(order_id, now_us=now_us, quantity=1 if choice else None, first_leg_only=choice == 2)
        elif choice == 3:
            self.exchange.reject(order_id, now_us=now_us, reason="walk")
        else:
            self.exchange.cancel_by_hand(order_id, now_us=now_us, by="user")


def filled(order: Json) -> int:
    return sum(fill["quantity"] for item in order["legs"] for fill in item["fills"])


def check_orders(walk: Walk) -> None:
    positions: dict[str, int] = {}
    for order in walk.exchange.exchange_view():
        for item in order["legs"]:
            quantity = sum(fill["quantity"] for fill in item["fills"])
            assert quantity == item["quantity"] - item["remaining-quantity"]
            assert item["remaining-quantity"] >= 0
            sign = 1 if item["action"].startswith("Buy") else -1
            positions[item["symbol"]] = positions.get(item["symbol"], 0) + sign * quantity
        assert (order["status"] in TERMINAL) == ("terminal-at" in order)
        if order["status"] == "Filled":
            assert order["legs"][0]["remaining-quantity"] == 0
    assert {symbol: held for symbol, held in positions.items() if held} == walk.exchange.true_positions(ACCOUNT)
    record = {row["symbol"]: row["quantity"] for row in walk.exchange.positions(ACCOUNT)}
    assert record == {symbol: abs(held) for symbol, held in walk.exchange.true_positions(ACCOUNT).items()}


def check_messages(walk: Walk) -> None:
    last: dict[int, Json] = {}
    at_us = 0
    for notice in walk.notices:
        assert notice.at_us >= at_us
        at_us = notice.at_us
        if notice.type != "Order":
            continue
        order = notice.data
        before = last.get(order["id"])
        if before is not None:
            assert before["status"] not in TERMINAL or before["status"] == order["status"]
            assert filled(order) >= filled(before)
        last[order["id"]] = order
    truth = {order["id"]: order for order in walk.exchange.exchange_view()}
    assert {order_id: order["status"] for order_id, order in last.items()} == {
        order_id: order["status"] for order_id, order in truth.items()
    }
    assert all(filled(last[order_id]) == filled(order) for order_id, order in truth.items())


def check_nothing_left_behind(walk: Walk) -> None:
    state = walk.exchange._state
    living = {order_id for order_id, order in state.orders.items() if not order.is_terminal}
    assert set(state.unfinished) == living
    for index in (state.working, state.watching):
        assert {order_id for orders in index.values() for order_id in orders} <= living
    # What still waits in these states would wait for ever.
    stuck = {"Routed", "In Flight", "Replace Requested", "Received"}
    assert not [order for order in state.unfinished.values() if order.status in stuck]
    if not walk.exchange.rules.stuck_cancel:
        assert not [order for order in state.unfinished.values() if order.status == "Cancel Requested"]


@pytest.mark.parametrize("seed", range(40))
def test_records_agree_after_a_random_walk(seed: int) -> None:
    walk = Walk(seed)
    walk.run()
    json.dumps([notice.data for notice in walk.notices])
    json.dumps(walk.exchange.log)
    check_orders(walk)
    check_messages(walk)
    check_nothing_left_behind(walk)
