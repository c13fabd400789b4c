"""What an operator does, with the real command line against the running daemon."""

import json
import signal
from collections.abc import Iterator
from decimal import Decimal
from pathlib import Path

import pytest

from tests.support.processes import (
    ACCOUNT,
    CLIENT_SECRET,
    ENTRY,
    QUIET,
    REFRESH_TOKEN,
    STOP,
    TARGET,
    Pair,
    running,
    until,
)

pytestmark = [pytest.mark.slow, pytest.mark.timeout(120)]

# Commands that tell much about the daemon.
SAYING = (
    "config show",
    "config check",
    "status",
    "doctor",
    "events",
    "explain ref:secret",
    "audit",
    "db check",
)


@pytest.fixture(scope="module")
def pair(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Pair]:
    with running(tmp_path_factory.mktemp("operator")) as pair:
        yield pair


# Commands on one bracket.


@pytest.mark.covers("F123")
def test_cancel_ends_an_entry_and_a_second_cancel_is_refused(pair: Pair) -> None:
    spread = pair.open_bracket("cancelled", "PENDING_ENTRY", protection="native-otoco")
    pair.daemon.done("cancel", "ref:cancelled")
    assert pair.daemon.until_state("cancelled", "CLOSED")["outcome"] == "ENTRY_NOT_FILLED"
    assert pair.paper.orders(spread, status="Live") == []
    assert pair.daemon.cli("cancel", "ref:cancelled").returncode == 4


def test_cancel_of_a_part_filled_entry_protects_what_filled(pair: Pair) -> None:
    spread = pair.paper.spread()
    pair.daemon.submit("part-cancel", spread.request(2, protection="native-oco"))
    pair.paper.act(pair.paper.working(spread)[0], "fill", quantity=1)
    pair.daemon.until_state("part-cancel", "ENTRY_FILLED")
    pair.daemon.done("cancel", "ref:part-cancel")
    pair.daemon.until_state("part-cancel", "EXITS_LIVE")
    exits = pair.paper.orders(spread, status="Live")
    assert [{leg["quantity"] for leg in order["legs"]} for order in exits] == [{1}, {1}]
    pair.paper.quote(spread, TARGET)
    assert pair.daemon.until_state("part-cancel", "CLOSED")["outcome"] == "TARGET_FILLED"


@pytest.mark.parametrize("mode", ["native-otoco", "native-oco"])
@pytest.mark.parametrize("at", ["natural", "0.95"])
def test_close_cancels_the_exits_confirms_and_closes(pair: Pair, mode: str, at: str) -> None:
    ref = f"close-{mode}-{at}"
    spread = pair.open_bracket(ref, protection=mode)
    pair.daemon.done("close", f"ref:{ref}", "--at", at)
    if at != "natural":
        # The market asks 1.00 and the limit is 0.95: the close rests until the market comes to it.
        close = pair.paper.working(spread)
        assert [(order["order-type"], order["price"]) for order in close] == [("Limit", "0.95")]
        assert pair.daemon.bracket(ref)["state"] != "CLOSED"
        pair.paper.quote(spread, QUIET)
    shown = pair.daemon.until_closed(ref)
    assert shown["outcome"] == "CLOSED_BY_OPERATOR"
    assert Decimal(shown["exit_net_price"]) <= Decimal("1.00" if at == "natural" else "0.95")
    assert [order["role"] for order in shown["orders"] if order["filled_quantity"]] == ["entry", "close"]
    assert pair.paper.orders(spread, status="Live") == []
    assert pair.daemon.cli("close", f"ref:{ref}").returncode == 4


