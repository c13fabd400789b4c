"""What a bracket can ask of the shell. Imperative, frozen.

`after_commit`: the command may leave only once the decision that made it is on disk. Everything else leaves at
once and is committed beside it: the ids of exits were committed with the acceptance, and a cancel of an exit whose
sibling has filled needs no memory. What must wait: an entry (the acceptance), ids staged by this very decision, a
send that rests on the verdict "absent", and every cancel that takes protection away.
"""

from dataclasses import dataclass

from otocod.domain.ids import BrokerOrderId, ComplexOrderId, ExternalIdentifier
from otocod.domain.specs import Leg, OrderSpec, Protection, Role


@dataclass(frozen=True, slots=True)
class Member:
    external_identifier: ExternalIdentifier
    role: Role
    spec: OrderSpec


@dataclass(frozen=True, slots=True)
class SubmitOrder:
    member: Member
    after_commit: bool = False


@dataclass(frozen=True, slots=True)
class SubmitComplex:
    """An OTOCO if the first member is an entry, else an OCO. Targets stand before stops, as the broker lists them."""

    members: tuple[Member, ...]
    after_commit: bool = False

    @property
    def kind(self) -> str:
        return "OTOCO" if self.members[0].role is Role.ENTRY else "OCO"


@dataclass(frozen=True, slots=True)
class ReplaceOrder:
    """Cancel-replace at the broker: `member` takes the place of `broker_order_id`, which a fill may forestall."""

    broker_order_id: BrokerOrderId
    member: Member
    after_commit: bool = True


@dataclass(frozen=True, slots=True)
class CancelOrder:
    external_identifier: ExternalIdentifier
    broker_order_id: BrokerOrderId
    after_commit: bool = False


@dataclass(frozen=True, slots=True)
class CancelComplex:
    """Cancels every component that is not terminal; a component's own id is the wrong thing to cancel."""

    complex_order_id: ComplexOrderId
    external_identifiers: tuple[ExternalIdentifier, ...]
    after_commit: bool = False


@dataclass(frozen=True, slots=True)
class ReadOrder:
    external_identifier: ExternalIdentifier
    broker_order_id: BrokerOrderId
    after_commit: bool = False


@dataclass(frozen=True, slots=True)
class ReadComplex:
    complex_order_id: ComplexOrderId
    after_commit: bool = False


@dataclass(frozen=True, slots=True)
class Sweep:
    """A complete listing is wanted, reaching back at least to `from_us` by the broker's clock."""

    from_us: int
    after_commit: bool = False


@dataclass(frozen=True, slots=True)
class FetchQuote:
    """The natural price at which these legs, one unit of them, would trade now."""

    legs: tuple[Leg, ...]
    after_commit: bool = False


@dataclass(frozen=True, slots=True)
class RaiseAlarm:
    code: str  # from the list of alarms in errors.py
    text: str
    after_commit: bool = False


@dataclass(frozen=True, slots=True)
class LearnCapability:
    """What the broker's answer proved about a mode of protection, for this account and product."""

    protection: Protection
    is_accepted: bool
    evidence: str
    after_commit: bool = False


Command = (
    SubmitOrder
    | SubmitComplex
    | ReplaceOrder
    | CancelOrder
    | CancelComplex
    | ReadOrder
    | ReadComplex
    | Sweep
    | FetchQuote
    | RaiseAlarm
    | LearnCapability
)
