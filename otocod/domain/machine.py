"""The two state machines, as tables. The only user of `transitions`.

Theory of operation. A bracket is decided by the joint states of its orders, like the two parties of one protocol: no
single message moves it. `decide` first joins what was said into the orders (their machines move), then looks at the
whole and moves the bracket. So the bracket's events are conclusions (`protect`: every exit asked for is in force),
never messages. Rules that can conflict, and who wins:

* an exit's fill against anything else: the fill, because it cannot be undone;
* a person's close against protection: the close, once its intent is on disk, and protection again if it fails;
* the ladder against a working exit: the working exit; nothing replaces an order that may still live.

An order's machine sees three kinds of events: what we did (send, ask_cancel), what was proved of a request (defer,
lose, refuse, give_up), and where the broker's joined view stands (acknowledge, work, hold, fill, cancel, expire,
reject). The last kind is told again with every report, so a state is never left by repetition.

Observed, and therefore in the table: cancelled then filled (a late fill of a cancelled order), filled before accepted
(the stream overtakes the answer to the POST), two cancels of one order, an order that turns up after it was given up.
"""

from collections.abc import Iterable
from enum import StrEnum
from functools import cache

from transitions import Machine, MachineError

from otocod.domain.brackets import BracketState
from otocod.domain.errors import UnexpectedEvent
from otocod.domain.orders import TERMINAL_STATES, OrderState


class OrderEvent(StrEnum):
    SEND = "send"
    DEFER = "defer"  # proved not sent: the same id may go again
    LOSE = "lose"  # sent, outcome not known
    REFUSE = "refuse"
    GIVE_UP = "give_up"  # absence proved, or never sent and never to be
    ACKNOWLEDGE = "acknowledge"
    WORK = "work"
    HOLD = "hold"  # contingent at the broker
    ASK_CANCEL = "ask_cancel"
    ASK_REPLACE = "ask_replace"
    KEEP = "keep"  # what was asked for came to nothing, or concerned a double: the order stands
    REVIVE = "revive"  # another order works in the place of one that had ended, or beside it
    FILL = "fill"
    CANCEL = "cancel"
    EXPIRE = "expire"
    REJECT = "reject"


class BracketEvent(StrEnum):
    FILL_ENTRY = "fill_entry"
    ABANDON = "abandon"  # the entry ended without a fill
    PROTECT = "protect"
    EXPOSE = "expose"  # protection that was in force is not any more
    BEGIN_CLOSE = "begin_close"
    ABORT_CLOSE = "abort_close"
    FINISH = "finish"
    RELEASE = "release"
    REOPEN = "reopen"


S, E = OrderState, OrderEvent
B, X = BracketState, BracketEvent

_OPEN_ORDERS = tuple(state for state in S if state not in TERMINAL_STATES)
# Where an order can be when the broker's word on it arrives, at first or again.
_ANY = tuple(S)

# (sources, event, destination)
ORDER_TRANSITIONS: tuple[tuple[tuple[OrderState, ...], OrderEvent, OrderState], ...] = (
    ((S.INTENDED,), E.SEND, S.IN_FLIGHT),
    ((S.IN_FLIGHT,), E.DEFER, S.INTENDED),
    # From INTENDED after a crash: the send may have run beside the commit that never came.
    ((S.INTENDED, S.IN_FLIGHT, S.UNKNOWN), E.LOSE, S.UNKNOWN),
    ((S.INTENDED, S.IN_FLIGHT, S.UNKNOWN), E.REFUSE, S.REJECTED),
    ((S.INTENDED, S.IN_FLIGHT, S.UNKNOWN), E.GIVE_UP, S.ABSENT),
    # ABSENT is our verdict, not the broker's: an order accepted late proves it wrong.
    ((S.INTENDED, S.IN_FLIGHT, S.UNKNOWN, S.CONTINGENT, S.ABSENT), E.ACKNOWLEDGE, S.IN_FLIGHT),
    ((S.INTENDED, S.IN_FLIGHT, S.UNKNOWN, S.CONTINGENT, S.WORKING, S.ABSENT), E.WORK, S.WORKING),
    ((S.INTENDED, S.IN_FLIGHT, S.UNKNOWN, S.CONTINGENT, S.ABSENT), E.HOLD, S.CONTINGENT),
    (
        (S.INTENDED, S.IN_FLIGHT, S.UNKNOWN, S.CONTINGENT, S.WORKING, S.REPLACE_PENDING, S.CANCEL_PENDING, S.ABSENT),
        E.ASK_CANCEL,
        S.CANCEL_PENDING,
    ),
    (
        (S.INTENDED, S.IN_FLIGHT, S.UNKNOWN, S.CONTINGENT, S.WORKING, S.REPLACE_PENDING, S.ABSENT),
        E.ASK_REPLACE,
        S.REPLACE_PENDING,
    ),
    ((S.REPLACE_PENDING, S.CANCEL_PENDING), E.KEEP, S.WORKING),
    # Each broker order ends once; the order of ours lives as long as a hand-made move or a double of it.
    ((S.CANCELLED, S.EXPIRED, S.REJECTED), E.REVIVE, S.IN_FLIGHT),
    ((*_OPEN_ORDERS, S.ABSENT), E.CANCEL, S.CANCELLED),
    ((*_OPEN_ORDERS, S.ABSENT), E.EXPIRE, S.EXPIRED),
    ((*_OPEN_ORDERS, S.ABSENT), E.REJECT, S.REJECTED),
    (_ANY, E.FILL, S.FILLED),
)