def test_close_off_the_grid_or_of_nothing_is_refused_with_4_and_of_no_bracket_with_3(pair: Pair) -> None:
    spread = pair.open_bracket("off-grid", protection="native-oco")
    refused = pair.daemon.cli("close", "ref:off-grid", "--at", "0.955")
    assert refused.returncode == 4
    assert "increment" in refused.stdout + refused.stderr
    assert pair.daemon.bracket("off-grid")["state"] == "EXITS_LIVE"
    assert len(pair.paper.orders(spread, status="Live")) == 2
    assert pair.daemon.cli("close", "ref:nobody").returncode == 3
    assert pair.daemon.cli("show", "ref:nobody").returncode == 3
    assert pair.daemon.cli("close", "ref:off-grid", "--at", "x").returncode == 4
    assert pair.daemon.cli("close").returncode == 2


@pytest.mark.parametrize("mode", ["native-otoco", "native-oco"])
def test_change_moves_both_exits_and_they_fill_at_their_new_prices(pair: Pair, mode: str) -> None:
    ref = f"change-{mode}"
    spread = pair.open_bracket(ref, protection=mode)
    pair.daemon.done("change", f"ref:{ref}", "--target", "0.35", "--stop", "1.60,1.80")

    def prices() -> dict[str, tuple[Decimal, object]]:
        return {
            order["order-type"]: (Decimal(order["price"]), order.get("stop-trigger"))
            for order in pair.paper.orders(spread, status="Live")
        }

    until(
        lambda: (
            {kind: price for kind, (price, _) in prices().items()}
            == {"Limit": Decimal("0.35"), "Stop Limit": Decimal("1.80")}
        ),
        lambda: (prices(), pair.daemon.bracket(ref)),
    )
    assert Decimal(str(prices()["Stop Limit"][1])) == Decimal("1.60")
    shown = pair.daemon.until_state(ref, "EXITS_LIVE")
    assert shown["attention"] is None
    pair.paper.quote(spread, TARGET)
    assert pair.daemon.until_state(ref, "CLOSED")["outcome"] == "TARGET_FILLED"
    assert pair.paper.positions().get(spread.short, 0) == 0


def test_change_that_makes_no_sense_is_refused_with_every_reason(pair: Pair) -> None:
    pair.open_bracket("bad-change", protection="native-oco")
    refused = pair.daemon.cli("change", "ref:bad-change", "--target", "0.90", "--stop", "1.70,1.60")
    assert refused.returncode == 4
    told = refused.stdout + refused.stderr
    assert "target" in told
    assert "stop" in told
    assert pair.daemon.bracket("bad-change")["attention"] is None
    assert pair.daemon.cli("change", "ref:bad-change").returncode == 2


@pytest.mark.covers("F67")
def test_exit_cancelled_by_hand_is_held_and_attention_stays_until_acknowledged(pair: Pair) -> None:
    spread = pair.open_bracket("by-hand", protection="native-oco")
    target = next(order for order in pair.paper.orders(spread, status="Live") if order["order-type"] == "Limit")
    pair.paper.call("POST", f"/complex-orders/{target['complex-order-id']}/cancel")
    held = pair.daemon.until_attention("by-hand", "cancelled by a person")
    assert held["state"] == "ENTRY_FILLED"
    assert len(pair.paper.orders(spread)) == 3
    assert "by-hand" in pair.daemon.done("list", "--attention")
    pair.daemon.done("ack", "ref:by-hand")
    assert pair.daemon.bracket("by-hand")["attention"] is None
    pair.daemon.done("unfreeze", "ref:by-hand")
    pair.daemon.until_state("by-hand", "EXITS_LIVE")
    pair.paper.quote(spread, STOP)
    assert pair.daemon.until_state("by-hand", "CLOSED")["outcome"] == "STOP_FILLED"


def test_release_leaves_orders_and_position_as_they_are(pair: Pair) -> None:
    spread = pair.open_bracket("released", protection="native-oco")
    before = [(order["id"], order["status"]) for order in pair.paper.orders(spread)]
    pair.daemon.done("release", "ref:released")
    shown = pair.daemon.until_state("released", "CLOSED")
    assert shown["outcome"] == "RELEASED"
    pair.daemon.done("reconcile")
    assert [(order["id"], order["status"]) for order in pair.paper.orders(spread)] == before
    text = pair.daemon.done("show", "ref:released")
    assert "handed over" in text.lower()
    pair.daemon.audit()


