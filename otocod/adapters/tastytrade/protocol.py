"""The account stream without a socket: text frames in, events and text frames out. It never waits and never raises.

One object is one connection. The life of it:

    connection_made -> `connect` goes out; an explicit `ok` must come within `ack_timeout_us`
    ok              -> StreamUp; a `heartbeat` with the newest token at once and then every `heartbeat_interval_us`
    any reply that is no ok, no ok in time, silence of two intervals -> Failed; the connection is of no use any more

Anything but an explicit `ok` to `connect` means "not subscribed": with a token the server does not like it answers
`error` to `connect` and still `ok` to heartbeats, and would never tell us anything again.

Messages count from the first frame on, acknowledged or not: joining one more report does no harm.
"""

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import msgspec

from otocod.adapters.tastytrade.parse import (
    complex_report_from_raw,
    is_present,
    position_from_wire,
    read_order,
)
from otocod.adapters.tastytrade.render import SOURCE
from otocod.adapters.tastytrade.schema import DECODE_ERRORS, FRAME, RAW_LIST, FrameWire, PositionWire, tolerant
from otocod.domain.ids import AccountNumber
from otocod.domain.orders import BrokerStatus
from otocod.ports.broker import (
    StreamComplex,
    StreamEvent,
    StreamOddity,
    StreamOrder,
    StreamPosition,
    StreamUp,
)
from otocod.text import sanitise

SECOND_US = 1_000_000

_MOST_NAMES = 50  # of unknown types, kept for the operator
_OTHER = "(others)"
_NAME_LIMIT = 60  # characters
_ENCODER = msgspec.json.Encoder()

# Known, and of no use here: balances and trading status are read when they are wanted.
_IGNORED = frozenset(
    {
        "AccountBalance",
        "TradingStatus",
        "OrderChain",
        "UnderlyingYearGainSummary",
        "ExternalTransaction",
        "QuoteAlert",
        "PublicWatchlists",
    }
)


@dataclass(frozen=True, slots=True)
class Failed:
    """Drop the connection and make another. `is_token_suspect`: the server did not like what we said, not the line."""

    why: str
    is_token_suspect: bool = False


ProtocolEvent = StreamEvent | Failed


