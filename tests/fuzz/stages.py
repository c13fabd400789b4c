"""Brackets at every stage of a life, for messages to meet."""

from functools import cache

from otocod.domain.brackets import Bracket
from otocod.domain.commands import SubmitOrder
from otocod.domain.events import CloseRequested, QuoteReported
from otocod.domain.orders import BrokerStatus
from otocod.domain.specs import Protection, Role
from tests.support.core import Core


@cache
def stages() -> dict[str, tuple[Bracket, int]]:
    """By name: the bracket, and the time then."""
    found = {}
    for name, core in _cores().items():
        found[name] = (core.bracket, core.now_us)
    return found


def _cores() -> dict[str, Core]:
    sent = Core(Protection.UNLINKED, quantity=2)
    working = Core(Protection.WATCHED, quantity=2)
    working.confirm(working.entry)
    part_filled = Core(Protection.UNLINKED, quantity=3)
    part_filled.confirm(part_filled.entry)
    part_filled.report(part_filled.entry, BrokerStatus.LIVE, 1)
    grouped = Core(Protection.NATIVE_OTOCO, quantity=2)
    grouped.confirm(*grouped.bracket.orders)
    lost = Core(Protection.UNLINKED, quantity=2)
    lost.lose(lost.entry)
    live = {mode: _live(mode) for mode in (Protection.UNLINKED, Protection.WATCHED, Protection.NATIVE_OCO)}
    shrinking = _live(Protection.UNLINKED)
    shrinking.report(shrinking.target, BrokerStatus.LIVE, 1)
    doubted = _live(Protection.UNLINKED)
    doubted.restart(clean=False)
    return {
        "sent": sent,
        "working": working,
        "part-filled": part_filled,
        "otoco": grouped,
        "lost": lost,
        "unlinked": live[Protection.UNLINKED],
        "watched": live[Protection.WATCHED],
        "oco": live[Protection.NATIVE_OCO],
        "shrinking": shrinking,
        "restarted": doubted,
        "closing": _closing(),
        "closed": _closed(),
    }


def _live(mode: Protection) -> Core:
    core = Core(mode, quantity=2)
    core.go_live()
    return core


def _closing() -> Core:
    core = _live(Protection.UNLINKED)
    core.tell(CloseRequested("operator", None))
    core.tell(QuoteReported(core.bracket.request.stop.net_price))  # type: ignore[union-attr]
    for order in core.live(Role.TARGET, Role.STOP):
        core.report(order, BrokerStatus.CANCELLED)
    for command in core.take(SubmitOrder):
        found = core.bracket.order(command.member.external_identifier)
        if found is not None and found.role is Role.CLOSE:
            core.confirm(found)
    return core


def _closed() -> Core:
    core = _live(Protection.UNLINKED)
    core.report(core.stop, BrokerStatus.FILLED, 2)
    core.report(core.target, BrokerStatus.CANCELLED)
    return core