def test_story_events_and_lists_are_told_from_the_same_record(pair: Pair) -> None:
    spread = pair.open_bracket("told", protection="native-oco", tags={"desk": "seven"})
    bracket_id = pair.daemon.bracket("told")["bracket_id"]
    assert bracket_id in pair.daemon.done("list", "--open", "--json")
    assert "EntryFilled" in pair.daemon.done("events", "ref:told")
    explained = pair.daemon.done("explain", bracket_id)
    assert "The entry filled." in explained
    assert "believed  entry FILLED 1/1" in explained
    assert "broker    entry Filled 1/1 at " in explained
    assert "APART" not in explained
    assert "broker    " not in pair.daemon.done("explain", bracket_id, "--offline")
    assert "If otocod dies: the group holds by itself." in explained
    assert "Maximum loss: 165 dollars, at expiry." in explained
    shown = json.loads(pair.daemon.done("show", bracket_id, "--json"))
    assert (shown["client_ref"], shown["account"], shown["tags"]) == ("told", ACCOUNT, {"desk": "seven"})
    pair.paper.quote(spread, TARGET)
    pair.daemon.until_state("told", "CLOSED")


def test_reconcile_finds_what_the_stream_did_not_say_and_dry_run_only_tells_it(tmp_path: Path) -> None:
    with running(tmp_path, reconcile_interval_s="300") as pair:
        spread = pair.open_bracket("unseen", protection="native-oco")
        pair.paper.fault(frame_lost=True)
        pair.paper.quote(spread, TARGET)
        assert "Filled at the broker" in pair.daemon.done("reconcile", "--dry-run")
        assert pair.daemon.bracket("unseen")["state"] == "EXITS_LIVE"
        pair.daemon.done("reconcile")
        assert pair.daemon.until_closed("unseen")["outcome"] == "TARGET_FILLED"
        assert "no differences" in pair.daemon.done("reconcile")
        pair.check_end()


# Commands on the daemon.


def test_halt_holds_across_a_kill_and_a_stop_while_exits_are_managed(tmp_path: Path) -> None:
    with running(tmp_path) as pair:
        spread = pair.open_bracket("open", "PENDING_ENTRY", protection="native-oco")
        pair.daemon.done("halt", "--reason", "news")
        waiting = pair.paper.spread()
        pair.daemon.submit("held-back", waiting.request())
        pair.daemon.kill()
        pair.daemon.restart()
        status = pair.daemon.status()
        assert status["halted"] is True
        assert "news" in status["halt_reason"]
        pair.paper.quote(spread, ENTRY)
        pair.daemon.until_state("open", "EXITS_LIVE")
        pair.paper.quote(spread, TARGET)
        pair.daemon.until_state("open", "CLOSED")
        assert pair.daemon.row("held-back")[0] == "NEW"
        assert pair.paper.orders(waiting) == []
        assert pair.daemon.stop() == 0
        pair.daemon.restart()
        assert pair.daemon.status()["halted"] is True
        pair.daemon.done("resume")
        pair.paper.working(waiting)
        assert pair.daemon.row("held-back")[0] == "ACCEPTED"


def test_status_tells_counts_and_readiness_and_75_or_the_file_without_a_daemon(tmp_path: Path) -> None:
    with running(tmp_path) as pair:
        pair.open_bracket("counted", protection="native-oco")
        status = pair.daemon.status()
        assert status["ready"] is True
        assert status["reasons_not_ready"] == []
        assert status["streamer"]["healthy"] is True
        assert status["unknown_outcomes"] == 0
        assert "EXITS_LIVE" in json.dumps(status)
        pair.daemon.done("doctor")
        assert pair.daemon.stop() == 0
        # Reads go to the file now; what asks the broker cannot be done.
        assert json.loads(pair.daemon.done("show", "ref:counted", "--json"))["state"] == "EXITS_LIVE"
        assert json.loads(pair.daemon.cli("status", "--json").stdout)["ready"] is False
        for command in (("close", "ref:counted"), ("halt",), ("reconcile",), ("cancel", "ref:counted")):
            assert pair.daemon.cli(*command).returncode == 75, command
        alone = pair.daemon.cli("audit")
        assert alone.returncode == 0
        assert "database alone" in alone.stdout


