"""From a request to a bracket: its ids, its ladder, its entry on the way."""

from otocod.domain.brackets import STAGED_ROLES, Bracket, BracketState, Policy
from otocod.domain.commands import Member, SubmitComplex, SubmitOrder
from otocod.domain.decisions import Decision, JournalEntry
from otocod.domain.exits import exit_specs
from otocod.domain.ids import AccountNumber, BracketId
from otocod.domain.request_types import BracketRequest, StopByPrice, StopMarket, TargetByPrice
from otocod.domain.specs import OrderSpec, Protection, Role
from otocod.domain.turn import Turn


def has_both_exits(request: BracketRequest) -> bool:
    return request.target is not None and request.stop is not None


def has_absolute_exits(request: BracketRequest) -> bool:
    """Whether the exits are known before the entry's fill."""
    return isinstance(request.target, TargetByPrice) and isinstance(request.stop, StopByPrice | StopMarket)


def ladder_for(request: BracketRequest, proved: frozenset[Protection]) -> tuple[Protection, ...]:
    """The modes a bracket may use, strongest first. `proved`: native modes this account accepts for this product.

    A mode asked for by name is tried whatever was proved. One exit alone needs no link, so it rests as it is.
    """
    if isinstance(request.stop, StopMarket) and len(request.entry.legs) > 1:
        return (Protection.WATCHED,)  # the broker has no such order: it is watched for
    if not has_both_exits(request):
        return (Protection.UNLINKED, Protection.WATCHED)
    native = (Protection.NATIVE_OTOCO, Protection.NATIVE_OCO)
    ladder: tuple[Protection, ...]
    match request.protection:
        case Protection.AUTO if request.stop_rules is not None or request.walk_of(Role.TARGET) is not None:
            # A stop that follows is moved by itself; whether a member of a group can be is not known of any account.
            # A target that walks does so from where it was reached, so it cannot rest.
            ladder = (Protection.WATCHED,)
        case Protection.AUTO:
            # Exits that hang on the fill would have to be corrected inside a group; the group after the fill is exact.
            usable = native if has_absolute_exits(request) else native[1:]
            ladder = (*(mode for mode in usable if mode in proved), Protection.WATCHED)
        case Protection.NATIVE_OTOCO:
            ladder = (*native, Protection.WATCHED)
        case Protection.NATIVE_OCO:
            ladder = (Protection.NATIVE_OCO, Protection.WATCHED)
        case Protection.UNLINKED:
            ladder = (Protection.UNLINKED, Protection.WATCHED)
        case Protection.WATCHED:
            ladder = (Protection.WATCHED,)
    if request.entry.net_price is None:
        # An order without a price (Market, Stop) cannot be the trigger of a group.
        ladder = tuple(mode for mode in ladder if mode is not Protection.NATIVE_OTOCO)
    return ladder


def accept(
    request: BracketRequest,
    *,
    bracket_id: BracketId,
    client_ref: str,
    account: AccountNumber,
    policy: Policy,
    ladder: tuple[Protection, ...],
    now_us: int,
    broker_clock_offset_us: int = 0,
) -> Decision:
    """The new bracket, its entry IN_FLIGHT and every id it may need staged; the send waits for the commit."""
    bracket = Bracket(
        bracket_id=bracket_id,
        client_ref=client_ref,
        account=account,
        request=request,
        policy=policy,
        created_at_us=now_us,
        broker_clock_offset_us=broker_clock_offset_us,
        state=BracketState.PENDING_ENTRY,
        ladder=ladder,
    )
    turn = Turn(bracket, now_us)
    for role in STAGED_ROLES:
        turn.stage(role)
    turn.journal.append(JournalEntry("BracketAccepted", None, BracketState.PENDING_ENTRY))
    send_entry(turn)
    return turn.decision(bracket)


def send_entry(turn: Turn) -> None:
    """Entry alone, or with its exits as one group, by the mode in force. Always after the commit."""
    bracket = turn.bracket
    if bracket.protection is not Protection.NATIVE_OTOCO:
        entry, _ = turn.intend(Role.ENTRY, bracket.request.entry)
        turn.ask(SubmitOrder(Member(entry.external_identifier, Role.ENTRY, entry.spec), after_commit=True))
        return
    members, _ = send_group(turn, _otoco_specs(bracket))
    turn.ask(SubmitComplex(members, after_commit=True))


def _otoco_specs(bracket: Bracket) -> tuple[tuple[Role, OrderSpec], ...]:
    entry = bracket.request.entry
    assert entry.net_price is not None, "a market entry cannot trigger a group; ladder_for leaves that mode out"
    exits = exit_specs(bracket.request, entry_net_price=entry.net_price, units=bracket.size)
    assert exits.target is not None and exits.stop is not None
    return (Role.ENTRY, entry), (Role.TARGET, exits.target), (Role.STOP, exits.stop)


def send_group(turn: Turn, specs: tuple[tuple[Role, OrderSpec], ...]) -> tuple[tuple[Member, ...], bool]:
    """Intends the members of one native group; and whether the send must wait for the commit."""
    members: list[Member] = []
    must_commit = False
    group = None
    for role, spec in specs:
        order, must = turn.intend(role, spec)
        group = group or order.external_identifier
        turn.put(order, group=group)
        members.append(Member(order.external_identifier, role, spec))
        must_commit = must_commit or must
    return tuple(members), must_commit
