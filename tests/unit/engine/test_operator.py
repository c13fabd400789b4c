"""What an operator may do: carried out as an intent, or refused with every reason, and never in a hurry."""

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from decimal import Decimal
from typing import Any

import pytest

from otocod.domain.brackets import Bracket, BracketState, Outcome
from otocod.domain.events import PositionsDisagreed, SubmitDenied
from otocod.domain.ids import AccountNumber, BracketId, BrokerOrderId
from otocod.domain.orders import OrderReport, OrderState, Refusal
from otocod.domain.specs import Role
from otocod.engine.halts import HALT
from otocod.engine.operator import OperatorService
from otocod.ports.admin import AdminFailed, AdminRefused, BrokerUnreachable, JsonList, JsonObject, NoSuchBracket
from otocod.ports.broker import LoginRefused, NotFound, NotSent, ReadFailed, Refused, Unknown
from tests.support.fakes import ACCOUNT, Daemon, pass_s, request_text, row, until


class Reads:
    """The read model over the store in memory; it records what was asked of the audit and the backup."""

    def __init__(self, daemon: Daemon) -> None:
        self._store = daemon.store
        self.audited: list[tuple[JsonList | None, Mapping[str, Mapping[str, int]]]] = []
        self.journal: JsonList = []
        self.shown: JsonObject = {}

    async def find(self, named: str) -> BracketId:
        for known, bracket in self._store._brackets.items():
            if named in (known, f"ref:{bracket.client_ref}") or known.startswith(named):
                return known
        raise NoSuchBracket(named)

    async def brackets(self, filters: Mapping[str, str]) -> JsonList:
        return [{"bracket_id": known, "filters": dict(filters)} for known in self._store._brackets]

    async def bracket(self, bracket_id: BracketId) -> JsonObject:
        found = self._store._brackets[bracket_id]
        return {"bracket_id": bracket_id, "state": found.state.value, "attention": found.attention, **self.shown}

    async def events(self, bracket_id: BracketId | None, after_seq: int, limit: int) -> JsonList:
        return [entry for entry in self.journal if entry["seq"] > after_seq][:limit]

    async def recording(self, bracket_id: BracketId) -> JsonObject:
        return {"bracket": {"bracket_id": bracket_id}, "journal": self.journal}

    async def summary(self) -> JsonObject:
        return {"counts": {}, "unknown_outcomes": 0, "attention": [], "longest_unprotected_s": None}

    async def lately_closed(self, limit: int) -> JsonList:
        return [{"bracket_id": "closed", "client_ref": "old", "attention": None}][:limit]

    async def audit(self, broker_orders: JsonList | None, positions: Mapping[str, Mapping[str, int]]) -> JsonObject:
        self.audited.append((broker_orders, positions))
        return {"violations": [], "checked": {}, "broker_asked": broker_orders is not None}

    async def backup(self, to: str) -> JsonObject:
        return {"path": to, "bytes": 1}


class Surroundings:
    prune_fails: str | None = None

    def identity(self) -> JsonObject:
        return {"environment": "paper", "version": "1", "pid": 1, "uptime_s": 1.0, "accounts": ["…0001"]}

    async def doctor(self) -> JsonList:
        return [{"check": "clock", "ok": True, "detail": "", "remedy": ""}]

    async def prune(self) -> JsonObject:
        if self.prune_fails is not None:
            raise AdminFailed(self.prune_fails)
        return {"brackets": 3}

    async def reload(self) -> JsonObject:
        return {"applied": ["log_level"], "needs_restart": [], "problems": []}


class Console:
    """An operator before a daemon among fakes."""

    def __init__(self, daemon: Daemon | None = None) -> None:
        self.daemon = Daemon() if daemon is None else daemon
        self.reads = Reads(self.daemon)
        self.service = OperatorService(self.daemon.supervisor, self.reads, Surroundings())

    async def pending(self, **changes: Any) -> "Console":
        await self.daemon.start()
        await self.daemon.take(**changes)
        await pass_s(1)  # the start's own listings have ended
        return self

    async def protected(self, **changes: Any) -> "Console":
        await self.daemon.start()
        await self.daemon.protect(**changes)
        await pass_s(1)
        return self

    async def closed(self) -> "Console":
        await self.protected()
        self.daemon.broker.fill(self.daemon.order(Role.TARGET))
        await until(lambda: self.daemon.brackets == {}, within_s=5)
        return self

    @property
    def bracket(self) -> Bracket:
        return self.daemon.bracket

    async def stored(self) -> Bracket:
        (known,) = self.daemon.store._brackets.values()
        return known


