"""Canaries for secrets and account numbers: whatever leaves the daemon, by any way, is searched for them."""

import http.client
import json
import re
import signal
import socket
from pathlib import Path
from typing import Any

import pytest

from tests.support.outside import outside
from tests.support.processes import ACCOUNT, CLIENT_SECRET, REFRESH_TOKEN, Pair, running, until

pytestmark = [pytest.mark.slow, pytest.mark.timeout(120)]

WEBHOOK_TOKEN = "canary-webhook-token-7b1e44"
SECRETS = (CLIENT_SECRET, REFRESH_TOKEN, WEBHOOK_TOKEN)
# Answers in which an operator is not shown whose account it is.
LOOKS = ("/v1/status", "/v1/doctor", "/v1/alerts?limit=50", "/v1/events?limit=1000", "/metrics")


def by_socket(pair: Pair) -> str:
    """What the socket answers to good calls and to one that makes no sense, as it stands on the wire."""
    said = []
    for path in (*LOOKS, "/v1/brackets/none"):
        connection = http.client.HTTPConnection("otocod")
        connection.sock = socket.socket(socket.AF_UNIX)
        connection.sock.connect(str(pair.daemon.data_dir / "otocod.sock"))
        connection.request("GET", path)
        said.append(connection.getresponse().read().decode())
        connection.close()
    assert "otocod_ready 1" in "".join(said)
    return "".join(said)


@pytest.mark.covers("F118")
def test_no_secret_and_no_account_number_leaves_by_log_socket_metrics_or_alert(tmp_path: Path) -> None:
    with outside() as (web, mail):
        settings: dict[str, Any] = {
            "log_level": "debug",
            "request_timeout_s": "0.5",
            "alerts__webhook_url": f"{web.url}/hook",
            "alerts__webhook_token": WEBHOOK_TOKEN,
            "alerts__smtp_host": "127.0.0.1",
            "alerts__smtp_port": str(mail.port),
            "alerts__smtp_security": "none",
            "alerts__email_from": "otocod@example.org",
            "alerts__email_to": "me@example.org",
        }
        with running(tmp_path, **settings) as pair:
            _have_trouble(pair)
            until(lambda: "exit_ended" in web.codes and "exit_ended" in mail.text, lambda: web.codes)
            said = {
                "socket": by_socket(pair),
                "webhook": json.dumps(web.posts),
                "mail": "\n".join(map(str, mail.mails)) + mail.text,
                "doctor": pair.daemon.cli("doctor").stdout,
                "status": pair.daemon.cli("status").stdout,
                "refusal": pair.daemon.cli("close", "ref:none").stderr + pair.daemon.cli("change", "ref:mine").stderr,
            }
            process = pair.daemon.process
            assert process is not None
            assert re.search(r"Max core file size +0 +0 ", Path(f"/proc/{process.pid}/limits").read_text())
            # A crash, the worst moment for whoever must keep quiet.
            pair.daemon.signal(signal.SIGABRT)
            process.wait(10)
            said["log"] = pair.daemon.all_logs()
            for way, text in said.items():
                for canary in (*SECRETS, ACCOUNT):
                    assert canary not in text, f"{canary} left by {way}"
            for path in (each for each in tmp_path.rglob("*") if each.is_file()):
                content = path.read_bytes()
                assert not [secret for secret in SECRETS if secret.encode() in content], path
            assert not list(tmp_path.rglob("core*"))


def _have_trouble(pair: Pair) -> None:
    """Answers that quote what was sent, refusals, garbage, and somebody who meddles."""
    pair.paper.fault(
        token_death={"next": 1, "match": {"method": "POST"}}, body_html={"next": 1, "match": {"method": "POST"}}
    )
    spread = pair.open_bracket("mine", protection="native-oco")
    pair.paper.fault(too_many_requests={"next": 1}, frame_garbage={"next": 3})
    pair.paper.call("POST", "/streamer/drop", {})
    pair.daemon.submit("wrong", "{", account=ACCOUNT)
    pair.daemon.answered("wrong")
    pair.paper.act(pair.paper.working(spread)[0], "cancel")
