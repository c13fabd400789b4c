"""Faults of the broker and of the wire: the bracket ends right, nothing is sent twice, and the operator is told once.

Two kinds. What resolves itself within a second or two shares one pair of processes, one fault after the other. What
has to be waited out (an outcome of which no trace is found) runs side by side, so that the windows overlap.
"""

import json
import signal
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from tests.support.processes import ENTRY, STOP, TARGET, Pair, Spread, running, side_by_side, until

pytestmark = [pytest.mark.slow, pytest.mark.timeout(240)]

SUBMISSION = {"method": "POST", "path": "orders$"}
# An exit of which nothing is found goes again after 10 s, listings included.
WINDOW_S = 45.0


@pytest.fixture(scope="module")
def quick(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Pair]:
    """Answers are waited for half a second only."""
    with running(tmp_path_factory.mktemp("quick"), request_timeout_s="0.5") as pair:
        yield pair


@pytest.fixture
def pair(quick: Pair) -> Iterator[Pair]:
    yield quick
    quick.paper.call("DELETE", "/faults")


def ended(pair: Pair, ref: str, outcome: str = "TARGET_FILLED") -> dict[str, Any]:
    found = pair.daemon.until_closed(ref)
    assert found["outcome"] == outcome, found
    return found


def broker_count(pair: Pair, spread: Spread) -> int:
    return len(pair.paper.orders(spread))


# The answer to a submission.

ANSWERS: dict[str, dict[str, object]] = {
    "answer_lost": {},
    "answer_reset": {},
    "error_after": {"status": 500},
    "error_after_html": {"status": 502, "html": True},
    "body_truncated": {},
    "body_html": {},
    "body_empty": {},
    "wrong_echo": {},
    "late_acceptance": {"delay_ms": 1500},
    "late_acceptance_502": {"delay_ms": 1500, "answer": "502"},
}


@pytest.mark.covers("F1", "F6", "F9", "F10", "F14", "F19", "F45")
@pytest.mark.parametrize("fault", ANSWERS)
def test_submission_without_a_usable_answer_is_found_and_never_repeated(pair: Pair, fault: str) -> None:
    """Struck once at the entry, with the streamer well, and once at the exits, of which the streamer says nothing."""
    name = fault.removesuffix("_html").removesuffix("_502") if fault not in ("body_html",) else fault
    spread = pair.paper.spread()
    pair.paper.fault(**{name: {"next": 1, "match": SUBMISSION, **ANSWERS[fault]}})
    pair.daemon.submit(fault, spread.request(protection="native-oco"))
    pair.paper.working(spread)
    pair.daemon.until_bracket(fault, lambda found: found["orders"][0]["status"] == "Live", "entry Live")
    pair.paper.fault(
        **{name: {"next": 1, "match": SUBMISSION, **ANSWERS[fault]}},
        frame_lost={"rate": 1, "match": {"type": "Order", "effect": "close|^$"}},
    )
    pair.paper.quote(spread, ENTRY)
    live = pair.daemon.until_state(fault, "EXITS_LIVE", WINDOW_S)
    assert pair.paper.struck(name) >= 2
    assert broker_count(pair, spread) == 3
    assert [order["broker_order_id"] is not None for order in live["orders"]] == [True] * 3
    pair.paper.call("DELETE", "/faults")
    pair.paper.quote(spread, TARGET)
    ended(pair, fault)
    # One line for each order whose outcome was not known, with the role and the reason.
    lost = pair.daemon.told("bracket_event", told="OutcomeLost", bracket_id=live["bracket_id"])
    assert {line["detail"].split()[0] for line in lost} >= {"target", "stop"}
    assert broker_count(pair, spread) == 3
    pair.check_end()


@pytest.mark.covers("F13")
def test_429_is_retried_with_the_same_identifier(pair: Pair) -> None:
    spread = pair.paper.spread()
    pair.paper.fault(too_many_requests={"next": 2, "match": SUBMISSION})
    pair.daemon.submit("429", spread.request(protection="native-oco"))
    pair.paper.working(spread)
    pair.paper.fault(too_many_requests={"next": 2, "match": SUBMISSION})
    pair.paper.quote(spread, ENTRY)
    pair.daemon.until_state("429", "EXITS_LIVE")
    pair.paper.quote(spread, TARGET)
    shown = ended(pair, "429")
    assert [order["role"] for order in shown["orders"]] == ["entry", "target", "stop"]
    posts = [post for post in pair.paper.requests("POST", "orders") if post["status"] == 429]
    names = {order["external_identifier"] for order in shown["orders"]}
    assert len(posts) == 4
    assert {name for post in posts for name in post["external_identifiers"]} == names
    pair.check_end()