async def reasons_of(asking: Awaitable[object]) -> tuple[str, ...]:
    with pytest.raises(AdminRefused) as caught:
        await asking
    assert str(caught.value) == "; ".join(caught.value.reasons)
    return caught.value.reasons


REF = "ref:ref-0"

# Each command on one bracket, asked in a way that would be right for an open position.
COMMANDS: dict[str, Callable[[OperatorService, str], Awaitable[object]]] = {
    "cancel": lambda service, named: service.cancel(named, by="op"),
    "close": lambda service, named: service.close(named, at=None, by="op"),
    "change": lambda service, named: service.change(named, target="0.30", stop=None, by="op"),
    "unfreeze": lambda service, named: service.unfreeze(named, by="op"),
    "release": lambda service, named: service.release(named, by="op"),
    "ack": lambda service, named: service.ack(named, by="op"),
}


# Refused whatever the command.


@pytest.mark.parametrize("command", COMMANDS)
async def test_bracket_that_nobody_knows_is_named(command: str) -> None:
    console = Console()
    await console.daemon.start()
    with pytest.raises(NoSuchBracket, match="ref:nobody"):
        await COMMANDS[command](console.service, "ref:nobody")
    await console.daemon.stop()


@pytest.mark.parametrize("command", [name for name in COMMANDS if name != "ack"])
async def test_closed_bracket_takes_no_more_commands(command: str) -> None:
    console = await Console().closed()
    posted = len(console.daemon.broker.posted)
    (reason,) = await reasons_of(COMMANDS[command](console.service, REF))
    assert reason.endswith("is closed")
    assert len(console.daemon.broker.posted) == posted
    await console.daemon.stop()


@pytest.mark.covers("F90", "F123")
@pytest.mark.parametrize("command", COMMANDS)
async def test_no_bracket_decides_anything_before_the_first_listing(command: str) -> None:
    """What the last run posted is not known yet: a decision now could post an id a second time."""
    first = await Console().protected()
    await first.daemon.crash()
    console = Console(Daemon(store=first.daemon.store, broker=first.daemon.broker))
    hold = console.daemon.broker.hold("search")
    console.daemon.launch()
    await hold.arrived.wait()
    before = dict(console.daemon.brackets)
    with pytest.raises(BrokerUnreachable, match="not reconciled"):
        await COMMANDS[command](console.service, REF)
    assert console.daemon.brackets == before
    hold.release()
    await until(lambda: console.daemon.ready)
    await console.daemon.stop()


async def test_bracket_is_not_called_closed_before_it_was_even_loaded() -> None:
    first = await Console().pending()
    await first.daemon.stop()
    console = Console(Daemon(store=first.daemon.store, broker=first.daemon.broker))
    with pytest.raises(BrokerUnreachable):
        await console.service.cancel(REF, by="op")


# cancel, close, release.


@pytest.mark.covers("F41")
async def test_cancel_takes_a_working_entry_away() -> None:
    console = await Console().pending()
    answer = await console.service.cancel(REF, by="op")
    assert answer["bracket_id"] == console.bracket.bracket_id
    await until(lambda: console.daemon.brackets == {}, within_s=5)
    assert (await console.stored()).outcome is Outcome.ENTRY_NOT_FILLED
    await console.daemon.stop()


@pytest.mark.covers("F123")
async def test_cancel_is_refused_once_the_entry_does_not_work_any_more() -> None:
    console = await Console().protected()
    (reason,) = await reasons_of(console.service.cancel(REF, by="op"))
    assert "`close`" in reason and "`release`" in reason
    await pass_s(1)
    assert console.daemon.broker.asked("cancel", "cancel_complex") == []
    await console.daemon.stop()


@pytest.mark.covers("F123")
async def test_command_is_on_disk_when_it_is_answered_and_asking_twice_changes_nothing() -> None:
    console = await Console().pending()
    console.daemon.store.hold()
    asking = asyncio.get_running_loop().create_task(console.service.cancel(REF, by="op"))
    await pass_s(1)
    assert not asking.done()
    console.daemon.store.release()
    await asking
    await until(lambda: console.daemon.brackets == {}, within_s=5)
    assert len(console.daemon.broker.asked("cancel")) == 1
    await console.daemon.stop()


