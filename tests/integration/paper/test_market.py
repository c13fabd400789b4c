"""The pure parts behind the market endpoints: dates of chains, made quotes, paths."""

from __future__ import annotations

from datetime import date, timedelta
from decimal import Decimal

import pytest

from otocod.paper import instruments, symbols
from otocod.paper.market import Walk, option_value, parse_script, parse_sides
from otocod.paper.routes import Reply, Routes
from otocod.paper.rules import Rules

DAYS = [date(2026, 1, 1) + timedelta(days=step * 5) for step in range(150)]


@pytest.mark.parametrize("name", instruments.UNDERLYINGS)
def test_every_day_lists_unexpired_fridays_two_of_them_more_than_a_week_away(name: str) -> None:
    for today in DAYS:
        expirations = [item.expiration for item in instruments.listings(name, today)]
        assert all(day > today and day.weekday() == 4 for day in expirations)
        assert len({day for day in expirations if (day - today).days > 7}) >= 2


def test_listed_symbols_are_symbols_of_the_exchange_with_strikes_on_both_sides() -> None:
    for name, underlying in instruments.UNDERLYINGS.items():
        for listing in instruments.listings(name, date(2026, 11, 22)):
            found = [
                symbols.instrument(listing.symbol(strike, "C"), symbols.EQUITY_OPTION)
                for strike in underlying.strikes()
            ]
            assert all(item is not None and item.underlying == name for item in found)
        strikes = list(underlying.strikes())
        assert strikes[0] < underlying.spot < strikes[-1]


def test_future_chain_has_symbols_of_the_exchange() -> None:
    chain = instruments.future_chain("ES", date(2026, 11, 22))
    assert chain is not None
    strike = chain["option-chains"][0]["expirations"][0]["strikes"][0]
    assert symbols.instrument(strike["call"], symbols.FUTURE_OPTION) is not None
    assert symbols.instrument(chain["futures"][0]["symbol"], symbols.FUTURE) is not None


def test_index_monthly_settles_in_the_morning_and_an_expired_option_is_none() -> None:
    chains = instruments.nested_chain("SPX", date(2026, 11, 22), Rules())
    kinds = {chain["root-symbol"]: {item["settlement-type"] for item in chain["expirations"]} for chain in chains}
    assert kinds == {"SPX": {"AM"}, "SPXW": {"PM"}}
    assert instruments.equity_option("AAPL  261120C00300000", date(2026, 11, 22)) is None
    unlisted = instruments.equity_option("AAPL  261218C00301250", date(2026, 11, 22))
    assert unlisted is not None
    assert unlisted["streamer-symbol"] == ".AAPL261218C301.25"


def test_walk_repeats_with_its_seed_and_prices_are_monotonic_in_the_strike() -> None:
    today = date(2026, 11, 22)

    def path(seed: int) -> list[Decimal]:
        walk = Walk(seed)
        prices = []
        for _ in range(20):
            walk.tick()
            made = walk.quote("AAPL", today)
            assert made is not None
            prices.append(made.bid)
        return prices

    assert path(1) == path(1) != path(2)
    values = [option_value(250, strike, 30, "C") for strike in range(150, 351, 5)]
    assert values == sorted(values, reverse=True)
    for strike in range(15, 35):
        made = Walk(1).quote(f"AAPL  261218P00{strike}0000", today)
        assert made is not None
        assert 0 <= made.bid < made.ask
        assert made.ask.as_tuple().exponent == -2


@pytest.mark.parametrize("side", ["x", None, True, "-1", "NaN", "Infinity", [1]])
def test_a_side_of_a_quote_is_a_finite_decimal(side: object) -> None:
    with pytest.raises(ValueError, match="bid must be"):
        parse_sides(side, "1")


def test_script_names_every_bad_step() -> None:
    with pytest.raises(ValueError, match=r"step 0: .*\n.*step 1: after_ms"):
        parse_script([{"symbol": "AAPL"}, {"after_ms": "1", "symbol": "AAPL", "bid": "1", "ask": "2"}])


def test_paths_are_matched_on_encoded_segments_and_the_last_may_hold_slashes() -> None:
    routes = Routes()
    routes.add("GET", "/a/{name}/live", lambda broker, call: Reply({}))
    routes.add("GET", "/a/{name}", lambda broker, call: Reply({}))
    routes.add("GET", "/b/{symbol*}", lambda broker, call: Reply({}))

    def names(path: str) -> dict[str, str] | None:
        found = routes.find("GET", path)
        return found[1] if found else None

    assert names("/a/AAPL%20%20C%2F1") == {"name": "AAPL  C/1"}
    assert names("/a/x/live") == {"name": "x"}
    assert names("/b//ESZ6") == {"symbol": "/ESZ6"}
    assert names("/b/%2FESZ6") == {"symbol": "/ESZ6"}
    assert names("/a/x/y") is None
    assert names("/a/") is None
    assert routes.find("POST", "/a/x") is None