class AccountStreamerProtocol:
    def __init__(
        self,
        accounts: Sequence[AccountNumber],
        *,
        bearer: Callable[[], str],
        generation: int,
        heartbeat_interval_us: int = 20 * SECOND_US,
        ack_timeout_us: int = 10 * SECOND_US,
    ) -> None:
        """`bearer`: the newest `Bearer ...`, asked for at every frame, because a connection outlives many tokens.

        `generation` comes back in StreamUp, so that events of an older connection can be told.
        """
        self._accounts = tuple(accounts)
        self._bearer = bearer
        self.generation = generation
        self._interval_us = heartbeat_interval_us
        self._ack_timeout_us = min(ack_timeout_us, heartbeat_interval_us)
        self._request_id = 0
        self._connect_id = 0
        self._heartbeat_id = 0
        self._ack_due_us: int | None = None  # of the connect or heartbeat that is under way
        self._heartbeat_due_us: int | None = None  # None until acknowledged
        self._has_failed = False
        self.is_up = False
        self.last_message_us: int | None = None
        self.unknown_types: Counter[str] = Counter()
        self.unreadable = 0
        self._readers: dict[str, Callable[[msgspec.Raw], list[ProtocolEvent]]] = {
            "Order": self._order,
            "ComplexOrder": self._complex,
            "CurrentPosition": self._position,
        }

    # What the driver tells.

    def connection_made(self, now_us: int) -> list[str]:
        self.last_message_us = now_us
        self._ack_due_us = now_us + self._ack_timeout_us
        frame = self._frame("connect", value=list(self._accounts))
        self._connect_id = self._request_id
        return [frame]

    def receive(self, frame: str | bytes, now_us: int) -> list[ProtocolEvent]:
        self.last_message_us = now_us
        try:
            wire = FRAME.decode(frame)
        except DECODE_ERRORS:
            self.unreadable += 1
            return [StreamOddity("a frame that is no message")]
        if wire.type is not None:
            return self._notification(wire)
        if is_present(wire.results):
            return self._batch(wire.results)
        if wire.status is not None or wire.action is not None:
            return self._reply(wire, now_us)
        self._count_unknown("(none)")
        return []

    def tick(self, now_us: int) -> list[str | Failed]:
        """What is due: a heartbeat to send, or the verdict that the line is dead. To be called at `next_due_us`."""
        if self._has_failed:
            return []
        if self._ack_due_us is not None and now_us >= self._ack_due_us:
            return [self._fail("heartbeat not answered" if self.is_up else "connect not answered")]
        if self.last_message_us is not None and now_us - self.last_message_us >= 2 * self._interval_us:
            return [self._fail("silent for two heartbeats")]
        if self._heartbeat_due_us is not None and now_us >= self._heartbeat_due_us:
            self._heartbeat_due_us = now_us + self._interval_us
            self._ack_due_us = now_us + self._ack_timeout_us
            frame = self._frame("heartbeat")
            self._heartbeat_id = self._request_id
            return [frame]
        return []

    def next_due_us(self) -> int | None:
        """When `tick` has something to do; None before the connection is made and after it has failed."""
        if self._has_failed or self.last_message_us is None:
            return None
        due = [self.last_message_us + 2 * self._interval_us]
        due.extend(at_us for at_us in (self._ack_due_us, self._heartbeat_due_us) if at_us is not None)
        return min(due)

    # Replies.

    def _reply(self, wire: FrameWire, now_us: int) -> list[ProtocolEvent]:
        action = wire.action if isinstance(wire.action, str) else None
        if wire.status != "ok":
            # The id may be missing from an error, so every error is about what we have under way.
            text = sanitise(wire.message, 120) if isinstance(wire.message, str) else "no reason given"
            refused = "connect" if not self.is_up else sanitise(action or "", _NAME_LIMIT) or "heartbeat"
            return [self._fail(f"{refused} refused: {text}", True)]
        if action == "connect" and not self.is_up and self._is_reply_to(wire, self._connect_id):
            if not self._covers_all(wire.value):
                return [self._fail("connect acknowledged for other accounts")]
            self.is_up = True
            self._ack_due_us = None
            self._heartbeat_due_us = now_us
            return [StreamUp(self.generation)]
        if action == "heartbeat" and self.is_up and self._is_reply_to(wire, self._heartbeat_id):
            self._ack_due_us = None
        return []

    @staticmethod
    def _is_reply_to(wire: FrameWire, request_id: int) -> bool:
        return wire.request_id is None or str(wire.request_id) == str(request_id)

    def _covers_all(self, value: Any) -> bool:
        """The list of accounts is documented, and was absent from a real reply. If it is there it must be ours."""
        if value is None:
            return True
        named = {value} if isinstance(value, str) else set(filter(_is_text, value)) if isinstance(value, list) else None
        return named is not None and named.issuperset(self._accounts)

    # Notifications.

    def _batch(self, results: msgspec.Raw) -> list[ProtocolEvent]:
        try:
            raws = RAW_LIST.decode(results)
        except DECODE_ERRORS:
            self.unreadable += 1
            return [StreamOddity("a batch that cannot be read")]
        events: list[ProtocolEvent] = []
        for raw in raws:
            try:
                wire = FRAME.decode(raw)
            except DECODE_ERRORS:
                self.unreadable += 1
                events.append(StreamOddity("a batch with something that is no message"))
                continue
            events.extend(self._notification(wire))
        return events

    def _notification(self, wire: FrameWire) -> list[ProtocolEvent]:
        if not isinstance(wire.type, str):
            self._count_unknown("(none)")
            return []
        reader = self._readers.get(wire.type)
        if reader is not None:
            return reader(wire.data)
        if wire.type not in _IGNORED:
            self._count_unknown(wire.type)
        return []

    def _order(self, raw: msgspec.Raw) -> list[ProtocolEvent]:
        try:
            message = read_order(raw)
        except ValueError:
            self.unreadable += 1
            return [StreamOddity("an order message that is no order")]
        account = self._account(message.wire.account_number)
        report = message.report
        if report is None:
            self.unreadable += 1
            return [StreamOddity("an order message without an id", account)]
        if account is None:
            self.unreadable += 1
            return [StreamOddity("an order message of no account of ours", None, report.broker_order_id)]
        events: list[ProtocolEvent] = [StreamOrder(account, report)]
        if message.damage:
            self.unreadable += 1
            names = ", ".join(dict.fromkeys(message.damage))
            events.append(StreamOddity(f"an order message with unreadable {names}", account, report.broker_order_id))
        elif report.status is BrokerStatus.UNRECOGNISED:
            events.append(StreamOddity("an order message with an unknown status", account, report.broker_order_id))
        return events

    def _complex(self, raw: msgspec.Raw) -> list[ProtocolEvent]:
        try:
            report, wire, damage = complex_report_from_raw(raw)
        except ValueError:
            self.unreadable += 1
            return [StreamOddity("a complex order message that is no complex order")]
        account = self._account(wire.account_number)
        if report is None or account is None:
            self.unreadable += 1
            return [StreamOddity("a complex order message without an id or account", account)]
        events: list[ProtocolEvent] = []
        if damage:
            self.unreadable += 1
            events = [
                StreamOddity("a component of a complex order cannot be read", account, order.broker_order_id)
                for order in report.orders
            ]
        if not {"orders", "trigger-order"}.intersection(damage):
            events.insert(0, StreamComplex(account, report))
        return events

    def _position(self, raw: msgspec.Raw) -> list[ProtocolEvent]:
        try:
            wire, _ = tolerant(PositionWire, raw)
        except ValueError:
            wire = PositionWire()
        account = self._account(wire.account_number)
        position = position_from_wire(wire)
        if position is None or account is None:
            self.unreadable += 1
            return [StreamOddity("a position message that cannot be read", account)]
        return [StreamPosition(account, position)]

    def _account(self, named: str | None) -> AccountNumber | None:
        """One of ours. A message that names none can only be about the only one there is."""
        if named is None:
            return self._accounts[0] if len(self._accounts) == 1 else None
        return AccountNumber(named) if named in self._accounts else None

    def _count_unknown(self, name: str) -> None:
        name = sanitise(name, _NAME_LIMIT)
        if name not in self.unknown_types and len(self.unknown_types) >= _MOST_NAMES:
            name = _OTHER
        self.unknown_types[name] += 1

    # Frames.

    def _frame(self, action: str, **more: Any) -> str:
        self._request_id += 1
        message: Mapping[str, Any] = {
            "action": action,
            **more,
            "auth-token": self._bearer(),
            "request-id": self._request_id,
            "source": SOURCE,
        }
        return _ENCODER.encode(message).decode()

    def _fail(self, why: str, is_token_suspect: bool = False) -> Failed:
        self._has_failed = True
        self.is_up = False
        self._ack_due_us = self._heartbeat_due_us = None
        return Failed(why, is_token_suspect)


def _is_text(value: object) -> bool:
    return isinstance(value, str)
