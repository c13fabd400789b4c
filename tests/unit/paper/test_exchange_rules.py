"""The table of switches, symbols, and the records clients require in full."""

import re
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest

from otocod.paper import symbols
from otocod.paper.exchange import Exchange, Rules
from tests.unit.paper.desk import ACCOUNT, SHORT, START_US, Desk, entry


def test_describe_lists_each_rule_with_value_default_kind_and_doc() -> None:
    rules = Rules()
    rules.patch({"position_lag_ms": 5, "holidays": ["2026-11-26"]})
    table = {row["name"]: row for row in rules.describe()}
    assert table["position_lag_ms"]["value"] == 5
    assert table["position_lag_ms"]["default"] == 0
    assert table["holidays"]["value"] == ["2026-11-26"]
    assert table["fill_style"]["kind"] == "one of book, limit, natural, none"
    assert all(set(row) == {"name", "value", "default", "kind", "doc"} and row["doc"] for row in table.values())
    assert "version" not in table


def test_patch_names_every_problem_and_changes_nothing() -> None:
    rules = Rules()
    changes: dict[str, Any] = {
        "reservation": "yes",
        "fill_style": "best",
        "read_lag_ms": -1,
        "status_step_ms": True,
        "holidays": ["soon"],
        "penny_underlyings": "AAPL",
        "reject_after_routing": 1,
        "nonsense": 1,
        "margin_check": False,
    }
    with pytest.raises(ValueError, match="nonsense") as problem:
        rules.patch(changes)
    named = {line.split(":")[0] for line in str(problem.value).splitlines()}
    assert named == set(changes) - {"margin_check"}
    assert (rules.margin_check, rules.version) == (True, 0)


def test_changed_rule_holds_from_the_next_call() -> None:
    desk = Desk(fill_style="none")
    order_id = desk.submit(entry())
    desk.spread("1.20", "1.30")
    desk.exchange.rules.patch({"fill_style": "book"})
    assert desk.status(order_id) == "Live"
    desk.wait(0)
    assert desk.status(order_id) == "Filled"


@pytest.mark.parametrize(
    ("symbol", "kind", "underlying", "strike"),
    [
        ("AAPL  261218C00297500", "Equity Option", "AAPL", "297.5"),
        ("SPXW  261218P06500000", "Equity Option", "SPX", "6500"),
        ("./ESZ6 EW4Z6 261224C6500", "Future Option", "/ESZ6", "6500"),
    ],
)
def test_option_symbols_are_read(symbol: str, kind: str, underlying: str, strike: str) -> None:
    found = symbols.instrument(symbol, kind)
    assert found is not None
    assert (found.underlying, found.strike) == (underlying, Decimal(strike))
    assert symbols.guess_type(symbol) == kind


@pytest.mark.parametrize(
    ("symbol", "kind"),
    [
        ("AAPL 261218C00297500", "Equity Option"),
        ("AAPL  261318C00297500", "Equity Option"),
        ("AAPL", "Equity Option"),
        ("aapl", "Equity"),
        ("ESZ6", "Future"),
    ],
)
def test_what_is_no_symbol_is_not_taken(symbol: str, kind: str) -> None:
    assert symbols.instrument(symbol, kind) is None


def test_streamer_symbol_drops_trailing_zeros() -> None:
    assert symbols.streamer_symbol("AAPL  261218C00297500") == ".AAPL261218C297.5"
    assert symbols.streamer_symbol("SPXW  261218C06500000") == ".SPXW261218C6500"
    assert symbols.streamer_symbol("AAPL") == "AAPL"


def test_tick_sizes_agree_with_the_grid_orders_are_judged_by() -> None:
    for underlying in ("AAPL", "SPY", "XYZ"):
        found = symbols.instrument(f"{underlying:<6}261218C00300000", "Equity Option")
        assert found is not None
        sizes = symbols.tick_sizes(underlying, Rules())
        for price in (Decimal("2.99"), Decimal("3.00")):
            told = next(s["value"] for s in sizes if "threshold" not in s or price < Decimal(s["threshold"]))
            assert symbols.increment(found, 1, price, Rules()) == Decimal(told)


