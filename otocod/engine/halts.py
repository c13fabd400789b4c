"""Halt in levels: what an operator, or the daemon itself, may have stopped. Exits are managed at every level.

    intake          no request is taken; entries that were accepted go on
    entries         and no entry leaves
    cancel-entries  and entries that work are cancelled; a part that filled is protected
    flatten         and every position is closed at the natural price, its exits cancelled and confirmed first

A level is a stored setting: it holds over restarts, and whatever it asks for is asked again until it is so. What it has
done to a bracket is an event of that bracket like any other, journalled with who asked.
"""

import asyncio
from collections.abc import Callable
from enum import StrEnum

from otocod.domain.brackets import Bracket, BracketState
from otocod.domain.events import CloseRequested, EntryCancelRequested, Event
from otocod.domain.ids import BracketId
from otocod.engine.gate import LastGate
from otocod.logs import get_log
from otocod.ports.clock import Clock
from otocod.ports.store import Setting, Store

log = get_log(__name__)

HALT = "halt"  # the reason; empty when nothing is halted
HALT_LEVEL = "halt_level"
HALT_BY = "halt_by"

_LOOK_EVERY_S = 1.0
# A close that did not work puts the exits back; asked again at once it would take them away again and again.
_AGAIN_AFTER_US = 60_000_000
_SLICE = 200


class HaltLevel(StrEnum):
    """In rising order; each includes those before it."""

    NONE = "none"
    INTAKE = "intake"
    ENTRIES = "entries"
    CANCEL_ENTRIES = "cancel-entries"
    FLATTEN = "flatten"

    @property
    def rank(self) -> int:
        return _RANKS[self]


_RANKS = {level: rank for rank, level in enumerate(HaltLevel)}


class Halts:
    """The level in force, and the task that sees it through. `level` and `reason` are as last told to the store."""

    def __init__(
        self,
        store: Store,
        clock: Clock,
        gate: LastGate,
        *,
        open_brackets: Callable[[], tuple[Bracket, ...]],
        tell: Callable[[BracketId, Event], Bracket | None],
        look_again: Callable[[], None],
    ) -> None:
        self._store = store
        self._clock = clock
        self._gate = gate
        self._open_brackets = open_brackets
        self._tell = tell
        self._look_again = look_again
        self._asked_us: dict[BracketId, int] = {}
        self._wake = asyncio.Event()
        self.level = HaltLevel.NONE
        self.reason: str | None = None
        self.by = ""

    @property
    def stops_intake(self) -> bool:
        return self.level.rank >= HaltLevel.INTAKE.rank

    def load(self, settings: dict[str, str]) -> None:
        """As the last run left it. A halt from before there were levels is one of entries."""
        reason = settings.get(HALT) or None
        if reason is None:
            return
        stored = settings.get(HALT_LEVEL) or HaltLevel.ENTRIES.value
        # A level of a newer release is at least the usual one.
        level = HaltLevel(stored) if stored in set(HaltLevel) else HaltLevel.ENTRIES
        self._set(HaltLevel.ENTRIES if level is HaltLevel.NONE else level, reason, settings.get(HALT_BY, ""))

    def halt(self, reason: str, level: HaltLevel = HaltLevel.ENTRIES, by: str = "otocod") -> "asyncio.Future[None]":
        """In force at once, durable when the future ends. A higher level that is in force stays, with its reason."""
        if level.rank < self.level.rank:
            return self._store.commit(Setting(HALT_LEVEL, self.level.value))
        self._set(level, reason, by)
        log.warning("halted", reason=reason, halt_level=level.value, by=by)
        self._store.commit(Setting(HALT_BY, by))
        self._store.commit(Setting(HALT_LEVEL, level.value))
        return self._store.commit(Setting(HALT, reason))

    def resume(self, by: str = "otocod") -> "asyncio.Future[None]":
        self._set(HaltLevel.NONE, None, "")
        self._asked_us.clear()
        log.info("resumed", by=by)
        self._look_again()
        self._store.commit(Setting(HALT_LEVEL, HaltLevel.NONE.value))
        return self._store.commit(Setting(HALT, ""))

    def _set(self, level: HaltLevel, reason: str | None, by: str) -> None:
        self.level = level
        self.reason = reason
        self.by = by
        self._gate.is_halted = level.rank >= HaltLevel.ENTRIES.rank
        self._wake.set()

    async def run(self) -> None:
        """For life, from ready on: cancels and closes as the level says, those that turn up later too."""
        while True:
            self._wake.clear()
            if self.level.rank < HaltLevel.CANCEL_ENTRIES.rank:
                await self._wake.wait()
                continue
            await self._apply()
            await asyncio.sleep(_LOOK_EVERY_S)

    async def _apply(self) -> None:
        brackets = self._open_brackets()
        for start in range(0, len(brackets), _SLICE):
            for bracket in brackets[start : start + _SLICE]:
                self._apply_to(bracket)
            # Fills and answers first: there may be thousands of brackets.
            await asyncio.sleep(0)

    def _apply_to(self, bracket: Bracket) -> None:
        now_us = self._clock.now_us()
        event = wanted(bracket, self.level, self.by)
        if event is None or now_us - self._asked_us.get(bracket.bracket_id, -_AGAIN_AFTER_US) < _AGAIN_AFTER_US:
            return
        if isinstance(event, CloseRequested):
            self._asked_us[bracket.bracket_id] = now_us
        log.warning(
            "halt_applied", bracket_id=bracket.bracket_id, halt_level=self.level.value, asked=type(event).__name__
        )
        self._tell(bracket.bracket_id, event)


def wanted(bracket: Bracket, level: HaltLevel, by: str) -> Event | None:
    """What a level asks of a bracket that it has not been asked yet."""
    if level.rank < HaltLevel.CANCEL_ENTRIES.rank:
        return None
    is_entry_working = any(not entry.is_terminal for entry in bracket.entries)
    if is_entry_working and not bracket.entry_cancel_asked and bracket.state is BracketState.PENDING_ENTRY:
        return EntryCancelRequested(f"halt by {by}")
    has_position = bracket.state in (BracketState.ENTRY_FILLED, BracketState.EXITS_LIVE) and bracket.open_units > 0
    if level is HaltLevel.FLATTEN and has_position and bracket.close is None:
        return CloseRequested(f"halt by {by}", None)
    if is_entry_working and not bracket.entry_cancel_asked:
        return EntryCancelRequested(f"halt by {by}")
    return None