async def test_close_takes_the_exits_away_and_closes_at_the_price_given() -> None:
    console = await Console().protected()
    await console.service.close(REF, at="0.55", by="op")
    await until(lambda: console.bracket.orders_of(Role.CLOSE), within_s=20)
    (close,) = console.bracket.orders_of(Role.CLOSE)
    assert close.spec.net_price == Decimal("0.55")
    assert console.bracket.close is not None and console.bracket.close.by == "op"
    closes = len(console.bracket.orders_of(Role.CLOSE))
    await console.service.close(REF, at="0.55", by="op")
    await pass_s(1)
    assert len(console.bracket.orders_of(Role.CLOSE)) == closes, "asking twice changes nothing"
    await console.daemon.stop()


@pytest.mark.parametrize("at", ["", "abc", "NaN", "-1", "0.555", "1e400"])
async def test_close_at_a_price_that_is_none_is_refused_and_nothing_is_taken_away(at: str) -> None:
    console = await Console().protected()
    (reason,) = await reasons_of(console.service.close(REF, at=at, by="op"))
    assert reason.startswith("at: ")
    await pass_s(1)
    assert console.bracket.close is None
    assert console.daemon.broker.asked("cancel", "cancel_complex") == []
    await console.daemon.stop()


async def test_release_hands_the_position_and_its_orders_over() -> None:
    console = await Console().protected()
    await console.service.release(REF, by="op")
    released = await console.stored()
    assert (released.state, released.outcome) == (BracketState.CLOSED, Outcome.RELEASED)
    await pass_s(5)
    assert console.daemon.broker.asked("cancel", "cancel_complex") == []
    await console.daemon.stop()


# change.


async def test_change_moves_the_exit_after_the_broker_has_tried_it_without_effect() -> None:
    console = await Console().protected()
    await console.service.change(REF, target="0.30", stop=None, by="op")
    await until(lambda: console.daemon.broker.asked("replace"), within_s=5)
    names = [call.name for call in console.daemon.broker.calls]
    assert names.index("dry_run_replace") < names.index("replace")
    await until(lambda: working(console.bracket, Role.TARGET) == [Decimal("0.30")], within_s=5)
    await console.daemon.stop()


def working(bracket: Bracket, role: Role) -> list[Decimal | None]:
    return [order.spec.net_price for order in bracket.orders_of(role) if order.state is OrderState.WORKING]


CHANGES: list[tuple[str | None, tuple[str, str] | None, list[str]]] = [
    (None, None, ["nothing to change"]),
    ("abc", None, ["target: "]),
    ("0.333", None, ["target: 0.333 is not on the price increment"]),
    ("0.85", None, ["target: 0.85 is no profit on an entry of 0.85"]),
    ("0.90", None, ["target: 0.90 is no profit on an entry of 0.85"]),
    (None, ("1.90", "1.70"), ["stop: the price 1.70 is better than the trigger 1.90"]),
    (None, ("2.50", "2.60"), ["stop: the trigger 2.50 is at or beyond the largest value"]),
    (None, ("0.40", "0.50"), ["stop: the trigger 0.40 is at or past the target 0.40"]),
    ("0.60", ("0.55", "0.70"), ["stop: the trigger 0.55 is at or past the target 0.60"]),
    (None, ("x", "y"), ["stop trigger: ", "stop price: "]),
    ("0.333", ("x", "1.70"), ["target: 0.333 is not on", "stop trigger: "]),
    (
        "0.90",
        ("2.60", "2.50"),
        ["target: 0.90 is no profit", "stop: the price 2.50 is better", "stop: the trigger 2.60 is at or beyond"],
    ),
]


@pytest.mark.parametrize(("target", "stop", "expected"), CHANGES)
async def test_change_is_refused_with_every_reason_and_no_exit_is_touched(
    target: str | None, stop: tuple[str, str] | None, expected: list[str]
) -> None:
    console = await Console().protected()
    await pass_s(1)
    asked = len(console.daemon.broker.calls)
    reasons = await reasons_of(console.service.change(REF, target=target, stop=stop, by="op"))
    assert len(reasons) == len(expected)
    for reason, text in zip(reasons, expected, strict=True):
        assert reason.startswith(text)
    assert len(console.daemon.broker.calls) == asked
    assert console.bracket.moved == ()
    await console.daemon.stop()


