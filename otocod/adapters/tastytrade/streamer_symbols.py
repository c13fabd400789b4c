"""Order symbols to streamer symbols: by rule where the rule is certain, else asked of the instruments endpoints.

AAPL  261218C00297500      .AAPL261218C297.5     the strike without trailing zeros
SPXW  261218C06500000      .SPXW261218C6500
AAPL, SPX, BRK/B           the same
/ESZ6, ./ESZ6 EW4Z6 ...    only the broker knows them
"""

from collections.abc import Collection, Mapping

import msgspec

from otocod.adapters.tastytrade.reading import Reader
from otocod.adapters.tastytrade.schema import DECODE_ERRORS
from otocod.domain.specs import InstrumentType
from otocod.domain.symbols import Instrument as ParsedSymbol
from otocod.domain.symbols import SymbolError, parse_symbol
from otocod.ports.broker import ReadFailed
from otocod.ports.quotes import Instrument

_PATHS = {
    InstrumentType.FUTURE: "/instruments/futures",
    InstrumentType.FUTURE_OPTION: "/instruments/future-options",
    InstrumentType.CRYPTOCURRENCY: "/instruments/cryptocurrencies",
}
_MOST_SYMBOLS = 50  # in one request
_MOST_CHARACTERS = 60


class _InstrumentWire(msgspec.Struct, rename="kebab", frozen=True, gc=False):
    symbol: str | None = None
    streamer_symbol: str | None = None


class _ItemsWire(msgspec.Struct, frozen=True, gc=False):
    items: list[_InstrumentWire] | None = None


class _AnswerWire(msgspec.Struct, frozen=True, gc=False):
    data: _ItemsWire | None = None


_ANSWER = msgspec.json.Decoder(_AnswerWire)


def streamer_symbol_by_rule(instrument: Instrument) -> str | None:
    """None where only the broker knows it, and for what is no symbol."""
    try:
        parsed = parse_symbol(instrument.instrument_type, instrument.symbol)
    except SymbolError:
        return None
    match instrument.instrument_type:
        case InstrumentType.EQUITY_OPTION:
            return _of_equity_option(parsed)
        case InstrumentType.EQUITY:
            return instrument.symbol
        case _:
            return None


def _of_equity_option(parsed: ParsedSymbol) -> str:
    assert parsed.expires_on is not None and parsed.right is not None and parsed.strike is not None
    return f".{parsed.root}{parsed.expires_on:%y%m%d}{parsed.right.value}{parsed.strike.normalize():f}"


class StreamerSymbols:
    """Remembers what it was told: a streamer symbol never changes."""

    def __init__(self, reader: Reader) -> None:
        self._reader = reader
        self._known: dict[Instrument, str] = {}

    def known(self, instrument: Instrument) -> str | None:
        found = self._known.get(instrument)
        if found is None:
            found = streamer_symbol_by_rule(instrument)
            if found is not None:
                self._known[instrument] = found
        return found

    async def ask(self, instruments: Collection[Instrument]) -> None:
        """Asks for those not known yet; what the broker does not answer for stays unknown. Raises ReadFailed."""
        for kind, path in _PATHS.items():
            missing = sorted(
                instrument.symbol
                for instrument in instruments
                if instrument.instrument_type is kind and instrument not in self._known
            )
            for start in range(0, len(missing), _MOST_SYMBOLS):
                await self._ask(kind, path, missing[start : start + _MOST_SYMBOLS])

    async def _ask(self, kind: InstrumentType, path: str, symbols: Collection[str]) -> None:
        body = await self._reader.get(path, [("symbol[]", symbol) for symbol in symbols])
        for symbol, streamer_symbol in streamer_symbols_from_body(body).items():
            if symbol in symbols:
                self._known[Instrument(kind, symbol)] = streamer_symbol


def streamer_symbols_from_body(body: bytes) -> Mapping[str, str]:
    """Streamer symbol by order symbol. Raises ReadFailed for an answer that is no list of instruments."""
    try:
        data = _ANSWER.decode(body).data
    except DECODE_ERRORS:
        data = None
    if data is None or data.items is None:
        raise ReadFailed("no instruments in the answer")
    return {
        item.symbol: item.streamer_symbol
        for item in data.items
        if item.symbol and item.streamer_symbol and _is_harmless(item.streamer_symbol)
    }


def _is_harmless(symbol: str) -> bool:
    return len(symbol) <= _MOST_CHARACTERS and symbol.isascii() and symbol.isprintable() and " " not in symbol
