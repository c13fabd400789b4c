"""What must not last: looked for on the clock, apart from the decisions that should have ended it.

The core raises its own alarms; this is the second pair of eyes, which needs no event to look, and covers what the core
cannot know of: a dead stream, a listing that never succeeds, a bracket that a bug keeps from deciding. Each thing is
raised once as it begins, and again only after it has been over.
"""

import asyncio
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime

from otocod.domain.brackets import Bracket, BracketState
from otocod.domain.ids import BracketId
from otocod.domain.orders import OrderState
from otocod.domain.specs import Role
from otocod.domain.timing import ENTRY_WINDOW_US, EXIT_WINDOW_US, STREAMLESS_WINDOW_US
from otocod.engine.halts import HaltLevel
from otocod.engine.mailbox import Mailboxes
from otocod.engine.quotewatch import DELAYED_LEVEL
from otocod.engine.reconciler import CLOCK_DRIFT_US, IDLE_INTERVAL_S, Reconciler
from otocod.engine.supervisor import Supervisor
from otocod.logs import masked_account
from otocod.ports.admin import JsonObject
from otocod.ports.broker import Streamer
from otocod.ports.clock import Clock
from otocod.ports.notifier import Notifier
from otocod.ports.store import Alarm
from otocod.questions import answers

SECOND_US = 1_000_000
_LOOK_EVERY_S = 2.0
_SLICE = 100
# What the core is given beyond its own window before somebody else says so.
_GRACE_US = 5 * SECOND_US
_STALE_INTERVALS = 5


@dataclass(frozen=True, slots=True)
class Trouble:
    code: str
    text: str
    bracket_id: BracketId | None = None

    @property
    def key(self) -> tuple[str, BracketId | None]:
        return self.code, self.bracket_id


class Health:
    def __init__(
        self,
        clock: Clock,
        notifier: Notifier,
        mailboxes: Mailboxes,
        streamer: Streamer,
        reconciler: Reconciler,
        *,
        is_ready: Callable[[], bool],
        login_refused: Callable[[], str | None],
        streamer_dead_s: float,
    ) -> None:
        self._clock = clock
        self._notifier = notifier
        self._mailboxes = mailboxes
        self._streamer = streamer
        self._reconciler = reconciler
        self._is_ready = is_ready
        self._login_refused = login_refused
        self._streamer_dead_us = int(streamer_dead_s * SECOND_US)
        self._streamer_down_since_us: int | None = None
        self._going_on: set[tuple[str, BracketId | None]] = set()

    async def run(self) -> None:
        """For life."""
        while True:
            await asyncio.sleep(_LOOK_EVERY_S)
            await self.look()

    async def look(self) -> None:
        now_us = self._clock.now_us()
        found = list(self._of_daemon(now_us))
        brackets = tuple(self._mailboxes.brackets.values())
        for start in range(0, len(brackets), _SLICE):
            for bracket in brackets[start : start + _SLICE]:
                found.extend(troubles_of(bracket, now_us))
            # Fills and answers first: there may be thousands of brackets.
            await asyncio.sleep(0)
        for trouble in found:
            if trouble.key not in self._going_on:
                self._notifier.alarm(Alarm(now_us, trouble.code, trouble.text, trouble.bracket_id))
        self._going_on = {trouble.key for trouble in found}

    def _of_daemon(self, now_us: int) -> Iterator[Trouble]:
        if self._streamer.is_healthy:
            self._streamer_down_since_us = None
        elif self._streamer_down_since_us is None:
            self._streamer_down_since_us = now_us
        down_us = 0 if self._streamer_down_since_us is None else now_us - self._streamer_down_since_us
        if down_us >= self._streamer_dead_us:
            yield Trouble(
                "streamer_dead",
                f"the account streamer has been away for {down_us // SECOND_US} s: fills are noticed by REST alone,"
                f" every {self._reconciler.interval_s:g} s",
            )
        if not self._is_ready():
            return  # what follows is the start's own business, and it says what it waits for
        refused = self._login_refused()
        if refused is not None:
            yield Trouble("login_refused", refused)
        last_us = self._reconciler.last_completed_us
        stale_us = int(_STALE_INTERVALS * max(self._reconciler.interval_s, IDLE_INTERVAL_S) * SECOND_US)
        if last_us is not None and now_us - last_us > stale_us:
            stale_s = (now_us - last_us) // SECOND_US
            yield Trouble("reconcile_stale", f"no comparison with the broker has succeeded for {stale_s} s")
        drift_us = self._reconciler.clock_offset_us
        # The broker's clock is read to the second and late by the way of the answer.
        if abs(drift_us) > CLOCK_DRIFT_US:
            yield Trouble("clock_drift", f"the broker's clock is {drift_us / SECOND_US:+.0f} s from this machine's")


