"""Alarms seen from outside: a web server and a mail server that are away, broken and slow when it happens."""

import json
import signal
from pathlib import Path
from typing import Any

import pytest

from tests.support.outside import MailServer, Web, outside
from tests.support.processes import ENTRY, Pair, running, until

pytestmark = [pytest.mark.slow, pytest.mark.timeout(120)]

SUBMISSION = {"method": "POST", "path": "orders$"}
WEB_SECRET = "canary-webhook-token-51c2"


def settings_of(web: Web, mail: MailServer) -> dict[str, Any]:
    return {
        "alerts__webhook_url": f"{web.url}/hook",
        "alerts__webhook_token": WEB_SECRET,
        "alerts__deadman_url": f"{web.url}/ping",
        "alerts__deadman_interval_s": "1",
        "alerts__smtp_host": "127.0.0.1",
        "alerts__smtp_port": str(mail.port),
        "alerts__smtp_security": "none",
        "alerts__email_from": "otocod@example.org",
        "alerts__email_to": "me@example.org",
        "alerts__streamer_dead_s": "1",
        "unprotected_limit_s": "0.5",
    }


def double_exit(pair: Pair) -> None:
    """Both exits fill while the daemon stands still: too quick for anybody to cancel."""
    spread = pair.open_bracket("double", protection="unlinked")
    pair.daemon.signal(signal.SIGSTOP)
    for order in pair.paper.orders(spread, status="Live"):
        pair.paper.act(order, "fill")
    pair.daemon.signal(signal.SIGCONT)
    pair.daemon.until_attention("double", "both exits filled")


def frozen(pair: Pair) -> None:
    """A proxy repeats the entry's request, and both orders fill at once."""
    spread = pair.paper.spread()
    pair.paper.quote(spread, ENTRY)
    pair.paper.fault(duplicated={"next": 1, "answer": "first", "match": SUBMISSION})
    pair.daemon.submit("twice", spread.request(protection="native-oco"))
    pair.daemon.until_attention("twice", "with one identifier")


def unprotected(pair: Pair) -> None:
    """The broker takes no exit for longer than the limit."""
    spread = pair.open_bracket("naked", "PENDING_ENTRY", protection="native-oco")
    pair.paper.fault(too_many_requests={"rate": 1, "match": SUBMISSION})
    pair.paper.quote(spread, ENTRY)
    pair.daemon.until_attention("naked", "unprotected for longer")
    pair.paper.fault(too_many_requests={"rate": 0})
    pair.daemon.until_state("naked", "EXITS_LIVE")


def dead_streamer(pair: Pair) -> None:
    pair.paper.fault(streamer_refused=True)
    pair.paper.call("POST", "/streamer/drop", {})


@pytest.mark.covers("F46", "F78", "F118")
def test_every_alarm_reaches_the_outside_over_dead_servers_errors_and_a_killed_daemon(tmp_path: Path) -> None:
    rules = {"reservation": False}
    with outside() as (web, mail), running(tmp_path, rules=rules, start=True, **settings_of(web, mail)) as pair:
        web.stop()
        mail.stop()
        double_exit(pair)
        frozen(pair)
        assert pair.daemon.cli("db", "backup", "/proc/no/such/place.db").returncode == 1
        until(lambda: pair.daemon.told("alarm", code="backup_failed"), "the backup's alarm is raised")
        pair.daemon.kill()
        pair.daemon.restart()
        until(lambda: pair.daemon.told("alert_failed", channel="webhook"), pair.daemon.lines)
        web.answers += [500, 503]
        mail.answers.append("451 try again later")
        web.start()
        mail.start()
        unprotected(pair)
        dead_streamer(pair)
        wanted = {"double_exit", "frozen", "backup_failed", "unprotected_long", "streamer_dead"}
        until(lambda: wanted <= set(web.codes), lambda: web.codes)
        until(lambda: all(code in mail.text for code in wanted), lambda: mail.subjects)
        assert (web.refused, mail.refused) == (2, 1)
        assert len(web.ids) == len(set(web.ids)), "nothing was delivered twice"
        assert all(header["Authorization"] == f"Bearer {WEB_SECRET}" for header in web.headers)
        listed = json.loads(pair.daemon.done("alerts", "list", "--json"))
        taken = {(e["code"], d["channel"]) for e in listed for d in e["deliveries"] if d["state"] == "DELIVERED"}
        assert {(code, channel) for code in wanted for channel in ("email", "webhook")} <= taken
        until(lambda: web.pings > 0, "the outside watcher is pinged")
        assert WEB_SECRET not in pair.daemon.all_logs() + pair.daemon.done("config", "show")
        pair.check_secrets()
        _by_hand(pair, web, mail)


def _by_hand(pair: Pair, web: Web, mail: MailServer) -> None:
    """What an operator and the unit otocod-alert@ do, with the daemon and without."""
    results = json.loads(pair.daemon.done("alerts", "test", "--json"))
    assert {each["channel"]: each["ok"] for each in results} == {"webhook": True, "email": True, "deadman": True}
    pair.daemon.done("alerts", "raise", "unit_failed", "otocod-backup.service has failed")
    until(lambda: "unit_failed" in web.codes, lambda: web.codes)
    assert pair.daemon.cli("alerts", "raise", "double_exit", "not yours").returncode == 2
    assert pair.daemon.stop() == 0
    mail.stop()
    tried = pair.daemon.cli("alerts", "raise", "unit_failed", "otocod.service has failed", "--json")
    assert tried.returncode == 1
    assert {each["channel"]: each["ok"] for each in json.loads(tried.stdout)} == {"webhook": True, "email": False}
    assert web.codes.count("unit_failed") == 2
    assert WEB_SECRET not in tried.stdout + tried.stderr


@pytest.mark.covers("F123")
def test_flatten_asks_first_and_closes_every_position(tmp_path: Path) -> None:
    with running(tmp_path) as pair:
        pair.open_bracket("open", protection="native-oco")
        waiting = pair.open_bracket("waiting", "PENDING_ENTRY", protection="native-oco")
        refused = pair.daemon.cli("halt", "--level", "flatten")
        assert refused.returncode == 4
        assert "1 brackets" in refused.stderr
        assert pair.daemon.status()["halted"] is False
        pair.daemon.done("halt", "--level", "flatten", "--yes", "--reason", "drill")
        assert pair.daemon.until_state("open", "CLOSED")["outcome"] == "CLOSED_BY_OPERATOR"
        assert pair.daemon.until_state("waiting", "CLOSED")["outcome"] == "ENTRY_NOT_FILLED"
        assert pair.paper.orders(waiting, status="Live") == []
        status = pair.daemon.status()
        assert (status["halted"], status["halt_level"]) == (True, "flatten")
        assert "drill" in status["halt_reason"]
        assert pair.daemon.cli("halt", "--level", "everything").returncode == 4