async def test_change_before_the_entry_has_filled_is_refused() -> None:
    console = await Console().pending()
    (reason,) = await reasons_of(console.service.change(REF, target="0.30", stop=None, by="op"))
    assert reason.startswith("no position is open yet")
    await console.daemon.stop()


async def test_change_of_an_exit_that_was_never_asked_for_is_refused() -> None:
    console = await Console().protected(target=None, protection="auto")
    (reason,) = await reasons_of(console.service.change(REF, target="0.30", stop=None, by="op"))
    assert reason == "target: this bracket was accepted without a target"
    await console.daemon.stop()
    console = await Console().protected(stop=None, protection="auto")
    (reason,) = await reasons_of(console.service.change(REF, target=None, stop=("1.80", "2.00"), by="op"))
    assert reason == "stop: this bracket was accepted without a stop"
    await console.daemon.stop()


async def test_change_that_the_broker_would_refuse_is_refused_with_its_words_before_an_exit_is_touched() -> None:
    console = await Console().protected()
    console.daemon.broker.answer("dry_run_replace", Refused(Refusal(422, ("price_too_far",), "too far")))
    (reason,) = await reasons_of(console.service.change(REF, target="0.30", stop=None, by="op"))
    assert "would refuse to move the target" in reason and "price_too_far" in reason
    await pass_s(1)
    assert console.daemon.broker.asked("replace") == []
    assert console.bracket.moved == ()
    await console.daemon.stop()


@pytest.mark.parametrize("outcome", [NotSent("429"), Unknown("timeout")])
async def test_change_of_which_the_broker_says_nothing_is_not_carried_out(outcome: NotSent | Unknown) -> None:
    console = await Console().protected()
    console.daemon.broker.answer("dry_run_replace", outcome)
    with pytest.raises(BrokerUnreachable, match=outcome.why):
        await console.service.change(REF, target="0.30", stop=None, by="op")
    assert console.bracket.moved == ()
    await console.daemon.stop()


# ack, unfreeze.


async def test_ack_clears_the_attention_also_of_a_closed_bracket() -> None:
    console = await Console().closed()
    (known,) = console.daemon.store._brackets
    console.daemon.supervisor.mailboxes.load([await console.stored()])
    console.daemon.supervisor.tell(known, PositionsDisagreed("made up"))
    await until(lambda: console.daemon.brackets == {})
    assert (await console.stored()).attention is not None
    answer = await console.service.ack(REF, by="op")
    assert answer["attention"] is None
    await until(lambda: console.daemon.brackets == {})
    await console.daemon.stop()


async def test_unfreeze_lists_first_and_is_not_done_if_the_broker_cannot_be_asked() -> None:
    console = await Console().protected()
    console.daemon.supervisor.tell(console.bracket.bracket_id, SubmitDenied((), "made up"))
    frozen = console.bracket
    assert frozen.is_frozen
    console.daemon.broker.fail("search", ReadFailed("503"))
    with pytest.raises(BrokerUnreachable, match="503"):
        await console.service.unfreeze(REF, by="op")
    assert console.bracket == frozen
    asked = len(console.daemon.broker.asked("search"))
    await console.service.unfreeze(REF, by="op")
    assert not console.bracket.is_frozen
    assert len(console.daemon.broker.asked("search")) == asked + 1
    await console.daemon.stop()


# The daemon.


async def test_halt_is_on_disk_with_its_reason_and_resume_ends_it() -> None:
    console = Console()
    await console.daemon.start()
    status = await console.service.halt(reason="roll-out", by="op")
    assert (status["halted"], status["halt_reason"]) == (True, "roll-out (op)")
    assert (await console.daemon.store.settings())[HALT] == "roll-out (op)"
    status = await console.service.resume(by="op")
    assert (status["halted"], status["halt_reason"]) == (False, None)
    assert (await console.service.halt(reason="", by="op"))["halt_reason"] == "by an operator (op)"
    await console.daemon.stop()


