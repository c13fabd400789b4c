"""An outcome that stays unknown, from the record in memory to a web server and a mail server that are slow and fail."""

import asyncio
import threading
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from otocod.adapters.alerts import dispatcher as module
from otocod.adapters.alerts.channels import channels_of
from otocod.adapters.alerts.dispatcher import Dispatcher
from otocod.adapters.sqlite.store import SqliteStore
from otocod.config import AlertSettings, Secret, SmtpSecurity
from otocod.domain.orders import OrderState
from otocod.domain.timing import ENTRY_WINDOW_US
from otocod.engine.health import Health
from tests.support.fakes import Daemon, accepted
from tests.support.outside import outside
from tests.support.state_file import fresh_state


async def until(condition: Callable[[], object]) -> None:
    # The servers are threads, so there is no event of ours to wait for.
    ends_s = asyncio.get_running_loop().time() + 20
    while not condition():
        assert asyncio.get_running_loop().time() < ends_s, "it has not come to that within 20 s"
        await asyncio.sleep(0.01)


@pytest.mark.covers("F3")
async def test_an_unknown_outcome_past_its_window_reaches_both_servers_although_they_are_slow_and_fail(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "_RETRY_FIRST_S", 0.01)
    path = fresh_state(tmp_path)
    store = await SqliteStore.open(path)
    is_slow = threading.Event()

    def slowly() -> int:
        is_slow.wait(10)
        return 500

    with outside() as (web, mail):
        web.answers += [slowly, 502]
        mail.answers += ["421 not now", "554 never"]
        settings = AlertSettings(
            webhook_url=Secret(f"{web.url}/hook"),
            smtp_host="127.0.0.1",
            smtp_port=mail.port,
            smtp_security=SmtpSecurity.NONE,
            email_from="otocod@example.org",
            email_to=("me@example.org",),
        )
        daemon = Daemon()
        alerts = Dispatcher(store, path, daemon.clock, channels_of(settings), host="box", environment="paper")
        await alerts.open()
        running = asyncio.create_task(alerts.run())
        bracket = accepted().bracket
        since_us = daemon.clock.now_us() - ENTRY_WINDOW_US - 6_000_000
        order = replace(bracket.orders[0], state=OrderState.UNKNOWN, unknown_since_us=since_us)
        daemon.supervisor.mailboxes.load((replace(bracket, orders=(order, *bracket.orders[1:])),))
        health = Health(
            daemon.clock,
            alerts,
            daemon.supervisor.mailboxes,
            daemon.streamer,
            daemon.supervisor.reconciler,
            is_ready=lambda: True,
            login_refused=lambda: None,
            streamer_dead_s=60,
        )
        for _ in range(3):
            await health.look()
        # The mail does not wait for the web server, which has not answered yet.
        await until(lambda: mail.mails)
        is_slow.set()
        await until(lambda: web.posts)
        assert web.codes == ["unknown_outcome"]
        assert (web.refused, mail.refused) == (2, 2)
        (alert,) = web.posts[0]["alerts"]
        assert (alert["bracket_id"], order.external_identifier in alert["text"]) == (bracket.bracket_id, True)
        assert mail.subjects == [f"otocod CRITICAL: unknown_outcome: {alert['text']}"[:160]]
        running.cancel()
        await asyncio.wait([running])
        await alerts.close()
    await store.close()