# (state, event): why nothing happens.
ORDER_IGNORED: dict[tuple[OrderState, OrderEvent], str] = {
    **{(s, E.ACKNOWLEDGE): "the order is further along" for s in (S.WORKING, S.CANCEL_PENDING, S.REPLACE_PENDING)},
    **{(s, E.WORK): "our request is not answered yet" for s in (S.CANCEL_PENDING, S.REPLACE_PENDING)},
    **{(s, E.HOLD): "our request is not answered yet" for s in (S.CANCEL_PENDING, S.REPLACE_PENDING)},
    (S.WORKING, E.HOLD): "an older message: a working order is not held again",
    (S.CANCEL_PENDING, E.ASK_REPLACE): "the cancel is the later wish",
    **{(s, E.LOSE): "the broker has shown the order already" for s in (S.WORKING, S.CONTINGENT, S.CANCEL_PENDING)},
    **{(s, E.DEFER): "the broker has shown the order already" for s in (S.WORKING, S.CONTINGENT)},
    **{(s, E.KEEP): "nothing to keep" for s in S if s not in (S.REPLACE_PENDING, S.CANCEL_PENDING)},
    **{(s, E.REVIVE): "it lives" for s in _OPEN_ORDERS},
    (S.ABSENT, E.REVIVE): "the broker's word on it says where it stands",
    **{
        (s, e): "terminal absorbs: only a fill can still change the order"
        for s in (S.FILLED, S.CANCELLED, S.EXPIRED, S.REJECTED)
        for e in E
        if e not in (E.FILL, E.KEEP) and (e is not E.REVIVE or s is S.FILLED)
    },
}

BRACKET_TRANSITIONS: tuple[tuple[tuple[BracketState, ...], BracketEvent, BracketState], ...] = (
    ((B.PENDING_ENTRY,), X.FILL_ENTRY, B.ENTRY_FILLED),
    ((B.PENDING_ENTRY,), X.ABANDON, B.CLOSED),
    ((B.ENTRY_FILLED,), X.PROTECT, B.EXITS_LIVE),
    ((B.EXITS_LIVE,), X.EXPOSE, B.ENTRY_FILLED),
    ((B.ENTRY_FILLED, B.EXITS_LIVE), X.BEGIN_CLOSE, B.CLOSING),
    ((B.CLOSING,), X.ABORT_CLOSE, B.ENTRY_FILLED),
    ((B.ENTRY_FILLED, B.EXITS_LIVE, B.CLOSING), X.FINISH, B.CLOSED),
    ((B.PENDING_ENTRY, B.ENTRY_FILLED, B.EXITS_LIVE, B.CLOSING), X.RELEASE, B.CLOSED),
    # An entry we gave up or saw cancelled turns out to be filled: the position is real and wants protection.
    ((B.CLOSED,), X.REOPEN, B.ENTRY_FILLED),
)


class _Cursor:
    __slots__ = ("state",)

    def __init__(self, state: str) -> None:
        self.state = state


def _machine(
    states: Iterable[StrEnum], transitions: Iterable[tuple[tuple[StrEnum, ...], StrEnum, StrEnum]], initial: StrEnum
) -> Machine:
    machine = Machine(
        model=None,
        states=[state.value for state in states],
        initial=initial.value,
        auto_transitions=False,
        send_event=True,
        queued=False,
    )
    for sources, event, destination in transitions:
        machine.add_transition(event.value, [source.value for source in sources], destination.value)
    return machine


_ORDER_MACHINE = _machine(S, ORDER_TRANSITIONS, S.INTENDED)
_BRACKET_MACHINE = _machine(B, BRACKET_TRANSITIONS, B.PENDING_ENTRY)


@cache
def next_order_state(state: OrderState, event: OrderEvent) -> OrderState:
    """Raises UnexpectedEvent for a pair that is neither in the table nor ignored with a reason."""
    if (state, event) in ORDER_IGNORED:
        return state
    return OrderState(_trigger(_ORDER_MACHINE, state, event))


@cache
def next_bracket_state(state: BracketState, event: BracketEvent) -> BracketState:
    return BracketState(_trigger(_BRACKET_MACHINE, state, event))


def _trigger(machine: Machine, state: StrEnum, event: StrEnum) -> str:
    cursor = _Cursor(state.value)
    try:
        moved = machine.events[event.value].trigger(cursor)
    except MachineError:
        moved = False
    if not moved:
        raise UnexpectedEvent(state=state.value, event=event.value)
    return cursor.state


def _check_tables() -> None:
    """Every order state answers every event, and no pair is both moved and ignored."""
    moved = {(source, event) for sources, event, _ in ORDER_TRANSITIONS for source in sources}
    both = moved & ORDER_IGNORED.keys()
    if both:
        raise AssertionError(f"in the table and ignored: {sorted(both)}")


_check_tables()
