"""Risk limits: what a position can lose, what is held back and what is refused, and that exits never meet them."""

from dataclasses import replace
from decimal import Decimal
from typing import Any

import pytest

from otocod.domain.brackets import BracketState, Outcome
from otocod.domain.request import parse_request
from otocod.domain.request_types import BracketRequest
from otocod.engine.intake import exchange_day
from otocod.engine.limits import DAY_US, RiskDesk, RiskLimits, contracts_of, money_at_risk
from tests.support.desk import ACCOUNT, START_US
from tests.support.fakes import Daemon, accepted, bracket_id, pass_s, request_text, row, until
from tests.support.tastytrade import ManualClock


def request(quantity: int = 1, **changes: Any) -> BracketRequest:
    return parsed(request_text(0, quantity, **changes))


def parsed(text: str) -> BracketRequest:
    return parse_request(
        text,
        account=ACCOUNT,
        accounts=(ACCOUNT,),
        created_at_us=START_US,
        now_us=START_US,
        today=exchange_day(START_US),
    )


def single(
    kind: str, symbol: str, action: str, *, price: str, effect: str, stop: dict[str, str], quantity: int = 1
) -> Any:
    closing = "Credit" if effect == "Debit" else "Debit"
    leg = {"instrument-type": kind, "symbol": symbol, "quantity": quantity, "action": action}
    return {
        "entry": {
            "time-in-force": "Day",
            "order-type": "Limit",
            "price": price,
            "price-effect": effect,
            "legs": [leg],
        },
        "target": {"price": "0.05" if effect == "Credit" else "9000.00", "price-effect": closing},
        "stop": stop | ({"price-effect": closing} if "price" in stop else {}),
    }


def test_short_vertical_can_lose_its_width_less_the_credit() -> None:
    # 155/157.50 sold for 0.85: (2.50 - 0.85) * 100.
    assert money_at_risk(request()) == Decimal("165.00")
    assert money_at_risk(request(3)) == Decimal("495.00")
    assert contracts_of(request(3)) == 6


def made(fields: Any) -> BracketRequest:
    import json

    return parsed(json.dumps({"version": 1} | fields))


@pytest.mark.parametrize(
    ("fields", "dollars"),
    [
        # Bought for 2.00: all of it, whatever the stop says.
        (
            single(
                "Equity Option",
                "AAPL  261218C00155000",
                "Buy to Open",
                price="2.00",
                effect="Debit",
                stop={"trigger": "1.00", "price": "0.90"},
            ),
            "200.00",
        ),
        # A naked call has no bound: what the stop's limit would lose.
        (
            single(
                "Equity Option",
                "AAPL  261218C00155000",
                "Sell to Open",
                price="2.00",
                effect="Credit",
                stop={"trigger": "4.00", "price": "4.50"},
            ),
            "250.00",
        ),
        # A naked put has one: the strike.
        (
            single(
                "Equity Option",
                "AAPL  261218P00155000",
                "Sell to Open",
                price="2.00",
                effect="Credit",
                stop={"trigger": "4.00", "price": "4.50"},
            ),
            "15300.00",
        ),
        # Shares go by the stop, of a market stop by its trigger.
        (
            single(
                "Equity",
                "AAPL",
                "Buy to Open",
                price="150.00",
                effect="Debit",
                quantity=10,
                stop={"trigger": "140.00", "price": "139.00"},
            ),
            "110.00",
        ),
        (
            single(
                "Equity", "AAPL", "Buy to Open", price="150.00", effect="Debit", quantity=10, stop={"trigger": "140.00"}
            ),
            "100.00",
        ),
        # A future's multiplier and an adjusted option's deliverable are not known here.
        (single("Future", "/ESZ6", "Buy", price="5000.00", effect="Debit", stop={"trigger": "4900.00"}), None),
        (
            single(
                "Equity Option",
                "AAPL1 261218C00155000",
                "Buy to Open",
                price="2.00",
                effect="Debit",
                stop={"trigger": "1.00", "price": "0.90"},
            ),
            None,
        ),
    ],
)
def test_money_at_risk_of_single_legs(fields: Any, dollars: str | None) -> None:
    assert money_at_risk(made(fields)) == (None if dollars is None else Decimal(dollars))


class Desk(RiskDesk):
    def __init__(self, **limits: Any) -> None:
        self.time = ManualClock(START_US)
        self.open = 0
        self.sent = 0
        self.held: list[str] = []
        super().__init__(
            RiskLimits(**limits),
            self.time,
            open_brackets=lambda: tuple(accepted(number).bracket for number in range(self.open)),
            posted=lambda: self.sent,
            on_held=lambda limit, why: self.held.append(limit),
        )

    def waits(self, of: BracketRequest | None = None) -> list[str]:
        return [name for name, _ in self.judge(of or request()).waits]