# What one public client refuses to parse a record without.
REQUIRED_BALANCES = """
account-number cash-balance net-liquidating-value equity-buying-power derivative-buying-power
day-trading-buying-power available-trading-funds maintenance-requirement maintenance-excess pending-cash updated-at
long-equity-value short-equity-value long-derivative-value short-derivative-value long-futures-value
short-futures-value long-futures-derivative-value short-futures-derivative-value long-margineable-value
short-margineable-value margin-equity futures-margin-requirement maintenance-call-value reg-t-call-value
day-trading-call-value day-equity-call-value cash-available-to-withdraw day-trade-excess long-cryptocurrency-value
short-cryptocurrency-value cryptocurrency-margin-requirement unsettled-cryptocurrency-fiat-amount
closed-loop-available-balance equity-offering-margin-requirement long-bond-value bond-margin-requirement
used-derivative-buying-power snapshot-date reg-t-margin-requirement futures-overnight-margin-requirement
futures-intraday-margin-requirement pending-margin-interest effective-cryptocurrency-buying-power
"""
REQUIRED_STATUS = """
account-number options-level equities-margin-calculation-type fee-schedule-name id futures-margin-rate-multiplier
small-notional-futures-margin-rate-multiplier updated-at is-closed is-closing-only is-frozen is-in-margin-call
is-pattern-day-trader are-far-otm-net-options-restricted short-calls-enabled has-intraday-equities-margin
is-aggregated-at-clearing is-cryptocurrency-enabled is-full-equity-margin-required is-futures-closing-only
is-futures-intra-day-enabled is-futures-enabled is-in-day-trade-equity-maintenance-call
is-small-notional-futures-intra-day-enabled is-roll-the-day-forward-enabled is-equity-offering-enabled
is-equity-offering-closing-only
"""
REQUIRED_ACCOUNT = """
account-number opened-at nickname account-type-name is-closed day-trader-status is-firm-error is-firm-proprietary
is-futures-approved margin-or-cash is-foreign created-at
"""
REQUIRED_POSITION = """
account-number symbol instrument-type underlying-symbol quantity quantity-direction close-price average-open-price
multiplier cost-effect is-suppressed is-frozen realized-day-gain realized-today created-at updated-at
"""


def test_records_have_every_field_the_public_clients_require() -> None:
    desk = Desk()
    desk.position()
    exchange = desk.exchange
    assert set(REQUIRED_BALANCES.split()) <= set(exchange.balances(ACCOUNT))
    assert set(REQUIRED_STATUS.split()) <= set(exchange.trading_status(ACCOUNT))
    assert set(REQUIRED_ACCOUNT.split()) <= set(exchange.account_record(ACCOUNT))
    assert set(REQUIRED_POSITION.split()) <= set(exchange.positions(ACCOUNT)[0])
    assert exchange.account_record(ACCOUNT)["opened-at"].startswith("2026-11-23T")


def test_fresh_account_has_its_cash_and_nothing_held_against_it() -> None:
    balances = Desk().exchange.balances(ACCOUNT)
    assert (balances["cash-balance"], balances["derivative-buying-power"]) == ("100000.0", "100000.0")
    assert balances["maintenance-requirement"] == "0.0"


def test_net_liquidating_value_follows_the_quotes() -> None:
    desk = Desk()
    desk.position()
    desk.spread("0.50", "0.50")
    # 235.50 of cash gained, 2 spreads to be bought back at 0.50.
    assert desk.exchange.balances(ACCOUNT)["net-liquidating-value"] == "100135.5"


def test_several_accounts_do_not_see_each_other() -> None:
    exchange = Exchange(rules=Rules(), seed=1, now_us=START_US, accounts=("A1", "A2"))
    order_id = exchange.submit("A1", entry(), now_us=START_US)["order"]["id"]
    assert exchange.orders("A2") == []
    with pytest.raises(Exception, match="record_not_found"):
        exchange.order("A2", order_id)


def test_reset_is_a_fresh_day_and_keeps_the_log() -> None:
    desk = Desk()
    desk.position()
    desk.quote(SHORT, "1", "2")
    before = len(desk.exchange.log)
    desk.exchange.reset(desk.now_us)
    assert (desk.exchange.orders(ACCOUNT), desk.exchange.positions(ACCOUNT), dict(desk.exchange.quotes)) == ([], [], {})
    assert desk.exchange.balances(ACCOUNT)["cash-balance"] == "100000.0"
    assert len(desk.exchange.log) == before + 1


def test_iron_condor_needs_the_width_of_one_side() -> None:
    desk = Desk()
    legs = [
        {
            "instrument-type": "Equity Option",
            "symbol": f"AAPL  261218{side}{strike:08d}",
            "quantity": 1,
            "action": action,
        }
        for side, strike, action in (
            ("C", 300_000, "Sell to Open"),
            ("C", 305_000, "Buy to Open"),
            ("P", 250_000, "Sell to Open"),
            ("P", 240_000, "Buy to Open"),
        )
    ]
    answer = desk.exchange.submit(ACCOUNT, {**entry(), "legs": legs}, now_us=START_US)
    assert answer["buying-power-effect"]["change-in-margin-requirement"] == "1000.0"


def test_uncovered_option_needs_a_share_of_its_strike() -> None:
    body = {**entry(), "legs": entry()["legs"][:1]}
    answer = Desk().exchange.submit(ACCOUNT, body, now_us=START_US)
    assert answer["buying-power-effect"]["change-in-margin-requirement"] == "12000.0"


def test_exchange_has_no_clock_and_no_input() -> None:
    forbidden = re.compile(r"^\s*(import|from) (time|asyncio|socket|os|threading|pathlib|secrets|uuid)\b", re.MULTILINE)
    names = "errors rules symbols sessions orders wire positions margin matching state lifecycle endings filling"
    for name in [*names.split(), "preflight", "complex_orders", "replacing", "views", "exchange"]:
        assert not forbidden.search((Path(symbols.__file__).parent / f"{name}.py").read_text(encoding="utf-8")), name
