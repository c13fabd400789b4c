"""`otocod paper`: the paper broker as a process.

The first line on stdout is `{"api_url", "streamer_url", "control_url"}`; nothing else is written there. SIGTERM and
SIGINT end it with 0. A configuration file (TOML, or JSON by its ending) may hold `rules`, `faults`, `accounts` and
`script`; every problem is reported at once on stderr, with exit status 78.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import signal
import sys
import tomllib
from collections.abc import Callable, Mapping, Sequence
from decimal import Decimal
from pathlib import Path

from otocod.paper import market
from otocod.paper.market import ScriptStep
from otocod.paper.server import ConfigInvalid, PaperServer

EXIT_CONFIG = 78
_KEYS = ("accounts", "faults", "rules", "script")


def main(argv: Sequence[str] | None = None) -> int:
    arguments = _parser().parse_args(argv)
    try:
        config = _read(arguments.config)
        if arguments.quotes:
            rules = config.setdefault("rules", {})
            if isinstance(rules, dict):
                rules["quotes.mode"] = arguments.quotes
        with asyncio.Runner(loop_factory=_loop_factory()) as runner:
            return runner.run(_serve(arguments, config))
    except ConfigInvalid as error:
        for problem in error.problems:
            sys.stderr.write(f"otocod paper: {problem}\n")
        return EXIT_CONFIG
    except OSError as error:
        sys.stderr.write(f"otocod paper: {error}\n")
        return 1


def _loop_factory() -> Callable[[], asyncio.AbstractEventLoop] | None:
    """uvloop where it is installed: about a third off every answer."""
    try:
        import uvloop
    except ImportError:
        return None
    return uvloop.new_event_loop


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="otocod paper", description="A paper broker that speaks tastytrade's wire, on loopback."
    )
    parser.add_argument(
        "--port", type=_port, default=0, help="of REST, streamer and quotes; 0 takes a free one (default)"
    )
    parser.add_argument(
        "--control-port", type=_port, default=0, help="of the control API; 0 takes a free one (default)"
    )
    parser.add_argument("--config", type=Path, help="TOML or JSON with rules, faults, accounts, script")
    parser.add_argument("--seed", type=int, default=0, help="of faults, tokens and the walk of quotes (default 0)")
    parser.add_argument("--quotes", choices=("hand", "seeded"), help="where quotes come from (default hand)")
    return parser


def _port(text: str) -> int:
    port = int(text)
    if not 0 <= port <= 65535:
        raise ValueError(text)
    return port


def _read(path: Path | None) -> dict[str, object]:
    """The file's content. Raises ConfigInvalid when it cannot be read."""
    if path is None:
        return {}
    try:
        text = path.read_text()
        if path.suffix == ".json":
            config = json.loads(text, parse_float=Decimal)
        else:
            config = tomllib.loads(text, parse_float=Decimal)
    except (OSError, ValueError) as error:
        raise ConfigInvalid([f"{path}: {error}"]) from None
    if not isinstance(config, dict):
        raise ConfigInvalid([f"{path}: must be an object"])
    return config


def _parts(config: Mapping[str, object]) -> tuple[tuple[str, ...], list[ScriptStep], list[str]]:
    """Accounts and script of a configuration, and everything wrong with them and its keys."""
    problems = [f"{key}: unknown; there are {', '.join(_KEYS)}" for key in config if key not in _KEYS]
    accounts = config.get("accounts", ["5WT00001"])
    if (
        not isinstance(accounts, list)
        or not accounts
        or not all(isinstance(name, str) and name.isalnum() for name in accounts)
    ):
        problems.append("accounts: must be a list of account numbers")
        accounts = ["5WT00001"]
    steps: list[ScriptStep] = []
    try:
        steps = market.parse_script(config.get("script", []))
    except ValueError as error:
        problems += [f"script: {line}" for line in str(error).splitlines()]
    return tuple(accounts), steps, problems


async def _serve(arguments: argparse.Namespace, config: Mapping[str, object]) -> int:
    accounts, script, problems = _parts(config)
    server = PaperServer(
        port=arguments.port,
        control_port=arguments.control_port,
        seed=arguments.seed,
        accounts=accounts,
        config=config,
        script=script,
    )
    if problems:
        raise ConfigInvalid([*problems, *server.broker.configure(config)])
    await server.start()
    stopping = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stopping.set)
    addresses = {"api_url": server.api_url, "streamer_url": server.streamer_url, "control_url": server.control_url}
    sys.stdout.write(json.dumps(addresses) + "\n")
    sys.stdout.flush()
    try:
        await stopping.wait()
    finally:
        await server.stop()
    return 0


if __name__ == "__main__":
    sys.exit(main())
