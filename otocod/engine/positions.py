"""The broker's positions held against our fills. They never move an order: late or failed, they would lie."""

from collections.abc import Mapping

from otocod.domain.brackets import Bracket, BracketState
from otocod.domain.events import PositionsDisagreed
from otocod.domain.ids import AccountNumber, BracketId
from otocod.engine.mailbox import Mailboxes
from otocod.engine.slots import Priority, Slots
from otocod.ports.broker import Broker

# The broker's record may follow a fill by seconds: so many looks in a row must agree on what is missing.
LOOKS_BEFORE_ALARM = 3


class PositionWatch:
    def __init__(self, broker: Broker, mailboxes: Mailboxes, slots: Slots) -> None:
        self._broker = broker
        self._mailboxes = mailboxes
        self._slots = slots
        self._suspicions: dict[BracketId, tuple[int, str, int]] = {}  # version, what, looks

    async def compare(self, account: AccountNumber) -> None:
        """Raises ReadFailed. A position that is larger than ours is somebody else's business."""
        ours = [b for b in self._mailboxes.open_brackets() if b.account == account and b.first_fill_us is not None]
        if not ours:
            return
        async with self._slots.slot(Priority.RECONCILE):
            found = {p.symbol: p.signed_quantity for p in await self._broker.positions(account)}
        expected: dict[str, int] = {}
        for bracket in ours:
            for symbol, quantity in signed_position(bracket).items():
                expected[symbol] = expected.get(symbol, 0) + quantity
        for bracket in ours:
            self._judge(bracket, expected, found)

    def _judge(self, bracket: Bracket, expected: Mapping[str, int], found: Mapping[str, int]) -> None:
        missing = [
            f"{symbol.strip()} {found.get(symbol, 0):+d} where our fills say {expected[symbol]:+d}"
            for symbol, quantity in sorted(signed_position(bracket).items())
            if quantity and not _covers(found.get(symbol, 0), expected[symbol])
        ]
        if not missing or bracket.state is BracketState.CLOSED:
            self._suspicions.pop(bracket.bracket_id, None)
            return
        text = "; ".join(missing)
        version, known, looks = self._suspicions.get(bracket.bracket_id, (bracket.version, text, 0))
        looks = looks + 1 if (version, known) == (bracket.version, text) else 1
        self._suspicions[bracket.bracket_id] = (bracket.version, text, looks)
        if looks == LOOKS_BEFORE_ALARM:
            self._mailboxes.deliver(bracket.bracket_id, PositionsDisagreed(text))


def signed_position(bracket: Bracket) -> dict[str, int]:
    """What our own fills say is open, by leg: long positive, short negative."""
    sign = {leg.symbol: 1 if leg.action.is_buy else -1 for leg in bracket.request.entry.legs}
    return {symbol: sign[symbol] * quantity for symbol, quantity in bracket.open_by_leg.items()}


def _covers(found: int, expected: int) -> bool:
    """Whether a position is at least the expected one, on the same side."""
    return found * expected > 0 and abs(found) >= abs(expected)