@pytest.mark.covers("F12", "F76")
@pytest.mark.parametrize("fault", ["token_death", "unauthorized"])
def test_401_renews_the_token_once_and_the_order_leaves(pair: Pair, fault: str) -> None:
    spread = pair.paper.spread()
    before = len(pair.paper.requests("POST", "/oauth/token"))
    pair.paper.fault(**{fault: {"next": 1, "match": SUBMISSION}})
    pair.daemon.submit(fault, spread.request(protection="native-oco"))
    pair.paper.working(spread)
    pair.paper.quote(spread, ENTRY)
    pair.daemon.until_state(fault, "EXITS_LIVE")
    pair.paper.quote(spread, TARGET)
    ended(pair, fault)
    renewals = len(pair.paper.requests("POST", "/oauth/token")) - before
    # Within 10 s of a renewal a 401 is not the token's fault: the request is repeated with the same one.
    assert renewals == 1 if fault == "token_death" else renewals <= 1
    pair.check_end()


@pytest.mark.covers("F11", "F51")
def test_refused_entry_closes_with_the_broker_s_words_in_attention(pair: Pair) -> None:
    pair.paper.rule(account_state="closing-only")
    try:
        spread = pair.paper.spread()
        pair.daemon.submit("refused", spread.request(protection="native-oco"))
        shown = ended(pair, "refused", "ENTRY_NOT_FILLED")
        assert shown["attention"]
        assert broker_count(pair, spread) == 0
    finally:
        pair.paper.rule(account_state="normal")


@pytest.mark.covers("F15")
def test_entry_replayed_by_a_proxy_is_cut_back_to_one_order(tmp_path: Path) -> None:
    with running(tmp_path) as pair:
        for answer in ("first", "second"):
            spread = pair.paper.spread()
            pair.paper.fault(duplicated={"next": 1, "answer": answer, "match": SUBMISSION})
            pair.daemon.submit(answer, spread.request(protection="native-oco"))
            pair.daemon.until_attention(answer, "two entry orders with one identifier")
            until(
                lambda spread=spread: len(pair.paper.orders(spread, status="Cancelled")) == 1,  # type: ignore[misc]
                "one of them cancelled",
            )
            by_age = sorted(pair.paper.orders(spread), key=lambda order: int(order["id"]))
            assert [order["status"] for order in by_age] == ["Live", "Cancelled"]
            pair.paper.quote(spread, ENTRY)
            pair.daemon.until_state(answer, "EXITS_LIVE")
            pair.paper.quote(spread, TARGET)
            assert ended(pair, answer)["orders"][0]["filled_quantity"] == 1
        assert pair.paper.posted_again() == []
        assert pair.paper.positions() == {}


@pytest.mark.covers("F15", "F46")
def test_exits_replayed_by_a_proxy_are_cut_back_to_one_pair(tmp_path: Path) -> None:
    with running(tmp_path, rules={"reservation": False}) as pair:
        spread = pair.open_bracket("replayed", "PENDING_ENTRY", protection="native-oco")
        pair.paper.fault(duplicated={"next": 1, "match": SUBMISSION})
        pair.paper.quote(spread, ENTRY)
        pair.daemon.until_attention("replayed", "with one identifier")
        until(lambda: len(pair.paper.orders(spread, status="Live")) == 2, lambda: pair.paper.orders(spread))
        pair.daemon.until_state("replayed", "EXITS_LIVE")
        live = pair.paper.orders(spread, status="Live")
        assert sorted(order["order-type"] for order in live) == ["Limit", "Stop Limit"]
        pair.paper.quote(spread, TARGET)
        ended(pair, "replayed")
        assert pair.paper.positions() == {}


# Frames of the streamer.

FRAMES: dict[str, dict[str, object]] = {
    "frame_lost": {"rate": 1},
    "frame_doubled": {"rate": 1},
    "frame_delayed": {"rate": 0.5, "delay_ms": 400},
    "frame_reordered": {"rate": 0.5},
    "frame_stale": {"rate": 1},
    "frame_wrapped": {"rate": 1},
    "frame_unknown_type": {"rate": 1},
    "frame_unknown_status": {"rate": 0.5},
    "frame_fills_missing": {"rate": 1},
    "frame_garbage": {"rate": 1},
}