def troubles_of(bracket: Bracket, now_us: int) -> Iterator[Trouble]:
    """What is wrong with one bracket now, whatever it has said itself."""
    if bracket.is_frozen and bracket.state is not BracketState.CLOSED:
        why = f": {bracket.attention}" if bracket.attention else ""
        yield Trouble("frozen", f"frozen, no new orders but protection{why}", bracket.bracket_id)
    since_us, limit_us = bracket.unprotected_since_us, bracket.policy.unprotected_limit_us
    if since_us is not None and bracket.exits_allowed_us is not None:
        from_us = max(since_us, bracket.exits_allowed_us)
        # As the core says it, so that the same is not sent twice.
        if now_us - from_us > limit_us + SECOND_US:
            text = f"unprotected for longer than {limit_us / SECOND_US:g} s"
            yield Trouble("unprotected_long", text, bracket.bracket_id)
    for order in bracket.orders:
        if order.state is OrderState.UNKNOWN and order.unknown_since_us is not None:
            is_entry = order.role is Role.ENTRY
            window_us = ENTRY_WINDOW_US if is_entry else max(EXIT_WINDOW_US, STREAMLESS_WINDOW_US)
            if now_us - order.unknown_since_us > window_us + _GRACE_US:
                text = (
                    f"whether the {order.role} order {order.external_identifier} is at the broker is not known after"
                    f" {window_us // SECOND_US} s"
                )
                yield Trouble("unknown_outcome", text, bracket.bracket_id)


def _quote_check(supervisor: Supervisor, now_us: int) -> JsonObject:
    health = None if supervisor.quotes is None else supervisor.quotes.health
    if health is None or not health.wanted:
        return _check("quote stream", True, "none wanted")
    heard_us = health.feed.heard_us
    heard = (
        "nothing heard yet" if heard_us is None else f"last sign of life {(now_us - heard_us) / SECOND_US:.1f} s ago"
    )
    state = "up" if health.feed.is_up else f"down ({health.why_down})"
    told = f"{state}, {heard}, {health.quoted} of {health.wanted} symbols quoted"
    if health.unmapped:
        told += f", no streamer symbol for {', '.join(symbol.strip() for symbol in health.unmapped)}"
    if health.level == DELAYED_LEVEL:
        return _check(
            "quote stream", False, f"{told}; delayed by minutes", "the sandbox has no live quotes: watch nothing there"
        )
    is_well = health.feed.is_up and health.quoted == health.wanted
    return _check("quote stream", is_well, told, "it reconnects by itself; exits that rest go on without it")


def engine_checks(supervisor: Supervisor) -> Iterator[JsonObject]:
    """The engine's part of `doctor`: each with what to do."""
    now_us = supervisor.clock.now_us()
    waiting = f"waiting for {supervisor.waiting_for}"
    yield _check("ready", supervisor.is_ready, "reconciled" if supervisor.is_ready else waiting, "see `otocod status`")
    heard_us = supervisor.streamer.last_message_us
    heard = "nothing heard yet" if heard_us is None else f"last message {(now_us - heard_us) / SECOND_US:.1f} s ago"
    is_up = supervisor.streamer.is_healthy
    yield _check(
        "streamer",
        is_up,
        f"{'healthy' if is_up else 'silent or down'}, {heard}",
        "it reconnects by itself, REST goes on; if it stays: the broker's status page, then the firewall",
    )
    yield _quote_check(supervisor, now_us)
    drift_s = supervisor.reconciler.clock_offset_us / SECOND_US
    yield _check(
        "clock drift",
        abs(drift_s) * SECOND_US <= CLOCK_DRIFT_US,
        f"the broker's clock is {drift_s:+.0f} s from ours, by its Date header",
        "enable NTP: timedatectl set-ntp true",
    )
    yield from _capability_checks(supervisor)
    level = supervisor.halts.level
    yield _check(
        "halt",
        level is HaltLevel.NONE,
        "nothing is halted" if level is HaltLevel.NONE else f"{level.value}: {supervisor.halt_reason}",
        "when the reason is gone: otocod resume",
    )


def _capability_check(supervisor: Supervisor) -> JsonObject:
    records = supervisor.capabilities.records.values()
    if not records:
        return _check("capabilities", True, "nothing proved yet: the first request of each product asks the broker")
    accepted = sorted({f"{each.product}: {each.protection.value}" for each in records if each.is_accepted})
    if not accepted:
        remedy = "the broker refuses every native group: see `otocod doctor --json` and the runbook, exit_alone"
        return _check("capabilities", False, "no mode of protection was ever accepted", remedy)
    oldest_us = min(each.at_us for each in records)
    days = (supervisor.clock.now_us() - oldest_us) // (24 * 3600 * SECOND_US)
    return _check("capabilities", True, f"{'; '.join(accepted)}; the oldest proof is {days} days old")


def _capability_checks(supervisor: Supervisor) -> Iterator[JsonObject]:
    yield _capability_check(supervisor)
    for each in sorted(supervisor.capabilities.records.values(), key=lambda record: (record.product, record.at_us)):
        at = datetime.fromtimestamp(each.at_us // SECOND_US, UTC).strftime("%Y-%m-%d %H:%M UTC")
        verdict = "accepted" if each.is_accepted else "refused"
        account = masked_account(each.account)
        yield _check(
            "capability", True, f"{account}, {each.product}, {each.protection}: {verdict} at {at} ({each.evidence})"
        )
    yield _check("open questions", True, answers(supervisor.capabilities.records.values()))


def _check(name: str, is_ok: bool, detail: str, remedy: str = "") -> JsonObject:
    return {"check": name, "ok": is_ok, "detail": detail, "remedy": "" if is_ok else remedy}
