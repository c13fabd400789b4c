"""Metrics: what they say of a life, that nothing secret is a label, and that whoever reads them changes nothing."""

import asyncio
import re
import shutil
import subprocess
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from otocod.adapters.metrics import Metrics, MetricsPort, ObservedStore
from otocod.domain.brackets import BracketState
from otocod.domain.ids import RequestId
from otocod.ports.requests import RequestAnswer
from tests.support.fakes import ACCOUNT, Daemon, VirtualLoop, pass_s, row
from tests.support.model_store import ModelStore
from tests.support.stored_records import changes_of_life

ROOT = Path(__file__).resolve().parents[3]


def metrics(daemon: Daemon | None = None) -> Metrics:
    made = Metrics(environment="paper", alerts=lambda: [("email", 3, 1)], alarms=lambda: {"frozen": 2})
    if daemon is not None:
        made.supervisor = daemon.supervisor
        daemon.supervisor.executor.on_answered = made.answered
    return made


def text_of(made: Metrics) -> str:
    return asyncio.run(made.text()).decode()


def figures(text: str) -> dict[str, float]:
    """By series, as text: name{label="value"}."""
    found = {}
    for line in text.splitlines():
        if not line.startswith("#"):
            name, _, value = line.rpartition(" ")
            found[name] = float(value)
    return found


def test_text_is_complete_before_there_is_an_engine() -> None:
    found = figures(text_of(metrics()))
    assert found['otocod_alarms_total{code="frozen"}'] == 2
    assert found['otocod_alert_failures{channel="email"}'] == 1


def run_virtually(story: Callable[[], Any]) -> Any:
    with asyncio.Runner(loop_factory=VirtualLoop) as runner:
        return runner.run(story())


def test_a_life_is_seen_in_the_figures() -> None:
    async def story() -> tuple[dict[str, float], str]:
        daemon = await Daemon().start()
        made = metrics(daemon)
        await daemon.protect(0)
        await daemon.take(1)
        daemon.broker.lose_request("cancel")
        daemon.supervisor.gate.is_halted = True
        daemon.queue.put(row(2))
        await pass_s(7)
        text = (await made.text()).decode()
        await daemon.stop()
        return figures(text), text

    found, text = run_virtually(story)
    assert found['otocod_brackets{state="EXITS_LIVE"}'] == 1
    assert found['otocod_brackets{state="PENDING_ENTRY"}'] == 1
    assert found["otocod_ready"] == 1
    assert found["otocod_streamer_up"] == 1
    assert found["otocod_queue_waiting"] == 1
    assert found["otocod_queue_age_seconds"] >= 7
    assert found["otocod_exit_reaction_seconds_count"] == 1
    assert found["otocod_exit_reaction_seconds_sum"] == 0  # in virtual time deciding takes none
    assert found["otocod_exit_answered_seconds_sum"] == pytest.approx(0.002)  # the fake broker's latency, twice
    assert found['otocod_broker_commands_total{kind="submit",outcome="confirmed",role="entry"}'] == 2
    assert found["otocod_orders_today"] == 4
    assert found["otocod_risk_today_dollars"] == 330
    assert ACCOUNT not in text
    assert "AAPL" not in text


async def test_stretches_without_protection_and_ends_are_counted_once_they_are_on_disk() -> None:
    made = metrics()
    model = ModelStore()
    store = ObservedStore(model, made.committed)
    steps = changes_of_life()
    model.hold()
    for step in steps:
        store.commit(step)
    await asyncio.sleep(0)
    assert "otocod_brackets_closed_total{" not in (await made.text()).decode()
    model.release()
    await asyncio.sleep(0)
    found = figures((await made.text()).decode())
    closed = [name for name in found if name.startswith("otocod_brackets_closed_total")]
    assert len(closed) == 1
    stretches = [step for step in steps if step.before and step.after.unprotected_us > step.before.unprotected_us]
    assert stretches
    assert found["otocod_unprotected_seconds_count"] == len(stretches)


async def test_a_change_that_the_disk_refused_is_not_counted() -> None:
    made = metrics()
    store = ObservedStore(ModelStore(), made.committed)
    step = next(step for step in changes_of_life() if step.after.state is BracketState.CLOSED)
    future = store.commit(step)  # nothing is known of its bracket
    await asyncio.wait([future])
    assert future.exception() is not None
    await asyncio.sleep(0)
    assert "otocod_brackets_closed_total{" not in (await made.text()).decode()