@pytest.mark.covers("F22", "F23", "F24", "F25", "F26", "F27")
@pytest.mark.parametrize("fault", FRAMES)
def test_disturbed_frames_do_not_change_the_end(pair: Pair, fault: str) -> None:
    pair.paper.fault(**{fault: FRAMES[fault]})
    native, single = (pair.open_bracket(f"{fault}-{mode}", protection=mode) for mode in ("native-otoco", "native-oco"))
    pair.paper.quote(native, STOP)
    pair.paper.quote(single, TARGET)
    shown = [ended(pair, f"{fault}-native-otoco", "STOP_FILLED"), ended(pair, f"{fault}-native-oco")]
    assert pair.paper.struck(fault) > 0
    for each, spread in zip(shown, (native, single), strict=True):
        # Of a fill that came without its legs' prices the order is read.
        assert each["entry_net_price"] == "-0.85"
        assert each["attention"] is None or "status we do not know" in each["attention"]
        assert broker_count(pair, spread) == 3
    pair.check_end()


@pytest.mark.covers("F27")
def test_unknown_status_is_told_once_and_the_order_is_read(pair: Pair) -> None:
    spread = pair.paper.spread()
    pair.paper.fault(frame_unknown_status={"next": 1, "value": "Dead", "match": {"status": "Live"}})
    pair.daemon.submit("unknown-status", spread.request(protection="native-oco"))
    until(lambda: pair.paper.struck("frame_unknown_status"), "struck")
    pair.daemon.until_bracket("unknown-status", lambda found: found["orders"][0]["status"] == "Live", "Live again")
    pair.paper.quote(spread, ENTRY)
    pair.daemon.until_state("unknown-status", "EXITS_LIVE")
    pair.paper.quote(spread, TARGET)
    ended(pair, "unknown-status")
    pair.check_end()


@pytest.mark.covers("F23", "F26")
@pytest.mark.parametrize("mode", ["native-otoco", "native-oco"])
def test_sibling_s_cancel_heard_without_the_fill_is_no_loss_of_protection(pair: Pair, mode: str) -> None:
    """In a native group the broker cancels the sibling by itself; the one message about the fill is lost."""
    ref = f"half-heard-{mode}"
    spread = pair.open_bracket(ref, protection=mode)
    pair.paper.fault(
        frame_lost={"rate": 1, "match": {"type": "^(Order|ComplexOrder)$", "status": "^$|Filled", "effect": "close|^$"}}
    )
    pair.paper.quote(spread, STOP)
    shown = ended(pair, ref, "STOP_FILLED")
    assert shown["attention"] is None
    assert broker_count(pair, spread) == 3
    # Nothing had to be cancelled, sent again or moved: the group was whole all the time.
    assert not {"ProtectionLost", "GroupLeft"} & set(pair.daemon.events_of(ref))
    pair.check_end()


# The streamer's connection. Each has its own pair: reconnects slow down when they follow each other closely.


def drop(pair: Pair) -> None:
    pair.paper.call("POST", "/streamer/drop", {})


def drop_abruptly(pair: Pair) -> None:
    pair.paper.call("POST", "/streamer/drop", {"abrupt": True})


def fault_of(name: str, **settings: object) -> Callable[[Pair], None]:
    return lambda pair: pair.paper.fault(**{name: {"rate": 1, **settings}})


CONNECTIONS: dict[str, Callable[[Pair], None]] = {
    "drop": drop,
    "drop_abruptly": drop_abruptly,
    "silent": fault_of("streamer_silent"),
    "half_open": fault_of("streamer_half_open"),
    "bye": fault_of("streamer_bye"),
    "heartbeat_unanswered": fault_of("heartbeat_unanswered"),
}


@pytest.mark.covers("F21", "F28", "F30")
def test_streamer_that_fails_during_a_fill_costs_time_and_nothing_else(tmp_path: Path) -> None:
    side_by_side(tmp_path, {how: partial(fill_while, break_it) for how, break_it in CONNECTIONS.items()}, at_once=3)


