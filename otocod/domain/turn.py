"""One decision in the making: the record as it changes, and what is asked for on the way.

The parts of `decide` take a Turn and change it; nothing of it outlives the call.
"""

from decimal import Decimal

from otocod.domain.brackets import Bracket, made_id
from otocod.domain.commands import Command, RaiseAlarm
from otocod.domain.decisions import Decision, JournalEntry
from otocod.domain.ids import ExternalIdentifier
from otocod.domain.machine import BracketEvent, OrderEvent, next_bracket_state, next_order_state
from otocod.domain.orders import Order, OrderState
from otocod.domain.quotes import SpreadQuote
from otocod.domain.records import changed
from otocod.domain.specs import OrderSpec, Role

# Ids staged for each role: one and three spares. A refusal uses an id up, an unknown outcome does too.
IDS_PER_ROLE = 4


class Turn:
    __slots__ = (
        "_wakes",
        "before",
        "bracket",
        "commands",
        "is_quote_missing",
        "journal",
        "natural",
        "now_us",
        "quote",
        "quote_fault",
        "staged_here",
        "taken_now",
    )

    def __init__(self, bracket: Bracket, now_us: int) -> None:
        self.before = bracket
        self.bracket = bracket
        self.now_us = now_us
        self.commands: list[Command] = []
        self.journal: list[JournalEntry] = []
        self.staged_here: set[ExternalIdentifier] = set()
        self.natural: Decimal | None = None  # signed; only in the turn that was told
        self.quote: SpreadQuote | None = None  # the same turn's, with what it says beside the natural price
        self.quote_fault: str | None = None  # why it may not be gone by, except to get out
        self.is_quote_missing = False
        self.taken_now: list[str] = []  # what is proved to have left the position, in words
        self._wakes: list[int] = []

    def hear_quote(self, natural: Decimal, far: Decimal | None, mark: Decimal | None) -> None:
        self.natural = natural
        far = natural if far is None else far
        mark = natural if mark is None else mark
        self.quote = SpreadQuote(natural, far, mark, self.now_us, 0, ())

    def set(self, **changes: object) -> None:
        self.bracket = self.bracket.changed(changes)

    def put(self, order: Order, **changes: object) -> Order:
        order = changed(order, changes)
        self.bracket = self.bracket.with_order(order)
        return order

    def tell(self, order: Order, event: OrderEvent, **changes: object) -> Order:
        """Moves the order's machine, and its fields with it."""
        return self.put(order, state=next_order_state(order.state, event), **changes)

    def ask(self, command: Command) -> None:
        self.commands.append(command)

    def wake(self, at_us: int) -> None:
        """The bracket wants to be looked at again at this time."""
        self._wakes.append(max(at_us, self.now_us + 1))

    def move(self, event: BracketEvent, name: str, detail: str = "") -> None:
        """Moves the bracket's machine; `name` is the journal's word for what happened."""
        before = self.bracket.state
        after = next_bracket_state(before, event)
        self.set(state=after)
        self.journal.append(JournalEntry(name, before, after, detail))

    def note(self, name: str, detail: str = "") -> None:
        state = self.bracket.state
        self.journal.append(JournalEntry(name, state, state, detail))

    def attend(self, code: str, text: str) -> None:
        """One more thing for a person to look at. Said once: the same text again changes nothing."""
        present = self.bracket.attention
        if present is not None and text in present:
            return
        self.set(attention=text if present is None else f"{present}; {text}")
        self.note("AttentionRaised", text)
        self.ask(RaiseAlarm(code, text))

    def stage(self, role: Role, count: int = IDS_PER_ROLE) -> None:
        """Makes `count` more ids for a role."""
        made = self.bracket.ids_made
        new = tuple((role, made_id(self.bracket.bracket_id, role, made + n)) for n in range(count))
        self.staged_here.update(external_identifier for _, external_identifier in new)
        self.set(staged=(*self.bracket.staged, *new), ids_made=made + count)

    def take_id(self, role: Role) -> tuple[ExternalIdentifier, bool]:
        """The next unused id of a role, and whether it must be committed before it is sent."""
        if not any(staged_role is role for staged_role, _ in self.bracket.staged):
            self.stage(role)
        for index, (staged_role, external_identifier) in enumerate(self.bracket.staged):
            if staged_role is role:
                self.set(staged=(*self.bracket.staged[:index], *self.bracket.staged[index + 1 :]))
                return external_identifier, external_identifier in self.staged_here
        raise AssertionError("an id was staged and is not there")

    def intend(self, role: Role, spec: OrderSpec, **fields: object) -> tuple[Order, bool]:
        """A new order on the next id, already IN_FLIGHT; and whether the send must wait for the commit."""
        external_identifier, must_commit = self.take_id(role)
        order = Order(
            external_identifier=external_identifier,
            role=role,
            spec=spec,
            state=next_order_state(OrderState.INTENDED, OrderEvent.SEND),
            intended_at_us=self.now_us,
        )
        return self.put(order, **fields), must_commit

    def decision(self, before: Bracket) -> Decision:
        wake_at_us = min(self._wakes) if self._wakes else None
        if self.bracket.wake_at_us != wake_at_us:
            self.set(wake_at_us=wake_at_us)
        if self.bracket != before:
            self.set(version=before.version + 1)
        return Decision(self.bracket, tuple(self.commands), tuple(self.journal))
