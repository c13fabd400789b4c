"""From a message of the broker to the bracket it concerns."""

from dataclasses import replace

import pytest

from otocod.domain.brackets import Bracket, BracketState, Outcome
from otocod.domain.events import ComplexReport, OrderReported
from otocod.domain.ids import BrokerOrderId, ComplexOrderId, ExternalIdentifier
from otocod.domain.orders import BrokerStatus, LegReport, Order, OrderReport, OrderState
from otocod.engine.mailbox import Mailboxes
from otocod.engine.router import Router
from otocod.ports.store import BracketChange
from tests.support import stored_records as records
from tests.support.fakes import LoopClock, until
from tests.support.model_store import ModelStore

OURS = "otocod/1.0.0"


class Post:
    """A router over real mailboxes; strangers are written down."""

    def __init__(self) -> None:
        self.store = ModelStore()
        self.strangers: list[OrderReport] = []
        self.mailboxes = Mailboxes(
            self.store,
            LoopClock(),
            run_command=lambda bracket, command: None,
            set_deadline=lambda bracket_id, at_us: None,
            on_store_failure=lambda error: None,
            on_store_recovery=lambda: None,
        )
        self.router = Router(self.mailboxes, self.store, on_stranger=self.strangers.append)

    async def keep(self, *stages: Bracket) -> Bracket:
        """The life of a bracket so far, on disk and not in memory."""
        for before, after in zip([None, *stages], stages, strict=False):
            await self.store.commit(records.change(before, after))
        return stages[-1]

    def now(self, bracket: Bracket) -> Bracket:
        return self.mailboxes.brackets[bracket.bracket_id]

    @property
    def journal(self) -> list[str]:
        changes = [change for change in self.store.committed if isinstance(change, BracketChange)]
        return [entry.event for change in changes for entry in change.journal]


def report(broker_order_id: str = "88", status: BrokerStatus = BrokerStatus.LIVE, **fields: object) -> OrderReport:
    return OrderReport(BrokerOrderId(broker_order_id), status, status.value, **fields)  # type: ignore[arg-type]


def cancelled_report(bracket: Bracket) -> OrderReport:
    return report("80", BrokerStatus.CANCELLED, external_identifier=bracket.orders[0].external_identifier, source=OURS)


def cancelled(bracket: Bracket) -> Bracket:
    """CLOSED without a fill: the entry was seen cancelled."""
    entry = bracket.orders[0].learn(cancelled_report(bracket))
    return replace(
        bracket,
        state=BracketState.CLOSED,
        outcome=Outcome.ENTRY_NOT_FILLED,
        closed_at_us=5,
        orders=(replace(entry, state=OrderState.CANCELLED),),
        version=bracket.version + 1,
    )


async def test_report_of_a_bracket_in_memory_is_delivered_at_once() -> None:
    post = Post()
    bracket = await post.keep(records.accepted())
    post.mailboxes.load((bracket,))
    name = bracket.orders[0].external_identifier
    post.router.route(report(external_identifier=name, source=OURS))
    assert post.now(bracket).orders[0].broker_order_id == "88"


@pytest.mark.covers("F42")
async def test_late_fill_of_a_closed_bracket_loads_it_and_reopens_it() -> None:
    post = Post()
    bracket = await post.keep(records.accepted(), cancelled(records.accepted()))
    filled = replace(records.filled_report(1, bracket.orders[0], "1.05", "0.20"), source=OURS)
    post.router.route(filled)
    await post.router.settle()
    reopened = post.now(bracket)
    assert reopened.state is BracketState.ENTRY_FILLED
    assert reopened.outcome is None
    assert reopened.attention is not None
    await until(lambda: "EntryFilledLate" in post.journal)


