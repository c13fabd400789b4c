"""The last gate between the core and the socket. It shares no code with `decide`: it looks at the order that is about
to leave, not at the reasons for it. A violation is a bug of ours; the order does not leave.
"""

from collections import deque
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from decimal import Decimal

from otocod.domain.brackets import Bracket
from otocod.domain.commands import Member
from otocod.domain.ids import AccountNumber, ExternalIdentifier
from otocod.domain.specs import Role

MAX_LEGS = 4
MAX_QUANTITY = 10_000  # contracts or shares on one leg; far above any bracket, far below a runaway
MAX_NET_PRICE = Decimal(100_000)

_MINUTE_US = 60_000_000
_SESSION_US = 24 * 3600 * 1_000_000
_SPACING_US = 1_000_000


@dataclass(frozen=True, slots=True)
class Limits:
    accounts: frozenset[AccountNumber]
    orders_per_minute: int
    orders_per_bracket: int


def places_of(orders: int) -> int:
    """What an entry takes of the ceiling: for a group one more, since a refused one is followed by the entry alone."""
    return orders + 1 if orders > 1 else orders


class LastGate:
    def __init__(self, limits: Limits) -> None:
        self.limits = limits
        self.is_halted = False
        self.posted_count = 0  # since the start
        self._posted: set[ExternalIdentifier] = set()
        self._sent_us: deque[int] = deque()
        self._sent_by_bracket: dict[str, deque[int]] = {}
        self._spaced_until_us = 0

    def has_room(self, now_us: int, promised: int = 0, wanted: int = 1) -> bool:
        """Whether `wanted` orders of an entry may leave under the ceiling now, once the `promised` ones that are being
        committed have. More than the ceiling allows at all leave when nothing else has.

        Protection is never asked.
        """
        while self._sent_us and self._sent_us[0] <= now_us - _MINUTE_US:
            self._sent_us.popleft()
        ceiling = self.limits.orders_per_minute
        return len(self._sent_us) + promised + min(wanted, ceiling) <= ceiling

    def check(self, bracket: Bracket, members: Iterable[Member]) -> tuple[str, ...]:
        """Reasons why these must not leave; empty if they may."""
        found: list[str] = []
        if bracket.account not in self.limits.accounts:
            found.append("the account is not configured")
        for member in members:
            found.extend(self._check_member(bracket, member))
        return tuple(found)

    def _check_member(self, bracket: Bracket, member: Member) -> list[str]:
        found: list[str] = []
        spec = member.spec
        order = bracket.order(member.external_identifier)
        if member.external_identifier in self._posted:
            found.append("its identifier was posted before")
        if order is None or order.spec != spec or order.role is not member.role:
            found.append("its body is not what was decided")
        if not 1 <= len(spec.legs) <= MAX_LEGS:
            found.append(f"it has {len(spec.legs)} legs")
        if any(not 1 <= leg.quantity <= MAX_QUANTITY for leg in spec.legs):
            found.append("a leg's quantity is out of bounds")
        if spec.net_price is not None and abs(spec.net_price) > MAX_NET_PRICE:
            found.append("its price is out of bounds")
        if member.role is Role.ENTRY and self.is_halted:
            found.append("new entries are halted")
        if member.role is not Role.ENTRY:
            found.extend(self._check_exit(bracket, member))
        return found

    def _check_exit(self, bracket: Bracket, member: Member) -> list[str]:
        found: list[str] = []
        if not member.spec.strict:
            found.append("an exit without strict position effect would open a position if there is none")
        opened = {leg.symbol: leg.quantity for leg in bracket.request.entry.legs}
        buys = {leg.symbol: leg.action.is_buy for leg in bracket.request.entry.legs}
        is_with_entry = any(
            entry.group is not None and entry.group == _group(bracket, member) for entry in bracket.entries
        )
        for leg in member.spec.legs:
            bound = opened.get(leg.symbol, 0)
            if not is_with_entry:
                filled = sum(order.filled(leg.symbol) for order in bracket.entries)
                gone = sum(order.filled(leg.symbol) for order in bracket.exits)
                is_open = filled - gone + sum(order.filled(leg.symbol) for order in bracket.surplus_closes)
                # A close on the entry's own side trades a surplus away.
                is_of_surplus = member.role is Role.CLOSE and buys.get(leg.symbol) is leg.action.is_buy
                bound = -is_open if is_of_surplus else min(bound, is_open)
            if leg.quantity > bound:
                found.append(f"it closes {leg.quantity} of {leg.symbol.strip()}, of which {bound} are open")
            if leg.action.is_opening:
                found.append(f"its leg {leg.symbol.strip()} opens")
        return found

    def note_posted(self, bracket: Bracket, members: Sequence[Member], now_us: int) -> None:
        """Called when the request is about to be written; `note_not_sent` takes it back."""
        names = [member.external_identifier for member in members]
        self._posted.update(names)
        self.posted_count += len(names)
        self._sent_us.extend([now_us] * self._places(bracket, members))
        self._sent_by_bracket.setdefault(bracket.bracket_id, deque()).extend([now_us] * len(names))

    def _places(self, bracket: Bracket, members: Sequence[Member]) -> int:
        if members[0].role is not Role.ENTRY:
            return len(members)
        # A second entry is that of a group that was refused: its place is kept since the group was sent.
        return 0 if len(bracket.entries) > 1 else places_of(len(members))

    def note_not_sent(self, members: Iterable[Member]) -> None:
        for member in members:
            self._posted.discard(member.external_identifier)

    def spacing_s(self, bracket: Bracket, members: Iterable[Member], now_us: int) -> float:
        """How long an order beyond the ceilings has to wait: each a second behind the one before.

        Protection is never dropped for a ceiling, only spaced; entries are held back before they are accepted.
        """
        if any(member.role is Role.ENTRY for member in members):
            return 0.0
        sent = self._sent_by_bracket.get(bracket.bracket_id, deque())
        while sent and sent[0] <= now_us - _SESSION_US:
            sent.popleft()
        if len(sent) < self.limits.orders_per_bracket and self.has_room(now_us):
            return 0.0
        self._spaced_until_us = max(now_us, self._spaced_until_us) + _SPACING_US
        return (self._spaced_until_us - now_us) / 1_000_000


def _group(bracket: Bracket, member: Member) -> ExternalIdentifier | None:
    order = bracket.order(member.external_identifier)
    return None if order is None else order.group