def fill_while(break_it: Callable[[Pair], None], directory: Path) -> None:
    with running(directory, heartbeat_interval_s="2") as pair:
        spread = pair.open_bracket("filled-unseen", "PENDING_ENTRY", protection="native-oco")
        break_it(pair)
        pair.paper.quote(spread, ENTRY)
        pair.daemon.until_state("filled-unseen", "EXITS_LIVE")
        pair.paper.quote(spread, TARGET)
        ended(pair, "filled-unseen")
        until(lambda: pair.daemon.told("stream_down"), pair.daemon.log.read_text)
        assert pair.daemon.told("stream_down")[0]["why"]
        pair.paper.call("DELETE", "/faults")
        until(lambda: len(pair.daemon.told("stream_up")) >= 2, pair.daemon.log.read_text)
        assert pair.daemon.status()["streamer"]["healthy"] is True
        pair.check_end()


@pytest.mark.covers("F35")
def test_start_with_a_streamer_that_does_not_subscribe_goes_by_rest(tmp_path: Path) -> None:
    faults = ("connect_refused", "connect_deaf", "connect_wrong_accounts", "streamer_refused")
    side_by_side(tmp_path, {fault: partial(start_deaf, fault) for fault in faults}, at_once=4)


def start_deaf(fault: str, directory: Path) -> None:
    with running(directory, start=False, heartbeat_interval_s="2") as pair:
        pair.paper.fault(**{fault: True})
        pair.daemon.restart()
        spread = pair.open_bracket("by-rest", protection="native-oco")
        pair.paper.quote(spread, TARGET)
        ended(pair, "by-rest")
        pair.check_end()


# Reads.


@pytest.mark.covers("F79")
def test_reads_that_fail_prove_nothing(pair: Pair) -> None:
    """The streamer is silent about orders, and every read is answered by the proxy: nothing may be concluded."""
    spread = pair.open_bracket("blind", protection="native-oco")
    pair.paper.fault(
        unavailable={"rate": 1, "match": {"method": "GET"}}, frame_lost={"rate": 1, "match": {"type": "Order"}}
    )
    pair.paper.quote(spread, TARGET)
    until(lambda: pair.daemon.told("reconcile_failed"), pair.daemon.log.read_text)
    assert pair.daemon.bracket("blind")["state"] == "EXITS_LIVE"
    pair.paper.call("DELETE", "/faults")
    ended(pair, "blind")
    assert broker_count(pair, spread) == 3
    pair.check_end()


@pytest.mark.covers("F33")
def test_lagging_listings_do_not_make_an_order_absent(pair: Pair) -> None:
    spread = pair.open_bracket("lag", "PENDING_ENTRY", protection="native-oco")
    pair.paper.fault(
        listing_lag={"rate": 1, "lag_ms": 5000, "single": True},
        answer_lost={"next": 1, "match": SUBMISSION},
        frame_lost={"rate": 1, "match": {"type": "Order", "effect": "close|^$"}},
    )
    pair.paper.quote(spread, ENTRY)
    until(lambda: pair.daemon.told("bracket_event", told="OutcomeLost"), pair.daemon.log.read_text)
    pair.daemon.until_state("lag", "EXITS_LIVE")
    assert broker_count(pair, spread) == 3
    pair.paper.call("DELETE", "/faults")
    pair.paper.quote(spread, TARGET)
    ended(pair, "lag")
    pair.check_end()


@pytest.mark.covers("F83")
def test_slow_broker_delays_a_bracket_and_breaks_none(tmp_path: Path) -> None:
    with running(tmp_path) as pair:
        pair.paper.fault(slow={"rate": 1, "delay_ms": 700, "where": "after"})
        spreads = {f"slow-{n}": pair.paper.spread() for n in range(3)}
        pair.daemon.submit_all([(ref, spread.request(protection="native-oco")) for ref, spread in spreads.items()])
        for spread in spreads.values():
            pair.paper.working(spread)
            pair.paper.quote(spread, ENTRY)
        for ref, spread in spreads.items():
            pair.daemon.until_state(ref, "EXITS_LIVE")
            pair.paper.quote(spread, TARGET)
        for ref in spreads:
            assert ended(pair, ref)["attention"] is None
        pair.paper.call("DELETE", "/faults")
        pair.check_end()


