"""What the service must bear, one function each, run in this order on one machine; each answers what was measured."""

import json
import re
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from tests.support.outside import Web
from tests.support.processes import until
from tests.systemd_proof.machine import Machine

SECRETS = ("canary-client-secret-77c1", "canary-refresh-token-90ab")
_LEG = {"instrument-type": "Equity Option", "quantity": 1}
_REQUEST = {
    "version": 1,
    "entry": {
        "time-in-force": "Day",
        "order-type": "Limit",
        "price": "0.85",
        "price-effect": "Credit",
        "legs": [
            _LEG | {"symbol": "AAPL  291221C00155000", "action": "Sell to Open"},
            _LEG | {"symbol": "AAPL  291221C00157500", "action": "Buy to Open"},
        ],
    },
    "target": {"price": "0.40", "price-effect": "Debit"},
    "stop": {"trigger": "1.70", "price": "1.90", "price-effect": "Debit"},
}
_EXPOSURE_MAX = 1.5
_STOP_MAX_S = 10.0
_WATCHDOG_S = 20.0


@dataclass
class Service:
    machine: Machine
    web: Web

    def pid(self) -> str:
        return self.machine.show("otocod", "MainPID")["MainPID"]

    def state(self) -> str:
        return self.machine.show("otocod", "ActiveState")["ActiveState"]

    def status(self) -> dict[str, Any]:
        found: dict[str, Any] = json.loads(self.machine.shell("otocod status --json"))
        return found

    def until_ready_again(self, old_pid: str, timeout_s: float) -> float:
        """Seconds until another process was ready."""
        began_s = time.monotonic()
        until(
            lambda: self.pid() not in ("0", old_pid) and self.state() == "active",
            lambda: self.machine.shell("systemctl status otocod --no-pager || true"),
            timeout_s,
        )
        assert self.status()["ready"] is True
        return time.monotonic() - began_s

    def signal(self, name: str, unit: str = "otocod") -> None:
        self.machine.shell(f"systemctl kill --kill-whom=main --signal={name} {unit}")


def hardened(service: Service) -> str:
    machine = service.machine
    shown = machine.show(
        "otocod",
        "Type",
        "ActiveState",
        "Restart",
        "RestartPreventExitStatus",
        "StartLimitIntervalUSec",
        "NoNewPrivileges",
    )
    assert shown["ActiveState"] == "active"
    assert shown["Type"] == "notify"
    assert shown["Restart"] == "always"
    assert shown["StartLimitIntervalUSec"] == "0"
    assert shown["NoNewPrivileges"] == "yes"
    units = "otocod.service otocod-backup.service otocod-audit.service otocod-alert@otocod.service.service"
    verified = machine.try_shell(f"systemd-analyze verify --man=no {units}")
    assert "otocod" not in verified.stdout + verified.stderr, verified.stderr
    found = re.search(r"exposure level for otocod.service: ([0-9.]+)", machine.shell("systemd-analyze security otocod"))
    assert found is not None
    assert float(found[1]) <= _EXPOSURE_MAX
    status = machine.shell(f"cat /proc/{service.pid()}/status")
    assert re.search(r"CapEff:\s+0+$", status, re.MULTILINE)
    assert re.search(r"Seccomp:\s+2$", status, re.MULTILINE)
    return f"exposure {found[1]}, no capabilities, seccomp filter on"


def credentials(service: Service) -> str:
    machine, pid = service.machine, service.pid()
    shown = machine.shell(f"nsenter --target {pid} --mount ls -l /run/credentials/otocod.service")
    assert "otocod-client-secret" in shown
    assert "otocod-refresh-token" in shown
    told = machine.shell(
        f"tr '\\0' '\\n' < /proc/{pid}/environ; tr '\\0' ' ' < /proc/{pid}/cmdline; journalctl --no-pager; "
        "otocod config show; otocod doctor; otocod status --json"
    )
    for secret in SECRETS:
        assert secret not in told
    limits = machine.shell(f"cat /proc/{pid}/limits")
    assert re.search(r"Max core file size\s+0\s+0", limits)
    return "in files of the service alone; not in its environment, arguments, journal or answers; no core dumps"


def people(service: Service) -> str:
    machine = service.machine
    machine.shell(f"cat > /tmp/bracket.json <<'EOF'\n{json.dumps(_REQUEST)}\nEOF\nchmod 644 /tmp/bracket.json")
    machine.shell("otocod submit /tmp/bracket.json --account 5WT00001 --client-ref first", user="bob")
    until(lambda: "PENDING_ENTRY" in machine.shell("otocod list", user="alice"), "the request is a bracket", 20)
    machine.shell("otocod halt --reason drill", user="alice")
    assert "alice" in service.status()["halt_reason"] or "uid" in json.dumps(service.status())
    machine.shell("otocod resume", user="alice")
    for user, command in (
        ("bob", "OTOCOD_SOCKET=/run/otocod/otocod.sock otocod halt"),
        ("bob", "ls /var/lib/otocod"),
        ("alice", "head --bytes=1 /var/lib/otocod/state.db"),
        ("alice", "ls /etc/credstore"),
        ("alice", "ls /var/lib/otocod-queue"),
    ):
        assert machine.try_shell(command, user=user).returncode != 0, f"{user}: {command}"
    return "an operator operates, a submitter submits, neither reads state.db or secrets"


