"""The exchange's ledger as the adapter would read it."""

from collections.abc import Iterable, Mapping
from typing import Any

import msgspec

from otocod.adapters.tastytrade.parse import settled_from_wire
from otocod.adapters.tastytrade.schema import TransactionWire
from otocod.ports.broker import SettledPosition


def settled_of(ledger: Iterable[Mapping[str, Any]], from_us: int) -> tuple[SettledPosition, ...]:
    rows = (settled_from_wire(msgspec.convert(dict(row), TransactionWire, strict=False)) for row in ledger)
    return tuple(row for row in rows if row is not None and row.at_us >= from_us)