@pytest.mark.covers("F32")
@pytest.mark.parametrize("fault", ["page_missing", "page_total_wrong", "page_rows_moved"])
def test_torn_pages_are_no_proof_of_absence(tmp_path: Path, fault: str) -> None:
    """Our orders stand on the second page; while pages are torn a lost outcome stays unknown, then it is found."""
    with running(tmp_path, request_timeout_s="0.5") as pair:
        crowd = pair.paper.spread()
        order = {**crowd.request()["entry"], "time-in-force": "GTC"}
        for _ in range(205):
            pair.paper.call("POST", "/orders", order)
        spread = pair.open_bracket("torn", "PENDING_ENTRY", protection="native-oco")
        pair.paper.fault(
            **{fault: {"rate": 1}},
            answer_lost={"next": 1, "match": SUBMISSION},
            frame_lost={"rate": 1, "match": {"type": "Order", "effect": "close|^$"}},
        )
        pair.paper.quote(spread, ENTRY)
        until(lambda: pair.paper.struck(fault) >= 4, lambda: pair.daemon.log.read_text()[-2000:])
        until(lambda: pair.daemon.told("reconcile_failed"), pair.daemon.log.read_text)
        assert broker_count(pair, spread) == 3
        pair.paper.call("DELETE", "/faults")
        pair.daemon.until_state("torn", "EXITS_LIVE")
        pair.paper.quote(spread, TARGET)
        ended(pair, "torn")
        assert broker_count(pair, spread) == 3
        assert pair.paper.posted_again() == []


# Windows: outcomes that must be waited out, all at once.


def strike(pair: Pair, spread: Spread, ref: str, **faults: object) -> None:
    """Fills an entry with a fault waiting for its exits, and returns once the fault has struck."""
    name = next(iter(faults))
    before = pair.paper.struck(name)
    pair.paper.fault(**faults)
    pair.paper.quote(spread, ENTRY)
    until(lambda: pair.paper.struck(name) > before, lambda: f"{name} strikes {ref}")


@pytest.mark.covers("F2", "F3", "F9", "F14", "F99")
def test_lost_exits_are_sent_again_after_the_window_and_lost_entries_never(tmp_path: Path) -> None:
    with running(tmp_path, rules={"reservation": False}, request_timeout_s="0.5", unprotected_limit_s="30") as pair:
        lost: dict[str, dict[str, object]] = {
            "request_lost": {},
            "request_reset": {},
            "error_before": {"status": 500},
            "unavailable": {},
            # Accepted after the daemon has looked for it everywhere and sent the exits again.
            "late_acceptance": {"delay_ms": 14_000},
        }
        spreads: dict[str, Spread] = {}
        for name, settings in lost.items():
            spreads[name] = pair.open_bracket(name, "PENDING_ENTRY", protection="native-oco")
            strike(pair, spreads[name], name, **{name: {"next": 1, "match": SUBMISSION, **settings}})
        alone = pair.paper.spread()
        pair.paper.fault(request_lost={"next": 1, "match": SUBMISSION})
        pair.daemon.submit("entry", alone.request(protection="native-oco"))
        until(lambda: pair.paper.struck("request_lost") == 2, "the entry is lost")

        for name, spread in spreads.items():
            live = pair.daemon.until_state(name, "EXITS_LIVE", WINDOW_S)
            assert live["protection"] == "native-oco"
            assert len(pair.paper.orders(spread, status="Live")) == 2
            # The identifiers given up are remembered, and others were sent.
            assert len({order["external_identifier"] for order in live["orders"]}) == 5
        late = spreads["late_acceptance"]
        until(lambda: broker_count(pair, late) == 5, lambda: pair.paper.orders(late))
        until(lambda: len(pair.paper.orders(late, status="Live")) == 2, lambda: pair.paper.orders(late))
        pair.daemon.until_state("late_acceptance", "EXITS_LIVE")
        live_late = sorted(order["order-type"] for order in pair.paper.orders(late, status="Live"))
        assert live_late == ["Limit", "Stop Limit"]

        shown = pair.daemon.bracket("entry")
        assert (shown["state"], shown["orders"][0]["status"]) == ("PENDING_ENTRY", "UNKNOWN")
        assert broker_count(pair, alone) == 0
        assert pair.daemon.status()["unknown_outcomes"] == 1
        for spread in spreads.values():
            pair.paper.quote(spread, TARGET)
        for name in spreads:
            ended(pair, name)
        assert broker_count(pair, alone) == 0
        pair.check_end()


