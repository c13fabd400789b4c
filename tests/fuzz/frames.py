"""Frames of the account streamer: from the text of a frame, through the protocol and the join, to a decision.

Nothing that a frame can hold may raise, print, or send an entry; what is known never shrinks by it, and is the same
when the frame comes twice. Each frame meets a bracket at a stage of its life (`stages`), or a connection that is
still waiting for its acknowledgement (`handshake`).
"""

from random import Random
from typing import Any

from otocod.adapters.tastytrade.protocol import AccountStreamerProtocol, Failed
from otocod.domain.brackets import Bracket
from otocod.domain.commands import Command, Member, ReplaceOrder, SubmitComplex, SubmitOrder
from otocod.domain.decide import decide
from otocod.domain.decisions import Decision
from otocod.domain.events import ComplexReported, Event, OrderReported
from otocod.domain.invariants import violations_of
from otocod.domain.orders import BrokerStatus, Order, OrderReport
from otocod.domain.reconcile import attribute
from otocod.domain.specs import Role
from otocod.ports.broker import StreamComplex, StreamOddity, StreamOrder, StreamPosition, StreamUp
from tests.fuzz.harness import Case, paths_of
from tests.fuzz.mutation import deep_text, dumped, hostile_value, mutate_bytes, mutate_text, mutate_tree, noise
from tests.fuzz.stages import stages
from tests.fuzz.wire_words import WORDS, order_message
from tests.support.desk import ACCOUNT

_HANDSHAKE = "handshake"
_ACK = '{"status":"ok","action":"connect","web-socket-session-id":"1","request-id":1}'


class Frames:
    def __init__(self) -> None:
        self._stages = stages()
        self._names = sorted(self._stages)

    def case(self, rng: Random) -> Case:
        if rng.random() < 0.05:
            return Case(_HANDSHAKE, self._damaged(rng, _reply(rng)))
        stage = rng.choice(self._names)
        count = rng.choice((1, 1, 1, 1, 1, 2, 3))
        return Case(stage, b"\n".join(self._frame(rng, self._stages[stage][0]) for _ in range(count)))

    def _frame(self, rng: Random, bracket: Bracket) -> bytes:
        choice = rng.random()
        if choice < 0.02:
            return noise(rng)
        if choice < 0.022:
            return deep_text(rng).encode()
        if choice < 0.72:
            order = rng.choice(bracket.orders)
            number = order.broker_order_id or str(100 + bracket.orders.index(order))
            known = number if rng.random() < 0.85 else rng.choice(("100", "101", "300"))
            message: Any = {"type": "Order", "data": order_message(rng, order, known), "timestamp": 1795446072572}
        elif choice < 0.86:
            message = {"type": "ComplexOrder", "data": _container(rng, bracket)}
        elif choice < 0.92:
            position = {"account-number": ACCOUNT, "symbol": rng.choice(WORDS), "quantity": "2"}
            message = {"type": "CurrentPosition", "data": position | {"quantity-direction": "Short"}}
        else:
            message = _reply(rng)
        if rng.random() < 0.05:
            message = {"results": [message] * rng.choice((1, 2))}
        return self._damaged(rng, message)

    @staticmethod
    def _damaged(rng: Random, message: Any) -> bytes:
        choice = rng.random()
        if choice < 0.3:
            return dumped(message).encode()
        if choice < 0.8:
            paths = paths_of(message)
            for _ in range(rng.choice((1, 1, 2, 3))):
                mutate_tree(rng, message, paths, WORDS)
            return dumped(message).encode()
        if choice < 0.93:
            return mutate_text(rng, dumped(message)).encode("utf-8", "surrogatepass")
        return mutate_bytes(rng, dumped(message).encode())

    def check(self, case: Case) -> str:
        protocol = AccountStreamerProtocol([ACCOUNT], bearer=lambda: "Bearer canary-token", generation=1)
        protocol.connection_made(0)
        if case.kind == _HANDSHAKE:
            return _check_handshake(protocol, case.content)
        protocol.receive(_ACK, 1)
        assert protocol.is_up
        bracket, now_us = self._stages[case.kind]
        word = "nothing"
        for line in case.content.split(b"\n"):
            for event in protocol.receive(_text(line), 2):
                word = _check_event(event) or word
                if isinstance(event, StreamOrder):
                    bracket = _deliver(bracket, event.report, now_us)
                elif isinstance(event, StreamComplex):
                    bracket = _told(bracket, ComplexReported(event.report), now_us).bracket
        assert len(protocol.unknown_types) <= 51
        _check_ticks(protocol)
        return word

    def close(self) -> None:
        pass


def _text(line: bytes) -> str | bytes:
    """The adapter hands over bytes as they came; the protocol takes texts as well."""
    try:
        return line.decode() if len(line) % 4 == 0 else line
    except UnicodeDecodeError:
        return line


def _reply(rng: Random) -> dict[str, Any]:
    reply: dict[str, Any] = {
        "status": rng.choice(("ok", "error")),
        "action": rng.choice(("connect", "heartbeat", "subscribe")),
        "web-socket-session-id": "1",
        "request-id": rng.choice((1, 2, "1")),
    }
    if rng.random() < 0.5:
        reply["value"] = rng.choice(([ACCOUNT], ACCOUNT, [], ["5WT99999"], hostile_value(rng, WORDS)))
    if reply["status"] == "error":
        reply["message"] = rng.choice(("failed", "connect-not-completed", hostile_value(rng, WORDS)))
    return reply


