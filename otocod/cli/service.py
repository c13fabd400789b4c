"""service: the systemd units, groups and directories, put in place and taken away."""

import os
import re
import shutil
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import typer

from otocod.cli import output
from otocod.cli.commands import Json, command, new_app
from otocod.cli.failure import ExitStatus, Failed

service_app = new_app(help="The service: systemd units, groups and directories.")

Root = typer.Option(None, "--root", metavar="DIR", help="Of another system's tree, which is not running.")
DryRun = typer.Option(False, "--dry-run", help="Only say what would be done.")

_NEXT = (
    "set environment and accounts in /etc/otocod/otocod.toml",
    "put the broker's secrets into /etc/credstore/otocod-client-secret and otocod-refresh-token, mode 0600",
    "add people: usermod -aG otocod OPERATOR; usermod -aG otocod-submit SUBMITTER",
    "systemctl enable --now otocod.service otocod-backup.timer otocod-audit.timer",
)
_LEFT = (
    "/var/lib/otocod: state.db, its backups",
    "/var/lib/otocod-queue: the queue",
    "/etc/otocod, /etc/credstore/otocod-*: settings and secrets",
    "user otocod, groups otocod and otocod-submit, which own these",
)
_TIMEOUT_S = 120


def register(app: typer.Typer) -> None:
    command(service_app, "install")(install)
    command(service_app, "uninstall")(uninstall)
    app.add_typer(service_app, name="service")


class _Report:
    """What was done, step by step: told at once, or as JSON at the end."""

    def __init__(self, *, dry_run: bool, as_json: bool) -> None:
        self.dry_run = dry_run
        self._as_json = as_json
        self._steps: list[dict[str, str]] = []

    def step(self, what: str, done: str) -> None:
        self._steps.append({"what": what, "done": done})
        if not self._as_json:
            output.say(f"{done:8} {what}")

    def end(self, heading: str, lines: Sequence[str]) -> None:
        if self._as_json:
            output.print_json({"dry_run": self.dry_run, "steps": self._steps, "then": list(lines)})
            return
        output.say(f"{heading}:")
        for line in lines:
            output.say(f"  {line}")

    def run(self, *words: str) -> None:
        """A command of the system; Failed with its words when it does not go well."""
        said = " ".join(words)
        if self.dry_run:
            self.step(said, "would run")
            return
        try:
            found = subprocess.run(words, capture_output=True, text=True, timeout=_TIMEOUT_S, check=False)
        except (OSError, subprocess.TimeoutExpired) as error:
            raise Failed(ExitStatus.FAILED, f"{said}: {error}; the files are in place, run it by hand") from None
        if found.returncode:
            lines = tuple((found.stderr or found.stdout).strip().splitlines()[-5:])
            raise Failed(ExitStatus.FAILED, f"{said}: exit {found.returncode}", lines or ("no words",))
        self.step(said, "ran")


def install(root: str | None = Root, dry_run: bool = DryRun, as_json: bool = Json) -> None:
    """Put units, groups, directories and example settings in place; a second time changes nothing."""
    from otocod.adapters import service_files

    report, tree = _Report(dry_run=dry_run, as_json=as_json), _tree(root)
    executable = Path(sys.executable).with_name("otocod")
    problems = service_files.executable_problems(executable, Path(sys.executable)) if root is None else []
    if problems:
        raise Failed(ExitStatus.REFUSED, "the service could not start this otocod", tuple(problems))
    called = service_files.executable_inside(executable, tree)
    for file in service_files.service_files(tree, called, _systemd_version()):
        report.step(str(file.path), _carried_out(service_files.put, file, dry_run))
    of_tree = () if root is None else (f"--root={tree}",)
    report.run("systemd-sysusers", *of_tree, "otocod.conf")
    report.run("systemd-tmpfiles", *of_tree, "--create", "otocod.conf")
    if root is None and _is_booted():
        report.run("systemctl", "daemon-reload")
    report.end("then, in this order", _NEXT)


def uninstall(
    root: str | None = Root,
    dry_run: bool = DryRun,
    yes: bool = typer.Option(False, "--yes", help="Do not ask before a service that runs is stopped."),
    as_json: bool = Json,
) -> None:
    """Stop the service and take its files away; data, settings, secrets and users stay, and it says where."""
    from otocod.adapters import service_files

    report, tree = _Report(dry_run=dry_run, as_json=as_json), _tree(root)
    is_live = root is None and _is_booted()
    files = service_files.service_files(tree, service_files.PACKAGED_EXECUTABLE, _systemd_version())
    if is_live:
        if not (yes or dry_run):
            output.ask("otocod stops: exits stay at the broker, nobody watches for the rest; go on?", "uninstall")
        there = [name for name in service_files.ENABLED_UNITS if (tree / "etc/systemd/system" / name).exists()]
        if there:
            report.run("systemctl", "disable", "--now", *there)
    for file in files:
        report.step(str(file.path), _carried_out(service_files.remove, file, dry_run))
    if is_live:
        report.run("systemctl", "daemon-reload")
    report.end("kept, to be removed by hand", _LEFT)


def _tree(root: str | None) -> Path:
    tree = Path(root or "/").absolute()
    if not tree.is_dir():
        raise Failed(ExitStatus.USAGE, f"--root: {tree} is not a directory")
    return tree


def _carried_out(work: Any, file: Any, dry_run: bool) -> str:
    try:
        return str(work(file, dry_run=dry_run))
    except OSError as error:
        hint = "; be root" if isinstance(error, PermissionError) and os.geteuid() else ""
        raise Failed(ExitStatus.FAILED, f"{file.path}: {error.strerror}{hint}") from None


def _is_booted() -> bool:
    """sd_booted(3)."""
    return Path("/run/systemd/system").is_dir()


def _systemd_version() -> int:
    """0 where it cannot be found out: the units are then written without what is new."""
    found = shutil.which("systemctl")
    if found is None:
        return 0
    said = subprocess.run([found, "--version"], capture_output=True, text=True, timeout=_TIMEOUT_S, check=False).stdout
    match = re.match(r"systemd (\d+)", said)
    return int(match[1]) if match else 0