def test_without_limits_nothing_is_held_back() -> None:
    desk = Desk()
    desk.open, desk.sent = 10_000, 10_000
    assert desk.judge(request(1000)).is_free


def test_open_brackets_and_contracts_are_held_at_their_limits() -> None:
    desk = Desk(open_brackets=2, open_contracts=5)
    desk.open = 1
    assert desk.waits() == []
    desk.open = 2
    assert desk.waits() == ["open_brackets", "open_contracts"]
    assert desk.judge(request(3)).refusals == ("it has 6 contracts and limits.open_contracts is 5",)


def test_money_of_a_bracket_is_refused_at_once_and_money_of_a_day_is_waited_for_until_the_day_ends() -> None:
    desk = Desk(risk_per_bracket=Decimal(200), risk_per_day=Decimal(400))
    assert desk.judge(request(2)).refusals == ("it can lose 330.00 dollars and limits.risk_per_bracket is 200",)
    for number in range(2):
        assert desk.judge(request()).is_free
        desk.note_accepted(bracket_id(number), request())
    assert desk.waits() == desk.waits() == ["risk_per_day"]
    assert desk.held == ["risk_per_day"], "said once a day"
    desk.note_closed(bracket_id(0), Outcome.STOP_FILLED)
    assert desk.waits() == ["risk_per_day"], "a loss has been risked"
    desk.note_closed(bracket_id(1), Outcome.ENTRY_NOT_FILLED)
    assert desk.waits() == []
    desk.note_accepted(bracket_id(2), request())
    desk.time.advance_s(DAY_US / 1_000_000)
    assert desk.waits() == []
    assert desk.risk_today == 0


def test_what_cannot_be_computed_is_refused_where_money_is_limited_and_only_there() -> None:
    future = made(single("Future", "/ESZ6", "Buy", price="5000.00", effect="Debit", stop={"trigger": "4900.00"}))
    assert "cannot be computed" in Desk(risk_per_bracket=Decimal(1_000_000)).judge(future).refusals[0]
    assert Desk(open_brackets=1).judge(future).is_free


def test_orders_of_a_day_count_those_before_a_restart_and_those_promised() -> None:
    desk = Desk(orders_per_day=390)
    desk.load(380, ())
    desk.sent = 9
    assert desk.waits() == []
    assert [name for name, _ in desk.judge(request(), promised=1).waits] == ["orders_per_day"]
    desk.sent = 10
    assert desk.waits() == ["orders_per_day"]
    desk.time.advance_s(DAY_US / 1_000_000)
    assert (desk.orders_today, desk.waits()) == (0, [])
    desk.sent = 11
    assert desk.orders_today == 1


def test_a_restart_remembers_the_day_s_risk() -> None:
    desk = Desk(risk_per_day=Decimal(300))
    desk.load(0, [(bracket_id(1), request(), None), (bracket_id(2), request(), Outcome.ENTRY_NOT_FILLED)])
    assert desk.risk_today == Decimal("165.00")
    assert desk.waits() == ["risk_per_day"]


@pytest.mark.covers("F122", "F103")
async def test_limits_hold_entries_and_never_an_exit_and_may_change_while_it_runs() -> None:
    daemon = await Daemon().start()
    bracket = await daemon.take(0)
    daemon.supervisor.risk.limits = RiskLimits(1, 1, Decimal(1), Decimal(1), 1)
    daemon.broker.fill(bracket.entries[0].external_identifier)
    await until(lambda: daemon.bracket_of(0).state is BracketState.EXITS_LIVE)
    daemon.supervisor.risk.limits = RiskLimits(open_brackets=1)
    daemon.queue.put(row(1, protection="native-oco"))
    await pass_s(5)
    assert daemon.queue.answer_to(2) is None
    assert daemon.notifier.codes == ["limit_reached"]
    daemon.supervisor.risk.limits = RiskLimits(open_brackets=2)
    await until(lambda: daemon.queue.answer_to(2))
    await daemon.stop()


async def test_a_request_that_a_limit_held_until_it_was_stale_is_told_so() -> None:
    daemon = await Daemon().start()
    await daemon.take(0)
    daemon.supervisor.risk.limits = RiskLimits(open_brackets=1)
    daemon.queue.put(replace(row(1, protection="native-oco"), created_at_us=daemon.clock.now_us()))
    await until(lambda: daemon.queue.answer_to(2), within_s=1200)
    answer = daemon.queue.answer_to(2)
    assert answer is not None and answer.bracket_id is None
    assert any("limits.open_brackets is 1" in reason for reason in answer.reasons), answer.reasons
    await daemon.stop()
