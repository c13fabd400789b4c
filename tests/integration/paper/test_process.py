"""The paper broker as a process: its first line, its end, its configuration."""

from __future__ import annotations

import asyncio
import json
import signal
import sys
from pathlib import Path

import aiohttp
import pytest

from otocod.paper.__main__ import main

PATIENCE_S = 20.0
CONFIG = """
accounts = ["5WT00007"]
[rules]
reservation = false
streamer.idle_ms = 9000
[faults]
frame_lost = { rate = 0.25 }
"""


async def start(*arguments: str) -> tuple[asyncio.subprocess.Process, dict[str, str]]:
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "otocod.paper", *arguments, stdout=asyncio.subprocess.PIPE
    )
    assert process.stdout is not None
    async with asyncio.timeout(PATIENCE_S):
        addresses: dict[str, str] = json.loads(await process.stdout.readline())
    return process, addresses


async def stop(process: asyncio.subprocess.Process, number: signal.Signals) -> tuple[int, bytes]:
    process.send_signal(number)
    async with asyncio.timeout(PATIENCE_S):
        rest, _ = await process.communicate()
    assert process.returncode is not None
    return process.returncode, rest


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
async def test_first_line_has_the_addresses_and_a_signal_ends_it_with_0(tmp_path: Path, number: signal.Signals) -> None:
    config = tmp_path / "paper.toml"
    config.write_text(CONFIG)
    process, addresses = await start("--config", str(config), "--quotes", "seeded")
    assert set(addresses) == {"api_url", "streamer_url", "control_url"}
    assert all("//127.0.0.1:" in address for address in addresses.values())
    # A streamer connection must not hold up the end.
    async with (
        aiohttp.ClientSession() as http,
        http.ws_connect(addresses["streamer_url"]),
        http.get(addresses["control_url"]) as answer,
    ):
        index = await answer.json()
        code, rest = await stop(process, number)
    assert (code, rest) == (0, b"")
    values = {rule["name"]: rule["value"] for rule in index["rules"]}
    assert values["streamer.idle_ms"] == 9000
    assert (values["reservation"], values["quotes.mode"], index["accounts"]) == (False, "seeded", ["5WT00007"])
    assert index["faults"]["frame_lost"]["rate"] == 0.25


def test_bad_configuration_names_every_problem_and_ends_with_78(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    config = tmp_path / "paper.json"
    script = [{"after_ms": 0, "symbol": "x", "bid": "1", "ask": "2"}]
    config.write_text(json.dumps({"rules": {"nope": 1}, "faults": {"slow": "x"}, "color": 1, "script": script}))
    assert main(["--config", str(config)]) == 78
    problems = capsys.readouterr().err
    assert all(part in problems for part in ("rules.nope", "faults.slow", "color", "script"))
    assert main(["--config", str(tmp_path / "absent.toml")]) == 78
