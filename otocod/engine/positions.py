"""The broker's positions held against our fills. They never send an order: late or failed, they would lie.

A position that is smaller than our fills say is looked at again and again, with a full listing before each look, since
most often a fill was lost. Then the bracket is told; and told that it is proved once the stream has said the same, the
broker's ledger accounts for it, or it has lasted.

One that is larger is somebody else's business, unless an entry of ours could have made it of which the stream has lost
the word: a fill after its end, or a double that a proxy has made. Only a full listing shows an order that has ended, so
a few are made.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from otocod.domain.brackets import Bracket, BracketState
from otocod.domain.events import PositionsDisagreed
from otocod.domain.ids import AccountNumber, BracketId
from otocod.engine.mailbox import Mailboxes
from otocod.engine.slots import Priority, Slots
from otocod.ports.broker import Broker, Position, ReadFailed, SettledPosition
from otocod.ports.clock import Clock

_SECOND_US = 1_000_000

# The broker's record may follow a fill by seconds: so many looks in a row must agree on what is missing.
LOOKS_BEFORE_ALARM = 3
# Full listings in which a fill is sought that would explain a position larger than ours, until it changes again.
LOOKS_FOR_FILL = 3
# A list of positions that is wrong for a while, while nothing has happened, is not believed alone for so long.
PROVED_AFTER_US = 60 * _SECOND_US
# A position that was never seen is late, for so long after its fill.
LATE_AT_MOST_US = 120 * _SECOND_US
# Until the next look at a suspicion: while it is young, and once it has been told.
LOOK_AGAIN_S = 2.0
LOOK_AGAIN_TOLD_S = 10.0


@dataclass(frozen=True, slots=True)
class _Suspicion:
    expected: tuple[tuple[str, int], ...]
    held: tuple[tuple[str, int], ...]  # of ours, by leg: what the broker's position leaves for us
    since_us: int
    looks: int = 0
    is_proved: bool = False


@dataclass(frozen=True, slots=True)
class _Excess:
    beyond: dict[str, int]  # by leg, signed: what the broker's record shows and our fills do not
    looks: int = 0


class PositionWatch:
    def __init__(self, broker: Broker, mailboxes: Mailboxes, slots: Slots, clock: Clock) -> None:
        self._broker = broker
        self._mailboxes = mailboxes
        self._slots = slots
        self._clock = clock
        self._suspicions: dict[BracketId, _Suspicion] = {}
        self._excesses: dict[BracketId, _Excess] = {}
        self._seen: set[BracketId] = set()  # whose position the broker has shown whole
        self._streamed: dict[tuple[AccountNumber, str], tuple[int, int]] = {}  # signed quantity, when

    def streamed(self, account: AccountNumber, position: Position) -> bool:
        """What the stream says of a position. Whether it is less than our fills say, or more by what an ended entry of
        ours could have filled; it may also be ahead of a fill."""
        before, _ = self._streamed.get((account, position.symbol), (0, 0))
        self._streamed[account, position.symbol] = (position.signed_quantity, self._clock.now_us())
        ours = [b for b in self._mailboxes.open_on((position.symbol,)) if b.account == account]
        expected = sum(signed_position(bracket).get(position.symbol, 0) for bracket in ours)
        if _covers(before, expected) or _covers(position.signed_quantity, expected):
            self._seen.update(bracket.bracket_id for bracket in ours)
        if expected and not _covers(position.signed_quantity, expected):
            return True
        return any(_may_have_filled(b, {position.symbol: position.signed_quantity - expected}) for b in ours)

    async def compare(self, account: AccountNumber) -> float | None:
        """Raises ReadFailed. Answers after how many seconds to look again, with a full listing before."""
        if not self._of(account):
            return None
        async with self._slots.slot(Priority.RECONCILE):
            found = {p.symbol: p.signed_quantity for p in await self._broker.positions(account)}
        settled = await self._settled(account)
        ours = self._of(account)
        if self._excesses:
            self._excesses = {name: kept for name, kept in self._excesses.items() if name in self._mailboxes.brackets}
        expected: dict[str, int] = {}
        for bracket in ours:
            for symbol, quantity in signed_position(bracket).items():
                expected[symbol] = expected.get(symbol, 0) + quantity
        pauses = [self._judge(bracket, expected, found, settled) for bracket in ours]
        return min((pause_s for pause_s in pauses if pause_s is not None), default=None)

    def _of(self, account: AccountNumber) -> list[Bracket]:
        return [b for b in self._mailboxes.open_brackets() if b.account == account and b.first_fill_us is not None]

    async def _settled(self, account: AccountNumber) -> tuple[SettledPosition, ...]:
        """The ledger since the first fill of what is suspected for long enough; nothing if it cannot be read."""
        about = [
            bracket.first_fill_us
            for bracket in self._of(account)
            if bracket.bracket_id in self._suspicions
            and self._suspicions[bracket.bracket_id].looks >= LOOKS_BEFORE_ALARM - 1
            and bracket.first_fill_us is not None
        ]
        if not about:
            return ()
        try:
            async with self._slots.slot(Priority.RECONCILE):
                return await self._broker.settled_positions(account, from_us=min(about))
        except ReadFailed:
            return ()

    def _judge(
        self,
        bracket: Bracket,
        expected: Mapping[str, int],
        found: Mapping[str, int],
        settled: Sequence[SettledPosition],
    ) -> float | None:
        own = signed_position(bracket)
        missing = [
            f"{symbol.strip()} {found.get(symbol, 0):+d} where our fills say {expected[symbol]:+d}"
            for symbol, quantity in sorted(own.items())
            if quantity and not _covers(found.get(symbol, 0), expected[symbol])
        ]
        if not missing or bracket.state is BracketState.CLOSED:
            self._suspicions.pop(bracket.bracket_id, None)
            if any(own.values()):
                self._seen.add(bracket.bracket_id)
            return None if bracket.state is BracketState.CLOSED else self._look_for_fill(bracket, expected, found)
        held = tuple((symbol, _held(found.get(symbol, 0), quantity)) for symbol, quantity in own.items())
        suspicion = self._suspect(bracket, tuple(own.items()), held)
        is_shared = any(expected[symbol] != quantity for symbol, quantity in own.items())
        own_settled = _own_settled(bracket, settled)
        is_proved = not is_shared and self._is_proved(bracket, suspicion, own_settled)
        if suspicion.looks % LOOKS_BEFORE_ALARM == 0 or (is_proved and not suspicion.is_proved):
            self._suspicions[bracket.bracket_id] = replace(suspicion, is_proved=is_proved)
            event = PositionsDisagreed(
                "; ".join(missing),
                None if is_shared else held,
                is_proved=is_proved,
                settled=tuple((row.symbol, row.how) for row in own_settled),
            )
            self._mailboxes.deliver(bracket.bracket_id, event)
        if suspicion.looks < LOOKS_BEFORE_ALARM:
            return LOOK_AGAIN_S
        return None if is_shared or is_proved else LOOK_AGAIN_TOLD_S

    def _look_for_fill(self, bracket: Bracket, expected: Mapping[str, int], found: Mapping[str, int]) -> float | None:
        symbols = [leg.symbol for leg in bracket.request.entry.legs]
        beyond = {symbol: found.get(symbol, 0) - expected[symbol] for symbol in symbols}
        old = self._excesses.pop(bracket.bracket_id, None)
        if not _may_have_filled(bracket, beyond):
            return None
        if old is None or old.beyond != beyond:
            old = _Excess(beyond)
        looks = min(old.looks + 1, LOOKS_FOR_FILL + 1)  # before the first of them no listing was made for it
        self._excesses[bracket.bracket_id] = _Excess(beyond, looks)
        return LOOK_AGAIN_S if looks <= LOOKS_FOR_FILL else None

    def _suspect(
        self, bracket: Bracket, expected: tuple[tuple[str, int], ...], held: tuple[tuple[str, int], ...]
    ) -> _Suspicion:
        old = self._suspicions.get(bracket.bracket_id)
        if old is None or (old.expected, old.held) != (expected, held):
            old = _Suspicion(expected, held, self._clock.now_us())
        new = self._suspicions[bracket.bracket_id] = replace(old, looks=old.looks + 1)
        return new

    def _is_proved(self, bracket: Bracket, suspicion: _Suspicion, settled: Sequence[SettledPosition]) -> bool:
        now_us = self._clock.now_us()
        assert bracket.first_fill_us is not None
        if suspicion.looks < LOOKS_BEFORE_ALARM:
            return False
        # Until then the list may only be late; the ledger is not, for it tells of an end.
        is_due = bracket.bracket_id in self._seen or now_us >= bracket.first_fill_us + LATE_AT_MOST_US
        if is_due and now_us >= suspicion.since_us + PROVED_AFTER_US:
            return True
        held = dict(suspicion.held)
        return all(
            _is_settled(bracket, symbol, abs(quantity) - held[symbol], settled)
            or (is_due and self._is_said_by_stream(bracket, symbol, quantity, held[symbol]))
            for symbol, quantity in suspicion.expected
            if held[symbol] != abs(quantity)
        )

    def _is_said_by_stream(self, bracket: Bracket, symbol: str, quantity: int, held: int) -> bool:
        said = self._streamed.get((bracket.account, symbol))
        assert bracket.first_fill_us is not None
        return said is not None and said[1] > bracket.first_fill_us and _held(said[0], quantity) == held


def signed_position(bracket: Bracket) -> dict[str, int]:
    """What our own fills say is open, by leg: long positive, short negative."""
    sign = {leg.symbol: 1 if leg.action.is_buy else -1 for leg in bracket.request.entry.legs}
    return {symbol: sign[symbol] * quantity for symbol, quantity in bracket.open_by_leg.items()}


def _own_settled(bracket: Bracket, settled: Sequence[SettledPosition]) -> list[SettledPosition]:
    symbols = {leg.symbol for leg in bracket.request.entry.legs}
    assert bracket.first_fill_us is not None
    return [row for row in settled if row.symbol in symbols and row.at_us >= bracket.first_fill_us]


def _is_settled(bracket: Bracket, symbol: str, gone: int, settled: Sequence[SettledPosition]) -> bool:
    """Whether the ledger accounts for `gone` beyond what was taken off the position before."""
    told = sum(row.quantity for row in settled if row.symbol == symbol)
    return told - dict(bracket.taken).get(symbol, 0) >= gone


def _may_have_filled(bracket: Bracket, beyond: Mapping[str, int]) -> bool:
    """Whether what is beyond our fills, by leg, is no more than an entry that has ended could have filled once more."""
    if not all(order.is_terminal for order in bracket.entries):
        return False  # one that works is in every listing
    return any(
        0 < beyond.get(leg.symbol, 0) * (1 if leg.action.is_buy else -1) <= leg.quantity
        for leg in bracket.request.entry.legs
    )


def _covers(found: int, expected: int) -> bool:
    """Whether a position is at least the expected one, on the same side."""
    return found * expected > 0 and abs(found) >= abs(expected)


def _held(found: int, expected: int) -> int:
    """How much of the expected position is there; 0 if what is there lies on the other side."""
    return min(abs(found), abs(expected)) if found * expected > 0 else 0