async def test_several_reports_of_one_unknown_id_are_one_look_into_the_database_and_all_are_told() -> None:
    post = Post()
    bracket = await post.keep(records.accepted(), cancelled(records.accepted()))
    looked = 0
    bracket_of = post.store.bracket_of

    async def counted(name: ExternalIdentifier) -> object:
        nonlocal looked
        looked += 1
        return await bracket_of(name)

    post.store.bracket_of = counted  # type: ignore[method-assign,assignment]
    entry = bracket.orders[0]
    first = replace(records.filled_report(1, entry, "1.05", "0.20"), source=OURS)
    again = replace(first, broker_order_id=BrokerOrderId("9"))
    post.router.route(first)
    post.router.route(again)
    await post.router.settle()
    assert looked == 1
    assert {view.broker_order_id for view in post.now(bracket).orders[0].views} >= {first.broker_order_id, "9"}


async def test_closed_bracket_of_which_a_listing_says_nothing_new_does_not_stay_in_memory() -> None:
    post = Post()
    bracket = await post.keep(records.accepted(), cancelled(records.accepted()))
    known = cancelled_report(bracket)
    for _ in range(2):
        assert post.router.events_by_bracket([known, known]) == {}
        await post.router.settle()
        assert post.mailboxes.brackets == {}


async def test_report_that_told_a_closed_bracket_nothing_is_not_looked_up_again_until_it_says_something_else() -> None:
    post = Post()
    bracket = await post.keep(records.accepted(), cancelled(records.accepted()))
    known = cancelled_report(bracket)
    post.router.route(known)
    await post.router.settle()
    post.router.route(replace(known))
    assert post.router._tasks == set()
    post.router.route(replace(records.filled_report(1, bracket.orders[0], "1.05", "0.20"), source=OURS))
    await post.router.settle()
    assert post.now(bracket).state is BracketState.ENTRY_FILLED


@pytest.mark.covers("F100")
async def test_working_order_with_our_source_that_the_database_does_not_know_is_a_stranger() -> None:
    post = Post()
    await post.keep(records.accepted())
    strange = report(external_identifier=ExternalIdentifier("made-elsewhere"), source=OURS)
    post.router.route(strange)
    await post.router.settle()
    assert post.strangers == [strange]


async def test_terminal_order_that_the_database_does_not_know_harms_nobody() -> None:
    """An older database of this daemon: such orders are history."""
    post = Post()
    over = report(status=BrokerStatus.CANCELLED, external_identifier=ExternalIdentifier("old"), source=OURS)
    post.router.route(over)
    await post.router.settle()
    assert post.strangers == []


async def test_foreign_orders_are_left_alone_and_not_even_looked_up() -> None:
    """S14: whatever is not ours is somebody's own business, also when it carries an identifier."""
    post = Post()
    bracket = await post.keep(records.accepted())
    post.mailboxes.load((bracket,))

    looked_up: list[ExternalIdentifier] = []

    async def counted(name: ExternalIdentifier) -> object:
        looked_up.append(name)
        return None

    post.store.bracket_of = counted  # type: ignore[method-assign,assignment]
    foreign = [
        report(),
        report(external_identifier=ExternalIdentifier("theirs"), source="desk/2"),
        report(external_identifier=ExternalIdentifier("theirs")),
        report(source=OURS),
    ]
    assert post.router.events_by_bracket(foreign) == {}
    await post.router.settle()
    assert looked_up == []
    assert post.strangers == []
    assert post.now(bracket) == bracket


def grouped(bracket: Bracket) -> Bracket:
    """Both exits taken as one container, whose id is known and whose members have not been seen."""
    entry, target, stop = bracket.orders
    container = ComplexOrderId("56")
    return replace(
        bracket,
        orders=(entry, replace(target, complex_order_id=container), replace(stop, complex_order_id=container)),
    )