async def test_status_says_what_it_waits_for_and_that_the_log_in_was_refused() -> None:
    console = Console()
    console.daemon.broker.fail("search", LoginRefused("invalid_grant"), times=100)
    console.daemon.launch()
    await until(lambda: console.daemon.supervisor.login_refused)
    status = await console.service.status()
    assert status["ready"] is False
    assert status["reasons_not_ready"] == ["waiting for the broker's orders", "log-in refused: invalid_grant"]
    assert status["login"] == "refused"
    await console.daemon.stop()


async def test_status_when_ready_names_no_reasons_and_counts_the_rows_that_wait() -> None:
    console = await Console().pending()
    await console.service.halt(reason="x", by="op")
    console.daemon.queue.put(row(1))
    status = await console.service.status()
    assert (status["ready"], status["reasons_not_ready"], status["login"]) == (True, [], "ok")
    assert status["requests_waiting"] == 1
    assert status["streamer"]["healthy"] is True
    assert status["streamer"]["age_s"] >= 0
    await console.daemon.stop()


async def test_reconcile_brings_up_to_date_and_a_dry_run_only_tells() -> None:
    console = await Console().pending()
    bracket = console.bracket
    console.daemon.streamer.is_deaf = True
    console.daemon.broker.fill(bracket.entries[0].external_identifier)
    told = await console.service.reconcile(dry_run=True, by="op")
    assert told["listed"] == 1
    (difference,) = told["differences"]
    assert "entry" in difference and "Filled at the broker" in difference
    assert console.bracket == bracket
    await console.service.reconcile(dry_run=False, by="op")
    assert console.bracket.first_fill_us is not None
    await console.daemon.stop()


async def test_reconcile_with_a_broker_that_cannot_be_asked_changes_nothing() -> None:
    console = await Console().pending()
    before = console.bracket
    console.daemon.broker.fail("search", ReadFailed("503"))
    with pytest.raises(BrokerUnreachable, match="503"):
        await console.service.reconcile(dry_run=False, by="op")
    assert console.bracket == before
    await console.daemon.stop()


@pytest.mark.covers("F90")
async def test_reconcile_before_the_first_listing_may_only_tell() -> None:
    first = await Console().pending()
    await first.daemon.crash()
    console = Console(Daemon(store=first.daemon.store, broker=first.daemon.broker))
    console.daemon.broker.fill(first.bracket.entries[0].external_identifier)
    hold = console.daemon.broker.hold("search")
    console.daemon.launch()
    await hold.arrived.wait()
    before = dict(console.daemon.brackets)
    with pytest.raises(BrokerUnreachable, match="not reconciled"):
        await console.service.reconcile(dry_run=False, by="op")
    assert (await console.service.reconcile(dry_run=True, by="op"))["listed"] == 1
    assert console.daemon.brackets == before
    hold.release()
    await until(lambda: console.daemon.ready)
    await console.daemon.stop()


async def test_audit_hands_over_the_brokers_orders_and_positions_as_plain_values() -> None:
    console = await Console().protected()
    answer = await console.service.audit()
    assert answer["broker_asked"] is True
    ((orders, positions),) = console.reads.audited
    assert orders is not None and len(orders) == 3
    entry = next(order for order in orders if order["status"] == "Filled")
    assert entry["is_terminal"] is True
    assert [leg["filled"] for leg in entry["legs"]] == [1, 1]
    assert all(isinstance(leg["action"], str) and len(leg["fill_ids"]) == 1 for leg in entry["legs"])
    assert sorted(positions[ACCOUNT].values()) == [-1, 1]
    await console.daemon.stop()


@pytest.mark.parametrize("query", ["search", "positions"])
async def test_audit_without_the_broker_is_not_passed_off_as_one_with_it(query: str) -> None:
    console = await Console().protected()
    console.daemon.broker.fail(query)
    with pytest.raises(BrokerUnreachable, match="could not be asked"):
        await console.service.audit()
    assert console.reads.audited == []
    await console.daemon.stop()