@pytest.mark.covers("F99")
def test_second_daemon_on_the_directory_exits_75_and_the_first_goes_on(pair: Pair) -> None:
    second = pair.daemon.cli("run")
    assert second.returncode == 75
    assert "another otocod" in second.stdout + second.stderr
    assert pair.daemon.status()["ready"] is True


@pytest.mark.covers("F99")
def test_daemon_whose_lock_file_is_removed_sends_nothing_more_and_the_next_one_protects(tmp_path: Path) -> None:
    with running(tmp_path) as pair:
        spread = pair.open_bracket("robbed", "PENDING_ENTRY", protection="native-oco")
        (pair.directory / "data" / "lock").unlink()
        pair.paper.quote(spread, ENTRY)
        assert pair.daemon.wait_end() == 75
        assert pair.daemon.told("alarm", code="lock_lost")
        assert pair.paper.orders(spread, status="Live") == []
        pair.daemon.start()
        pair.daemon.wait_ready()
        pair.daemon.until_state("robbed", "EXITS_LIVE", timeout_s=30)
        pair.paper.quote(spread, TARGET)
        pair.daemon.until_state("robbed", "CLOSED")
        pair.check_end()


@pytest.mark.covers("F74")
def test_another_environment_or_a_missing_account_with_open_brackets_is_refused(tmp_path: Path) -> None:
    with running(tmp_path) as pair:
        pair.open_bracket("mine", "PENDING_ENTRY", protection="native-oco")
        assert pair.daemon.stop() == 0
        settings = dict(pair.daemon.settings)

        pair.daemon.settings = settings | {"accounts": "5WT00002"}
        refused = pair.daemon.cli("run")
        assert refused.returncode in (4, 78), refused.stderr
        assert "account" in refused.stdout + refused.stderr

        pair.daemon.settings = {k: v for k, v in settings.items() if not k.endswith("_url")} | {
            "environment": "sandbox"
        }
        refused = pair.daemon.cli("run")
        assert refused.returncode in (4, 78), refused.stderr
        assert "environment" in refused.stdout + refused.stderr

        pair.daemon.settings = settings | {"reconcile_interval_s": "0", "on_double_exit": "panic"}
        refused = pair.daemon.cli("run")
        assert refused.returncode == 78
        told = refused.stdout + refused.stderr
        assert "reconcile_interval_s" in told
        assert "on_double_exit" in told

        pair.daemon.settings = settings | {"accounts": f"{ACCOUNT},5WT00002"}
        pair.daemon.start()
        until(lambda: pair.daemon.told("reconcile_failed") or pair.daemon.told("ready"), pair.daemon.log.read_text)


def test_sighup_applies_what_may_change_and_names_what_may_not(tmp_path: Path) -> None:
    with running(tmp_path, start=False) as pair:
        file = tmp_path / "otocod.toml"
        settings = pair.daemon.settings
        for name in ("reconcile_interval_s", "heartbeat_interval_s"):
            settings.pop(name, None)
        settings["config"] = str(file)
        file.write_text("reconcile_interval_s = 5\n")
        pair.daemon.restart()
        file.write_text(f'reconcile_interval_s = 7\nqueue = "{tmp_path}/elsewhere/queue.db"\n')
        pair.daemon.signal(signal.SIGHUP)
        until(lambda: pair.daemon.told("settings_reloaded"), pair.daemon.log.read_text)
        (line,) = pair.daemon.told("settings_reloaded")
        assert any("reconcile_interval_s" in str(each) for each in line["applied"])
        assert any("queue" in str(each) for each in line["needs_restart"])
        file.write_text("reconcile_interval_s = 0\n")
        pair.daemon.signal(signal.SIGHUP)
        until(lambda: pair.daemon.told("configuration_problem", told="reconcile_interval_s"), pair.daemon.log.read_text)
        assert pair.daemon.status()["ready"] is True
        assert pair.daemon.stop() == 0


