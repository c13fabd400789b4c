"""make systemd-proof: types docs/operate.md into a fresh Debian 12 under its own systemd, then tries what it must bear.

    python -m tests.systemd_proof [--keep DIR]

As root, with debootstrap and systemd-nspawn; ports 8080 and 8081 free; four minutes. `--keep` names a directory for the
Debian tree and the wheels, which are then not made anew the next time.
"""

import argparse
import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

from tests.support.outside import Web, outside
from tests.systemd_proof import typed
from tests.systemd_proof.drills import DRILLS, SECRETS, Service
from tests.systemd_proof.machine import Machine, booted, make_tree, make_wheels, missing_tools

# What a person types at the step's prompts.
_TYPED = {"secrets": "".join(f"{secret}\n" for secret in SECRETS)}
BEFORE = ("packages", "install", "secrets", "paper", "start", "look", "people")
MIDDLE = ("backup", "restore", "move-from", "move-to")
AFTER = ("upgrade", "uninstall")


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.systemd_proof")
    parser.add_argument("--keep", type=Path, metavar="DIR", help="keep tree and wheels there")
    keep: Path | None = parser.parse_args().keep
    missing = missing_tools()
    if missing:
        sys.stderr.write("\n".join(missing) + "\n")
        return 1
    with tempfile.TemporaryDirectory(prefix="otocod-proof-") as temporary:
        place = Path(temporary)
        source, wheels = (keep or place) / "debian", (keep or place) / "wheels"
        if not source.exists():
            _step("debootstrap", partial(make_tree, source))
        _step("wheels", partial(make_wheels, wheels))
        tree = place / "machine"
        # Devices and owners as they are.
        subprocess.run(["cp", "--archive", str(source), str(tree)], check=True)
        with booted(tree, wheels) as machine, outside() as (web, _):
            return _proved(machine, web)


def _proved(machine: Machine, web: Web) -> int:
    steps = typed.steps(typed.PAGE.read_text())
    machine.shell("cp /wheels/otocod-*.whl /root")
    for name in BEFORE:
        _step(f"typed: {name}", partial(machine.shell, steps[name], stdin=_TYPED.get(name, "")), is_told=False)
    service = Service(machine, web)
    for drill in DRILLS:
        _step(drill.__name__.replace("_", " "), partial(drill, service))
    for name in MIDDLE:
        _step(f"typed: {name}", partial(_typed_at, service, name, steps[name]))
    for name in AFTER:
        _step(f"typed: {name}", partial(machine.shell, steps[name]), is_told=False)
    left = machine.shell("ls /etc/systemd/system/otocod* 2>/dev/null || true; ls /var/lib/otocod/state.db")
    assert left.strip() == "/var/lib/otocod/state.db", left
    return 0


def _typed_at(service: Service, name: str, step: str) -> str:
    """After each the bracket is there, with its entry at the broker; between the two of a move the box is a new one."""
    machine = service.machine
    if name == "move-to":
        machine.shell("find /var/lib/otocod /var/lib/otocod-queue -mindepth 1 -delete; rm -f /srv/archive")
    machine.shell(step)
    if name == "move-from":
        assert service.state() == "inactive"
        return "stopped and disabled, its state in a file"
    assert service.status()["ready"] is True
    assert service.status()["halted"] is False
    (bracket,) = json.loads(machine.shell("otocod list --json"))
    assert (bracket["client_ref"], bracket["state"]) == ("first", "PENDING_ENTRY")
    assert machine.show("otocod", "UnitFileState")["UnitFileState"] == "enabled"
    machine.shell("otocod audit; otocod replay ref:first")
    return "ready, its bracket goes on, audit clean, its journal replays"


def _step(name: str, work: Callable[[], object], *, is_told: bool = True) -> None:
    """One line when it is done: what was measured, or only how long it took."""
    began_s = time.monotonic()
    found = work()
    took = f"{time.monotonic() - began_s:.1f} s"
    sys.stdout.write(f"{name:20} {found if is_told and found else took}\n")
    sys.stdout.flush()


if __name__ == "__main__":
    sys.exit(main())
