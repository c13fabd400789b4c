"""What a client of the bench that is no daemon is told at its start, as a file of JSON."""

from pathlib import Path

import msgspec

from tests.bench.wire import Json


class Trade(msgspec.Struct):
    """One bracket: the order that is working already, and what to send once it has filled."""

    entry_id: int
    target: Json
    stop: Json


class Plan(msgspec.Struct):
    api_url: str
    streamer_url: str
    trades: list[Trade]
    poll_s: float = 5.0


def read_plan(path: str) -> Plan:
    return msgspec.json.decode(Path(path).read_bytes(), type=Plan)