@pytest.mark.covers("F118", "F119")
def test_secrets_and_account_appear_nowhere(tmp_path: Path) -> None:
    """A life with faults in it, then every byte that was written or said is searched."""
    with running(tmp_path, log_level="debug", request_timeout_s="0.5") as pair:
        pair.paper.fault(
            token_death={"next": 1, "match": {"method": "POST"}}, body_html={"next": 1, "match": {"method": "POST"}}
        )
        spread = pair.open_bracket("secret", protection="native-oco")
        pair.paper.fault(too_many_requests={"next": 1}, frame_garbage={"next": 3})
        pair.paper.call("POST", "/streamer/drop", {})
        pair.daemon.submit("wrong", "{", account=ACCOUNT)
        pair.daemon.answered("wrong")
        said = "".join(
            result.stdout + result.stderr for result in (pair.daemon.cli(*command.split()) for command in SAYING)
        )
        pair.paper.quote(spread, TARGET)
        pair.daemon.until_state("secret", "CLOSED")
        with pair.daemon.log.open() as log:
            assert ACCOUNT not in log.read()
        assert CLIENT_SECRET not in said
        assert REFRESH_TOKEN not in said
        process = pair.daemon.process
        assert process is not None
        assert CLIENT_SECRET.encode() not in Path(f"/proc/{process.pid}/cmdline").read_bytes()
        assert pair.daemon.stop() == 0
        written = [path for path in pair.daemon.data_dir.rglob("*") if path.is_file()] + [pair.daemon.log]
        assert any(path.name == "state.db" for path in written)
        for path in written:
            content = path.read_bytes()
            for secret in (CLIENT_SECRET, REFRESH_TOKEN):
                assert secret.encode() not in content, path
            assert path.stat().st_mode & 0o007 == 0 or path == pair.daemon.log, path


def test_daemon_that_is_stopped_while_an_operator_closes_finishes_the_close_after_it(tmp_path: Path) -> None:
    with running(tmp_path) as pair:
        spread = pair.open_bracket("closing", protection="native-oco")
        pair.daemon.done("close", "ref:closing", "--at", "0.95")
        pair.paper.working(spread)
        pair.daemon.kill()
        pair.daemon.restart()
        pair.paper.quote(spread, QUIET)
        shown = pair.daemon.until_closed("closing")
        assert shown["outcome"] == "CLOSED_BY_OPERATOR"
        pair.check_end()


def test_what_the_account_takes_is_asked_again_after_a_start_and_doctor_shows_it_with_its_date(tmp_path: Path) -> None:
    with running(tmp_path, rules={"native_oco_spreads": False}) as pair:
        pair.open_bracket("asked", protection="auto")
        before = len(pair.paper.orders())
        pair.daemon.stop()
        pair.daemon.restart()

        def details(name: str) -> list[str]:
            checks = json.loads(pair.daemon.cli("doctor", "--json").stdout)
            return [each["detail"] for each in checks if each["check"] == name]

        def are_both_on_record() -> bool:
            found = "; ".join(details("capability"))
            return "native-otoco: accepted at 20" in found and "native-oco: refused at 20" in found

        until(are_both_on_record, lambda: str(details("capability")), 30)
        (told,) = details("open questions")
        assert "5: native-otoco accepted on 20" in told
        assert len(pair.paper.orders()) == before, "a dry-run leaves nothing behind"
        assert pair.daemon.bracket("asked")["state"] == "EXITS_LIVE"