def test_answers_to_requests_are_counted_by_outcome() -> None:
    made = metrics()
    taken = RequestAnswer(RequestId(1), "a", "b1")
    made.request_answered([taken, replace(taken, bracket_id=None, reasons=("no",)), replace(taken, client_ref="c")])
    found = figures(text_of(made))
    assert found['otocod_requests_total{outcome="accepted"}'] == 2
    assert found['otocod_requests_total{outcome="rejected"}'] == 1


async def test_the_port_serves_metrics_on_loopback_and_nothing_else() -> None:
    port = MetricsPort(metrics(), 0)
    number = await port.start()
    url = f"http://127.0.0.1:{number}"
    async with aiohttp.ClientSession() as session:
        async with session.get(f"{url}/metrics") as answer:
            assert answer.status == 200
            assert answer.headers["Content-Type"].startswith("text/plain; version=0.0.4")
            assert "otocod_info" in await answer.text()
        refused: Mapping[tuple[str, str, str], int] = {
            ("GET", "/v1/status", ""): 404,
            ("POST", "/metrics", ""): 405,
            ("GET", "/metrics", "evil.example.org"): 403,
        }
        for (method, path, host), status in refused.items():
            headers = {"Host": host} if host else {}
            async with session.request(method, f"{url}{path}", headers=headers) as answer:
                assert answer.status == status, (method, path, host)
    second = MetricsPort(metrics(), number)
    assert await second.start() == 0, "a port that is taken stops nothing"
    await second.stop()
    await port.stop()


def exported() -> set[str]:
    async def story() -> str:
        daemon = await Daemon().start()
        made = metrics(daemon)
        await daemon.protect(0)
        made.request_answered([RequestAnswer(RequestId(1), "a", "b1")])
        text = (await made.text()).decode()
        await daemon.stop()
        return text

    return set(re.findall(r"^# TYPE (\S+)", run_virtually(story), re.MULTILINE))


def used_in(name: str) -> set[str]:
    text = (ROOT / "deploy" / "metrics" / name).read_text(encoding="utf-8")
    return {re.sub(r"_(bucket|sum|count)$", "", each) for each in re.findall(r"\botocod_[a-z_]+", text)}


def test_dashboard_rules_and_manual_name_only_metrics_that_exist() -> None:
    known = exported()
    for name in ("otocod.rules.yml", "otocod-dashboard.json"):
        assert used_in(name) - known == set(), name
    manual = (ROOT / "docs" / "operate.md").read_text(encoding="utf-8")
    listed = set(re.findall(r"^\| `(otocod_[a-z_]+)`", manual, re.MULTILINE))
    assert listed == known


def test_dashboard_is_json_with_a_query_in_every_panel() -> None:
    import json

    board = json.loads((ROOT / "deploy" / "metrics" / "otocod-dashboard.json").read_text(encoding="utf-8"))
    panels = board["panels"]
    assert len({panel["id"] for panel in panels}) == len(panels) > 8
    for panel in panels:
        assert panel["targets"], panel["title"]
        assert all("otocod_" in target["expr"] for target in panel["targets"])


def test_rules_have_the_shape_that_prometheus_wants() -> None:
    """As much as can be seen without its own tool, which the next test runs where it is."""
    text = (ROOT / "deploy" / "metrics" / "otocod.rules.yml").read_text(encoding="utf-8")
    rules = re.split(r"^ +- alert: ", text, flags=re.MULTILINE)[1:]
    assert len(rules) > 8
    for rule in rules:
        for part in ("expr: ", "for: ", "severity: ", "summary: ", "runbook: "):
            assert part in rule, (rule.partition("\n")[0], part)


@pytest.mark.skipif(shutil.which("promtool") is None, reason="promtool is not installed")
def test_promtool_finds_nothing_wrong(tmp_path: Path) -> None:
    rules = ROOT / "deploy" / "metrics" / "otocod.rules.yml"
    checked = subprocess.run(["promtool", "check", "rules", str(rules)], capture_output=True, text=True, timeout=30)
    assert checked.returncode == 0, checked.stdout + checked.stderr
    tested = subprocess.run(
        ["promtool", "test", "rules", str(ROOT / "tests" / "unit" / "adapters" / "otocod.rules.test.yml")],
        capture_output=True,
        text=True,
        timeout=30,
        cwd=ROOT,
    )
    assert tested.returncode == 0, tested.stdout + tested.stderr
    linted = subprocess.run(
        ["promtool", "check", "metrics"], input=text_of(metrics()).encode(), capture_output=True, timeout=30
    )
    assert linted.returncode == 0, linted.stdout + linted.stderr