async def test_dry_run_tells_our_reasons_without_asking_the_broker_and_else_the_brokers() -> None:
    console = Console()
    await console.daemon.start()
    bad = await console.service.dry_run("5WT99999", "{")
    assert bad["reasons"] and bad["broker"] is None
    assert console.daemon.broker.asked("dry_run") == []
    good = await console.service.dry_run(ACCOUNT, request_text())
    assert good == {"reasons": [], "broker": {"accepted": True, "warnings": []}}
    console.daemon.supervisor.is_zone = {"Europe/Berlin"}.__contains__
    by_clock: dict[str, Any] = {"time-exits": [{"at": "21:30", "zone": "Europe/Berlin"}]}
    assert (await console.service.dry_run(ACCOUNT, request_text(0, 1, **by_clock)))["reasons"] == []
    console.daemon.broker.refuse("dry_run", "margin_check_failed")
    refused = await console.service.dry_run(ACCOUNT, request_text())
    assert refused["broker"]["accepted"] is False
    assert "margin_check_failed" in refused["reasons"][0]
    console.daemon.broker.answer("dry_run", Unknown("timeout"))
    with pytest.raises(BrokerUnreachable, match="timeout"):
        await console.service.dry_run(ACCOUNT, request_text())
    assert console.daemon.broker.orders() == []
    await console.daemon.stop()


# Reads.


async def test_events_wait_for_the_first_one_and_no_longer_than_asked() -> None:
    console = Console()
    loop = asyncio.get_running_loop()
    began_s = loop.time()
    assert await console.service.events(None, after_seq=0, limit=10, wait_s=2.0) == []
    assert loop.time() - began_s == pytest.approx(2.0, abs=0.01)
    waiting = loop.create_task(console.service.events(None, after_seq=0, limit=10, wait_s=30.0))
    await pass_s(1)
    console.reads.journal.extend({"seq": seq} for seq in (1, 2))
    assert await waiting == [{"seq": 1}, {"seq": 2}]
    assert loop.time() - began_s < 4
    assert await console.service.events(None, after_seq=1, limit=10, wait_s=0) == [{"seq": 2}]


async def test_what_only_passes_through_is_passed_through() -> None:
    console = await Console().pending()
    service = console.service
    assert (await service.brackets({"open": "1"}))[0]["filters"] == {"open": "1"}
    assert (await service.bracket(REF))["state"] == "PENDING_ENTRY"
    assert (await service.backup("/x"))["path"] == "/x"
    assert (await service.doctor())[0]["check"] == "clock"
    assert (await service.reload())["applied"] == ["log_level"]
    await console.daemon.stop()


async def test_capabilities_are_told_with_their_evidence() -> None:
    console = await Console().pending(protection="auto")
    (told,) = await console.service.capabilities()
    assert (told["account"], told["product"], told["protection"]) == (ACCOUNT, "spread", "native-otoco")
    assert (told["accepted"], told["evidence"]) == (True, "accepted")
    await console.daemon.stop()


# The broker's own record of a bracket.


async def test_truth_is_the_brokers_record_of_every_order_open_or_closed() -> None:
    console = await Console().protected()
    told = await console.service.truth(REF)
    entry = told["orders"][0]
    assert (entry["role"], entry["status"], entry["is_terminal"]) == ("entry", "Filled", True)
    assert sum(quantity for _, quantity, _ in entry["fills"]) == 2
    assert entry["received_us"] is not None
    assert {each["status"] for each in told["orders"][1:]} == {"Live"}
    closed = await Console().closed()
    statuses = {each["role"]: each["status"] for each in (await closed.service.truth(REF))["orders"]}
    assert statuses == {"entry": "Filled", "target": "Filled", "stop": "Cancelled"}


async def test_order_that_the_broker_does_not_have_has_no_status_and_a_failed_read_is_no_answer() -> None:
    console = await Console().protected()

    async def gone(account: AccountNumber, broker_order_id: BrokerOrderId) -> OrderReport:
        raise NotFound("no such order")

    async def down(account: AccountNumber, broker_order_id: BrokerOrderId) -> OrderReport:
        raise ReadFailed("503")

    console.daemon.broker.read_order = gone  # type: ignore[method-assign]
    assert {each["status"] for each in (await console.service.truth(REF))["orders"]} == {None}
    console.daemon.broker.read_order = down  # type: ignore[method-assign]
    with pytest.raises(BrokerUnreachable, match="503"):
        await console.service.truth(REF)


# Upkeep.


async def test_retention_that_fails_is_alarmed_and_told_to_whoever_asked() -> None:
    console = await Console().pending()
    assert await console.service.prune() == {"brackets": 3}
    surroundings = console.service._surroundings
    assert isinstance(surroundings, Surroundings)
    surroundings.prune_fails = "no room"
    with pytest.raises(AdminFailed, match="no room"):
        await console.service.prune()
    assert console.daemon.notifier.codes[-1] == "retention_failed"