def _container(rng: Random, bracket: Bracket) -> dict[str, Any]:
    orders = [
        order_message(rng, order, order.broker_order_id or str(100 + number))
        for number, order in enumerate(bracket.orders)
    ]
    container: dict[str, Any] = {"id": 9001, "account-number": ACCOUNT, "type": rng.choice(("OCO", "OTOCO", "OTO"))}
    if rng.random() < 0.5:
        container["trigger-order"] = orders.pop(0)
    return container | {"orders": orders}


def _check_handshake(protocol: AccountStreamerProtocol, content: bytes) -> str:
    events = [event for line in content.split(b"\n") for event in protocol.receive(_text(line), 1)]
    for event in events:
        _check_event(event)
    # Nothing but an ok counts as one.
    assert not protocol.is_up or b"ok" in content or b"\\u" in content, "up without an ok"
    assert protocol.is_up == any(isinstance(event, StreamUp) for event in events) or any(
        isinstance(event, Failed) for event in events
    )
    _check_ticks(protocol)
    return "up" if protocol.is_up else "not up"


def _check_ticks(protocol: AccountStreamerProtocol) -> None:
    for _ in range(4):
        due_us = protocol.next_due_us()
        if due_us is None:
            return
        for frame in protocol.tick(due_us):
            assert isinstance(frame, str | Failed)
    assert protocol.next_due_us() is None or protocol.is_up


def _check_event(event: object) -> str | None:
    match event:
        case StreamOrder(account, report):
            assert account == ACCOUNT
            _check_report(report)
            return "order"
        case StreamComplex(account, report):
            assert account == ACCOUNT
            for order in report.orders:
                _check_report(order)
            assert report.kind.isprintable()
            return "complex"
        case StreamPosition(account, position):
            assert account == ACCOUNT
            assert position.symbol.isprintable() and abs(position.signed_quantity) < 10**12
            return "position"
        case StreamOddity(what):
            assert what.isprintable() and "canary" not in what
            return "oddity"
        case Failed(why):
            assert why.isprintable() and "canary" not in why
            return "failed"
    return None


def _check_report(report: OrderReport) -> None:
    texts: tuple[str | None, ...] = (report.broker_order_id, report.status_text, report.source)
    texts += (report.external_identifier, report.reject_reason, report.cancelled_by)
    texts += (report.complex_order_id, report.replaces, report.replaced_by)
    assert all(text is None or (text.isprintable() and len(text) <= 500) for text in texts)
    assert report.net_price is None or report.net_price.is_finite()
    for leg in report.legs:
        assert leg.symbol.isprintable() and 0 <= leg.quantity < 10**12
        assert leg.remaining is None or 0 <= leg.remaining < 10**12
        assert all(fill.fill_id.isprintable() and 0 <= fill.quantity < 10**12 for fill in leg.fills)


def is_guessed(order: Order) -> bool:
    """Filled by a status alone, before a message has shown the legs: what was asked for, until the broker says less."""
    legs = order.spec.legs
    return any(v.status is BrokerStatus.FILLED and not all(v.has_leg(leg.symbol) for leg in legs) for v in order.views)


def has_shared_fill(order: Order) -> bool:
    """Two broker orders name one fill: what counted twice while only one of them had named it counts once now."""
    named = [fill.fill_id for view in order.views for leg in view.legs for fill in leg.fills]
    return len(named) > len(set(named))


def _deliver(bracket: Bracket, report: OrderReport, now_us: int) -> Bracket:
    """As the router and the mailbox do it. A message that is nobody's changes nothing and goes nowhere."""
    name = attribute(bracket, report)
    if name is None:
        return bracket
    before = bracket.order(name)
    event = OrderReported(report, name)
    after = _told(bracket, event, now_us).bracket
    learned = after.order(name)
    if before is not None:
        assert learned is not None
        for leg in before.spec.legs if not is_guessed(before) else ():
            is_less = learned.filled(leg.symbol) < before.filled(leg.symbol)
            assert not is_less or has_shared_fill(learned), "a message took fills away"
        gone = {fill.fill_id for _, fill in before.fills} - {fill.fill_id for _, fill in learned.fills}
        assert not gone, f"a message took the fills {gone} away"
        if len(before.views) % 2 == 0:  # half of them: it costs three joins
            once = before.learn(report)
            assert once.learn(report) == once
    return after


def _told(bracket: Bracket, event: Event, now_us: int) -> Decision:
    decision = decide(bracket, event, now_us)
    assert violations_of(decision.bracket) == (), violations_of(decision.bracket)
    for command in decision.commands:
        _check_command(decision.bracket, command)
    return decision


def _check_command(bracket: Bracket, command: Command) -> None:
    members: tuple[Member, ...]
    if isinstance(command, SubmitOrder | ReplaceOrder):
        members = (command.member,)
    elif isinstance(command, SubmitComplex):
        members = command.members
    else:
        return
    for member in members:
        assert member.role is not Role.ENTRY, "a message sent an entry"
        assert member.spec.strict and not any(leg.action.is_opening for leg in member.spec.legs)
        for leg, asked in zip(member.spec.legs, bracket.request.entry.legs, strict=True):
            assert 0 < leg.quantity <= asked.quantity, "an exit larger than the entry"
            assert leg.quantity <= bracket.open_by_leg[leg.symbol], "an exit larger than the position"
