"""A Debian 12 of its own: a tree, booted with its systemd as process 1 by systemd-nspawn."""

import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from tests.support.processes import until

_ROOT = Path(__file__).resolve().parents[2]
_SUITE, _MIRROR = "bookworm", "http://deb.debian.org/debian"
# Landlock is not in every nspawn's list; a real machine has it.
_CALLS = "landlock_create_ruleset landlock_add_rule landlock_restrict_self"
_ENVIRON = {
    "HOME": "/root",
    "PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
    "LANG": "C.UTF-8",
    "DEBIAN_FRONTEND": "noninteractive",
    # The packages that the lock names, fetched outside.
    "PIP_NO_INDEX": "1",
    "PIP_FIND_LINKS": "/wheels",
}


def missing_tools() -> list[str]:
    """What keeps the proof from running here, one line each."""
    found = [
        f"{tool} is not installed" for tool in ("debootstrap", "systemd-nspawn", "nsenter") if not shutil.which(tool)
    ]
    return [*found, *(["it needs root"] if os.geteuid() else [])]


def make_tree(tree: Path) -> None:
    """A fresh minimal Debian with systemd and nothing of ours."""
    command = ["debootstrap", "--variant=minbase", "--include=systemd,systemd-sysv,dbus", _SUITE, str(tree), _MIRROR]
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)


def make_wheels(directory: Path) -> None:
    """Our wheel, and those of the lock."""
    directory.mkdir(parents=True, exist_ok=True)
    pip = [sys.executable, "-m", "pip"]
    lock = ["--no-deps", "--require-hashes", "-r", str(_ROOT / "requirements.lock")]
    subprocess.run([*pip, "-qq", "download", "--dest", str(directory), *lock], check=True)
    for old in directory.glob("otocod-*.whl"):
        old.unlink()
    build = ["wheel", "--no-deps", "--no-build-isolation", "--wheel-dir", str(directory), str(_ROOT)]
    subprocess.run([*pip, "-qq", *build], check=True)


class Machine:
    def __init__(self, process: subprocess.Popen[bytes]) -> None:
        self._process = process

    def _leader(self) -> str:
        """Looked up each time: while it boots, systemd-nspawn has children that are not process 1 yet."""
        if self._process.poll() is not None:
            raise AssertionError(f"systemd-nspawn ended with {self._process.returncode}")
        children = Path(f"/proc/{self._process.pid}/task/{self._process.pid}/children").read_text().split()
        return children[-1] if children else "0"

    def try_shell(
        self, script: str, *, stdin: str = "", user: str = "", timeout_s: float = 300
    ) -> subprocess.CompletedProcess[str]:
        """As if typed by root, or by `user` after a fresh log-in; ends at the first command that fails."""
        shell: Sequence[str] = ("bash", "-e", "-c", script)
        if user:
            shell = ("su", "--login", "--shell", "/bin/bash", user, "--command", script)
        words = ["nsenter", "--target", self._leader(), "--all", "--wdns=/root", *shell]
        return subprocess.run(
            words, input=stdin, capture_output=True, text=True, env=_ENVIRON, timeout=timeout_s, check=False
        )

    def shell(self, script: str, *, stdin: str = "", user: str = "", timeout_s: float = 300) -> str:
        found = self.try_shell(script, stdin=stdin, user=user, timeout_s=timeout_s)
        if found.returncode:
            raise AssertionError(
                f"exit {found.returncode} of:\n{script}\n{found.stdout[-3000:]}\n{found.stderr[-3000:]}"
            )
        return found.stdout

    def show(self, unit: str, *names: str) -> dict[str, str]:
        lines = self.shell(f"systemctl show {unit} {' '.join(f'-p {name}' for name in names)}").splitlines()
        return dict(line.split("=", 1) for line in lines if "=" in line)


@contextmanager
def booted(tree: Path, wheels: Path) -> Iterator[Machine]:
    words = ["systemd-nspawn", "--quiet", "--boot", "--register=no", "--keep-unit", "--console=pipe"]
    words += [f"--directory={tree}", f"--bind-ro={wheels}:/wheels", f"--system-call-filter={_CALLS}"]
    process = subprocess.Popen(words, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        machine = Machine(process)
        until(
            lambda: machine.try_shell("systemctl is-system-running").stdout.strip() in ("running", "degraded"),
            lambda: f"systemd has started what it starts: {machine.try_shell('systemctl list-jobs --no-pager')}",
            60,
        )
        yield machine
    finally:
        process.send_signal(signal.SIGTERM)
        try:
            process.wait(60)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