def reload(service: Service) -> str:
    pid = service.pid()
    service.machine.shell(
        "printf '[limits]\\nopen_brackets = 7\\n' >> /etc/otocod/otocod.toml; systemctl reload otocod"
    )
    assert service.pid() == pid
    assert service.state() == "active"
    line = service.machine.shell("journalctl -u otocod -o cat --no-pager | grep settings_reloaded | tail -1")
    assert json.loads(line)["applied"] == ["limits.open_brackets"], line
    # The journal has fields of ours, and the level for a priority.
    indexed = service.machine.shell("journalctl OTOCOD_EVENT=settings_reloaded PRIORITY=6 -o cat --no-pager")
    assert indexed.strip() == line.strip()
    return "applied limits.open_brackets, same process; found by its field in the journal"


def kill(service: Service) -> str:
    pid = service.pid()
    service.signal("KILL")
    took_s = service.until_ready_again(pid, 30)
    assert "first" in service.machine.shell("otocod list")
    return f"ready again after {took_s:.1f} s, with its bracket"


def stopped_process(service: Service) -> str:
    pid = service.pid()
    service.signal("STOP")
    took_s = service.until_ready_again(pid, 3 * _WATCHDOG_S)
    assert took_s > _WATCHDOG_S / 2
    return f"killed by the watchdog, ready again after {took_s:.0f} s"


def broker_away(service: Service) -> str:
    """Not ready, not killed for it, and watched all the same."""
    machine = service.machine
    machine.shell("systemctl kill --signal=STOP otocod-paper")
    machine.shell("systemctl restart --no-block otocod")
    until(lambda: service.state() == "activating", "it starts", 30)
    until(lambda: service.pid() != "0", "it runs", 10)
    pid, began_s = service.pid(), time.monotonic()
    # The condition is that nothing happens, for longer than the watchdog's patience.
    until(lambda: time.monotonic() - began_s > 1.5 * _WATCHDOG_S, "time has passed", 3 * _WATCHDOG_S)
    assert (service.state(), service.pid()) == ("activating", pid)
    service.signal("STOP")
    until(lambda: service.pid() not in ("0", pid), "the watchdog has struck although it was not ready", 3 * _WATCHDOG_S)
    machine.shell("systemctl kill --signal=CONT otocod-paper")
    took_s = service.until_ready_again(pid, 60)
    waited_s = 1.5 * _WATCHDOG_S
    return f"waited {waited_s:.0f} s unkilled; hung, it was killed; ready {took_s:.0f} s after the broker's return"


def upkeep(service: Service) -> str:
    machine = service.machine
    timers = machine.shell("systemctl list-timers --no-pager")
    assert "otocod-backup.timer" in timers
    assert "otocod-audit.timer" in timers
    machine.shell("systemctl start otocod-backup.service otocod-audit.service")
    (copy, *_) = machine.shell("ls /var/lib/otocod/state-*.db").split()
    assert machine.shell("journalctl OTOCOD_EVENT=journals_archived -o cat --no-pager")
    machine.shell("otocod db check")
    return f"both timers wait; {copy.rsplit('/')[-1]}; nothing to archive; audit clean"


def alerts(service: Service) -> str:
    machine, web = service.machine, service.web
    machine.shell(f"printf %s {web.url}/hook | install -m 0600 /dev/stdin /etc/credstore/otocod-webhook-url")
    machine.shell("systemctl restart otocod; otocod alerts test")
    assert web.codes == ["test"]
    drop_in = "/run/systemd/system/otocod-backup.service.d"
    machine.shell(
        f"mkdir -p {drop_in}; printf '[Service]\\nExecStart=\\nExecStart=/bin/false\\n' > {drop_in}/x.conf; "
        "systemctl daemon-reload; systemctl start otocod-backup.service || true"
    )
    until(lambda: "unit_failed" in web.codes, lambda: web.posts, 30)
    assert "otocod-backup.service has failed" in web.posts[-1]["text"]
    machine.shell(f"rm -r {drop_in}; systemctl daemon-reload; systemctl reset-failed otocod-backup.service")
    return "test and a failed backup seen by the web server"


def broken_settings(service: Service) -> str:
    """Exit 78: not started again, and told by the alert unit with the daemon dead and a web server that fails."""
    machine, web = service.machine, service.web
    web.answers += [500] * 3
    seen = len(web.codes)
    machine.shell("cp /etc/otocod/otocod.toml /srv; echo 'no toml [' >> /etc/otocod/otocod.toml")
    machine.shell("systemctl restart otocod || true")
    shown = machine.show("otocod", "ActiveState", "ExecMainStatus")
    assert shown == {"ActiveState": "failed", "ExecMainStatus": "78"}
    until(lambda: len(web.codes) > seen, lambda: (web.refused, web.posts), 120)
    assert web.refused == 3
    assert "otocod.service has failed" in web.posts[-1]["text"]
    assert len(web.codes) == seen + 1
    machine.shell("cp /srv/otocod.toml /etc/otocod/otocod.toml; systemctl start otocod")
    return "78 stays down; the alert came through on the fourth try, once"


def orderly_stop(service: Service) -> str:
    began_s = time.monotonic()
    service.machine.shell("systemctl stop otocod")
    took_s = time.monotonic() - began_s
    assert took_s < _STOP_MAX_S
    assert service.machine.show("otocod", "Result")["Result"] == "success"
    service.machine.shell("systemctl start otocod")
    return f"{took_s:.1f} s"


DRILLS: tuple[Callable[[Service], str], ...] = (
    hardened,
    people,
    credentials,
    reload,
    kill,
    stopped_process,
    broker_away,
    upkeep,
    orderly_stop,
    alerts,
    broken_settings,
)