def component(order: Order, broker_order_id: str, status: BrokerStatus = BrokerStatus.LIVE) -> OrderReport:
    """One member as the broker shows it when it does not echo our identifier."""
    return report(
        broker_order_id,
        status,
        complex_order_id=ComplexOrderId("56"),
        order_type=order.spec.order_type,
        legs=tuple(LegReport(leg.symbol, leg.action, leg.quantity) for leg in order.spec.legs),
    )


async def test_component_without_an_echo_is_attributed_by_its_container() -> None:
    post = Post()
    bracket = grouped(await post.keep(records.accepted(), records.entry_filled(records.accepted())))
    post.mailboxes.load((bracket,))
    _, target, stop = bracket.orders
    events = post.router.events_by_bracket([component(stop, "91"), component(target, "90")])
    told = events[bracket.bracket_id]
    assert [event.external_identifier for event in told if isinstance(event, OrderReported)] == [
        stop.external_identifier,
        target.external_identifier,
    ]


async def test_container_is_delivered_by_its_own_id_and_else_by_its_components() -> None:
    post = Post()
    bracket = await post.keep(records.accepted(), records.entry_filled(records.accepted()))
    post.mailboxes.load((bracket,))
    _, target, stop = bracket.orders
    members = (
        replace(component(target, "90"), external_identifier=target.external_identifier),
        replace(component(stop, "91"), external_identifier=stop.external_identifier),
    )
    post.router.route_complex(ComplexReport(ComplexOrderId("56"), "OCO", None, members))
    assert post.now(bracket).state is BracketState.EXITS_LIVE
    assert post.mailboxes.owner_of_complex(ComplexOrderId("56")) == bracket.bracket_id
    gone = tuple(component(order, number, BrokerStatus.CANCELLED) for order, number in ((target, "90"), (stop, "91")))
    post.router.route_complex(ComplexReport(ComplexOrderId("56"), "OCO", None, gone))
    assert all(order.is_terminal for order in post.now(bracket).exits[:2])


async def test_container_of_somebody_else_is_left_alone() -> None:
    post = Post()
    bracket = await post.keep(records.accepted())
    post.mailboxes.load((bracket,))
    post.router.route_complex(ComplexReport(ComplexOrderId("7"), "OCO", None, (report("1"), report("2"))))
    assert post.now(bracket) == bracket


async def test_replacement_by_a_person_belongs_to_the_order_it_replaces() -> None:
    post = Post()
    bracket = await post.keep(records.accepted())
    post.mailboxes.load((bracket,))
    name = bracket.orders[0].external_identifier
    post.router.route(report("88", external_identifier=name, source=OURS))
    post.router.route(report("89", replaces=BrokerOrderId("88"), source="web"))
    assert [view.broker_order_id for view in post.now(bracket).orders[0].views] == ["88", "89"]


async def test_id_we_made_and_dropped_unused_that_works_at_the_broker_is_a_stranger() -> None:
    """The spares of a closed bracket are known to the database, and nothing of this run has posted them."""
    post = Post()
    spare = records.accepted().staged[0][1]
    await post.keep(records.accepted(), replace(cancelled(records.accepted()), staged=()))
    post.router.route(report(external_identifier=spare, source=OURS))
    await post.router.settle()
    assert [strange.external_identifier for strange in post.strangers] == [spare]
    assert post.mailboxes.brackets == {}


@pytest.mark.covers("F99", "F100")
@pytest.mark.parametrize("role", [0, 1])
async def test_open_bracket_that_was_never_here_is_another_daemons_and_is_left_to_it(role: int) -> None:
    """Found by the simulation: the lock was stolen, and both daemons sent the exits of one bracket on the same ids."""
    post = Post()
    bracket = await post.keep(records.accepted())
    name = bracket.orders[0].external_identifier if role == 0 else bracket.staged[0][1]
    post.router.route(report(external_identifier=name, source=OURS))
    await post.router.settle()
    assert [strange.external_identifier for strange in post.strangers] == [name]
    assert post.mailboxes.brackets == {}
    assert post.journal.count("DecisionFailed") == 0