@pytest.mark.covers("F49", "F50")
def test_cancel_that_is_lost_or_ignored_is_repeated_until_the_sibling_is_gone(tmp_path: Path) -> None:
    with running(tmp_path, rules={"reservation": False}, request_timeout_s="0.5") as pair:
        spread = pair.open_bracket("lost-cancel", protection="unlinked")
        pair.paper.fault(request_lost={"next": 2, "match": {"method": "DELETE"}})
        pair.paper.quote(spread, TARGET)
        shown = ended(pair, "lost-cancel")
        assert {order["role"]: order["status"] for order in shown["orders"]}["stop"] == "Cancelled"
        assert len(pair.paper.requests("DELETE")) >= 3

        stuck = pair.open_bracket("stuck-cancel", protection="unlinked")
        pair.paper.rule(stuck_cancel=True)
        pair.paper.quote(stuck, TARGET)
        before = len(pair.paper.requests("DELETE"))
        until(lambda: len(pair.paper.requests("DELETE")) >= before + 2, "the cancel is repeated")
        assert pair.daemon.bracket("stuck-cancel")["state"] != "CLOSED"
        pair.paper.rule(stuck_cancel=False)
        ended(pair, "stuck-cancel")
        pair.check_end()


# The log-in.


def logins(pair: Pair) -> int:
    return len(pair.paper.requests("POST", "/oauth/token"))


@pytest.mark.covers("F77", "F78", "F80", "F87")
def test_log_in_refused_or_away_is_waited_for_and_never_hammered(tmp_path: Path) -> None:
    scenarios: dict[str, Callable[[Path], None]] = {
        "refused then sighup": refused_then_sighup,
        "refused then restarted": refused_then_restarted,
        "away by 503": partial(token_service_away, "503"),
        "away by reset": partial(token_service_away, "reset"),
        "nobody there": nobody_there,
    }
    side_by_side(tmp_path, scenarios, at_once=5)


def refused_then_sighup(directory: Path) -> None:
    """Stays up, says so, and tries at once when told to."""
    with running(directory, start=False) as pair:
        pair.paper.fault(token_refused=True)
        before = logins(pair)
        pair.daemon.start()
        until(lambda: pair.daemon.told("alarm", code="login_refused"), pair.daemon.log.read_text)
        status = pair.daemon.cli("status", "--json")
        shown = json.loads(status.stdout)
        assert (status.returncode, shown["ready"], shown["login"]) == (0, False, "refused")
        assert "refused" in " ".join(shown["reasons_not_ready"])
        assert logins(pair) == before + 1, "one try; the next after 10 s"
        assert len(pair.daemon.told("alarm", code="login_refused")) == 1

        pair.paper.call("DELETE", "/faults")
        pair.daemon.signal(signal.SIGHUP)
        pair.daemon.wait_ready()
        assert pair.daemon.status()["login"] == "ok"
        assert logins(pair) == before + 2
        assert pair.daemon.stop() == 0


def refused_then_restarted(directory: Path) -> None:
    """SIGTERM ends it at once, and the next run knows when the last try was: 10 s lie between them."""
    with running(directory, start=False) as pair:
        pair.paper.fault(token_refused=True)
        before = logins(pair)
        pair.daemon.start()
        until(lambda: pair.daemon.told("alarm", code="login_refused"), pair.daemon.log.read_text)
        assert pair.daemon.stop() == 0
        pair.paper.call("DELETE", "/faults")
        pair.daemon.start()
        pair.daemon.wait_ready()
        first, second, *_ = pair.paper.requests("POST", "/oauth/token")[before:]
        assert second["at_us"] - first["at_us"] >= 10_000_000
        assert pair.daemon.stop() == 0


def token_service_away(mode: str, directory: Path) -> None:
    with running(directory, start=False) as pair:
        pair.paper.fault(token_unavailable={"rate": 1, "mode": mode})
        pair.daemon.start()
        until(lambda: pair.daemon.told("reconcile_failed"), pair.daemon.log.read_text)
        assert pair.daemon.status()["login"] == "ok", "away is not refused"
        pair.paper.call("DELETE", "/faults")
        pair.daemon.wait_ready()


def nobody_there(directory: Path) -> None:
    with running(directory, start=False) as pair:
        nowhere = {"api_url": "http://127.0.0.1:9", "streamer_url": "ws://127.0.0.1:9/streamer"}
        pair.daemon.settings.update(nowhere)
        pair.daemon.start()
        until(lambda: pair.daemon.told("reconcile_failed"), pair.daemon.log.read_text)
        assert pair.daemon.status()["ready"] is False
        assert pair.daemon.stop() == 0
