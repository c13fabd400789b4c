import json

import pytest

from otocod.adapters.tastytrade.streamer_symbols import streamer_symbol_by_rule, streamer_symbols_from_body
from otocod.domain.specs import InstrumentType
from otocod.ports.broker import ReadFailed
from otocod.ports.quotes import Instrument

OPTION, EQUITY = InstrumentType.EQUITY_OPTION, InstrumentType.EQUITY


@pytest.mark.parametrize(
    ("kind", "symbol", "streamer_symbol"),
    [
        (OPTION, "AAPL  261218C00300000", ".AAPL261218C300"),
        (OPTION, "AAPL  261218C00297500", ".AAPL261218C297.5"),
        (OPTION, "F     261218P00012345", ".F261218P12.345"),
        (OPTION, "SPY   261218P00000500", ".SPY261218P0.5"),
        (OPTION, "SPXW  261218C06500000", ".SPXW261218C6500"),
        (OPTION, "SPX   261218C06500000", ".SPX261218C6500"),
        (OPTION, "NDX   261218C25010000", ".NDX261218C25010"),
        (OPTION, "BRKB  261218C00500000", ".BRKB261218C500"),
        (OPTION, "AAPL1 261218C00100000", ".AAPL1261218C100"),
        (OPTION, "VIXW  261209P00017500", ".VIXW261209P17.5"),
        (EQUITY, "AAPL", "AAPL"),
        (EQUITY, "BRK/B", "BRK/B"),
        (InstrumentType.FUTURE, "/ESZ6", None),
        (InstrumentType.FUTURE_OPTION, "./ESZ6 EW4Z6 261224C6500", None),
        (OPTION, ".AAPL261218C300", None),
        (OPTION, "AAPL  261318C00300000", None),
    ],
)
def test_streamer_symbol_by_rule(kind: InstrumentType, symbol: str, streamer_symbol: str | None) -> None:
    assert streamer_symbol_by_rule(Instrument(kind, symbol)) == streamer_symbol


def test_answer_is_taken_item_by_item_without_what_cannot_be_one() -> None:
    items = [
        {"symbol": "/ESZ6", "streamer-symbol": "/ESZ26:XCME"},
        {"symbol": "/NQZ6", "streamer-symbol": "has space"},
        {"symbol": "/CLZ6", "streamer-symbol": "x" * 61},
        {"symbol": "/GCZ6"},
    ]
    assert streamer_symbols_from_body(json.dumps({"data": {"items": items}}).encode()) == {"/ESZ6": "/ESZ26:XCME"}


@pytest.mark.parametrize("body", [b"", b"<html>", b"[]", b'{"data": {}}', b'{"data": {"items": [1]}}'])
def test_answer_that_is_no_list_of_instruments_is_a_failed_read(body: bytes) -> None:
    with pytest.raises(ReadFailed, match="no instruments"):
        streamer_symbols_from_body(body)
