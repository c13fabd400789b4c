"""The daemon and the paper broker as processes, driven the way their users drive them.

Everything goes over what the two offer to the outside: the queue file, the command line, the control API. What a
bracket has become is read from state.db with the query behind `show`, which costs no process and works while the
daemon is dead. The other side is a process, so waiting means looking again and again until a condition holds; every
such wait has an end and says what it saw last.
"""

import json
import os
import signal
import sqlite3
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar
from urllib.parse import quote

from otocod.adapters.sqlite import readmodel
from otocod.adapters.sqlite.replay import replay

T = TypeVar("T")
Json = dict[str, Any]

ACCOUNT = "5WT00001"
CLIENT_SECRET = "canary-client-secret-3f9a7c51"
REFRESH_TOKEN = "canary-refresh-token-b27de480"
# A bound for a machine that is busy with other things, not an expectation.
PATIENCE_S = 45.0
# A look costs the machine that the watched processes run on: quick at first, then seldom.
_FIRST_PAUSE_S = 0.004
_LONGEST_PAUSE_S = 0.05
_AGENT = {"User-Agent": "otocod-test/1", "Content-Type": "application/json"}


def until(look: Callable[[], T | None], what: str | Callable[[], object], timeout_s: float = PATIENCE_S) -> T:
    """The first true answer of `look`; an AssertionError that tells `what` when there was none in time."""
    ends = time.monotonic() + timeout_s
    pause_s = _FIRST_PAUSE_S
    while True:
        found = look()
        if found:
            return found
        if time.monotonic() >= ends:
            raise AssertionError(f"not within {timeout_s:g} s: {what() if callable(what) else what}")
        time.sleep(pause_s)
        pause_s = min(pause_s * 1.3, _LONGEST_PAUSE_S)


def side_by_side(directory: Path, scenarios: Mapping[str, Callable[[Path], None]], at_once: int) -> None:
    """Runs scenarios that mostly wait, each with processes and a directory of its own; all of them, then what failed.

    The directories have short names: a Unix socket's address holds 107 bytes.
    """
    with ThreadPoolExecutor(at_once) as pool:
        runs = {
            name: pool.submit(scenario, directory / str(place))
            for place, (name, scenario) in enumerate(scenarios.items())
        }
    errors = []
    for name, run in runs.items():
        error = run.exception()
        if error is not None:
            error.add_note(f"scenario: {name}")
            errors.append(error)
    if errors:
        raise BaseExceptionGroup(f"{len(errors)} of {len(runs)} scenarios", errors)


def http(method: str, url: str, body: object = None, **headers: str) -> Any:
    """Raises AssertionError with the server's words for a status that is not good."""
    sent = None if body is None else json.dumps(body).encode()
    request = urllib.request.Request(url, method=method, data=sent, headers=_AGENT | headers)  # noqa: S310
    try:
        with urllib.request.urlopen(request, timeout=10) as answer:  # noqa: S310  an address of our own paper broker
            return json.loads(answer.read() or b"null")
    except urllib.error.HTTPError as error:
        with error:
            raise AssertionError(f"{method} {url}: {error.code} {error.read().decode()[:500]}") from None


@dataclass(frozen=True)
class Spread:
    """A vertical of its own strikes, sold for 0.85; target 0.40, stop 1.70 with limit 1.90."""

    short: str
    long: str

    def request(self, quantity: int = 1, **changes: object) -> Json:
        """A bracket request; keys of `changes` replace or add to those of the request, underscores for hyphens."""
        request: Json = {
            "version": 1,
            "entry": {
                "time-in-force": "Day",
                "order-type": "Limit",
                "price": "0.85",
                "price-effect": "Credit",
                "legs": [_leg(self.short, quantity, "Sell to Open"), _leg(self.long, quantity, "Buy to Open")],
            },
            "target": {"price": "0.40", "price-effect": "Debit"},
            "stop": {"trigger": "1.70", "price": "1.90", "price-effect": "Debit"},
        }
        return request | {key.replace("_", "-"): value for key, value in changes.items()}


def _leg(symbol: str, quantity: int, action: str) -> Json:
    return {"instrument-type": "Equity Option", "symbol": symbol, "quantity": quantity, "action": action}


# Quotes of the short and of the long leg. Natural prices: to open, bid of the short less ask of the long; to close,
# ask of the short less bid of the long.
Sides = tuple[tuple[str, str], tuple[str, str]]
QUIET: Sides = (("1.40", "1.50"), ("0.65", "0.70"))  # opens at 0.70: an entry at 0.85 rests; closes at 0.85: exits rest
ENTRY: Sides = (("1.60", "1.70"), ("0.70", "0.75"))  # opens at 0.85, closes at 1.00
TARGET: Sides = (("0.60", "0.70"), ("0.40", "0.45"))  # closes at 0.30
STOP: Sides = (("2.60", "2.70"), ("0.95", "1.00"))  # closes at 1.75


class Paper:
    """A paper broker in its own process."""

    def __init__(self, *arguments: str) -> None:
        self.process = subprocess.Popen(
            [sys.executable, "-m", "otocod", "paper", "--port", "0", "--seed", "1", *arguments],
            stdout=subprocess.PIPE,
            text=True,
            env=_environ(),
        )
        assert self.process.stdout is not None
        addresses = json.loads(self.process.stdout.readline())
        self.api_url: str = addresses["api_url"]
        self.streamer_url: str = addresses["streamer_url"]
        self._control_url: str = addresses["control_url"]
        self._spreads = self._chain()

    def close(self) -> None:
        self.process.kill()
        self.process.wait()
        assert self.process.stdout is not None
        self.process.stdout.close()

    def call(self, method: str, path: str, body: object = None) -> Any:
        return http(method, f"{self._control_url}{path}", body)

    def _chain(self) -> Iterator[Spread]:
        """Verticals that share no leg, of the farthest expiration by the paper's own clock."""
        grant = {"grant_type": "refresh_token", "refresh_token": "r", "client_secret": "s"}
        token = http("POST", f"{self.api_url}/oauth/token", grant)["access_token"]
        chain = http("GET", f"{self.api_url}/option-chains/AAPL/nested", Authorization=f"Bearer {token}")
        expirations = sorted(chain["data"]["items"][0]["expirations"], key=lambda each: str(each["expiration-date"]))
        calls = [strike["call"] for expiration in expirations[::-1] for strike in expiration["strikes"]]
        return (Spread(short, long) for short, long in zip(calls[::2], calls[1::2], strict=False))

    def spread(self) -> Spread:
        """One that nobody has had yet, quoted so that nothing fills."""
        spread = next(self._spreads)
        self.quote(spread, QUIET)
        return spread

    def quote(self, spread: Spread, sides: Sides) -> None:
        for symbol, (bid, ask) in zip((spread.short, spread.long), sides, strict=True):
            self.call("PUT", f"/quotes/{quote(symbol)}", {"bid": bid, "ask": ask})

    def fault(self, **faults: object) -> None:
        self.call("PATCH", "/faults", faults)

    def struck(self, fault: str) -> int:
        """How often a fault has struck."""
        count: int = self.call("GET", "/faults")[fault]["struck"]
        return count

    def rule(self, **rules: object) -> None:
        self.call("PATCH", "/rules", rules)

    def orders(self, spread: Spread | None = None, *, status: str | None = None) -> list[Json]:
        found: list[Json] = self.call("GET", "/orders")
        return [
            order
            for order in found
            if (spread is None or any(leg["symbol"] == spread.short for leg in order["legs"]))
            and (status is None or order["status"] == status)
        ]

    def working(self, spread: Spread, status: str = "Live") -> list[Json]:
        """The working orders on a spread, once there is one."""
        return until(lambda: self.orders(spread, status=status), lambda: f"{status}: {self.orders(spread)}")

    def act(self, order: Json, verb: str, **body: object) -> Any:
        """What the exchange, the broker or a person does to an order: fill, cancel, reject, expire, replace."""
        return self.call("POST", f"/orders/{order['id']}/{verb}", body)

    def positions(self) -> dict[str, int]:
        """Signed, without those that are flat."""
        found = {}
        for position in self.call("GET", "/positions"):
            sign = {"Long": 1, "Short": -1}.get(position["quantity-direction"], 0)
            if sign * int(position["quantity"]):
                found[position["symbol"]] = sign * int(position["quantity"])
        return found

    def requests(self, method: str = "", path: str = "") -> list[Json]:
        """What arrived over REST, in order, from the truth log; `path` is how it ends."""
        found: list[Json] = []
        since = 0
        while page := self.call("GET", f"/log?since={since}")["entries"]:
            found += [entry for entry in page if entry["kind"] == "request"]
            since = page[-1]["seq"]
        return [each for each in found if each["method"].startswith(method) and each["path"].endswith(path)]

    def posted_again(self) -> list[str]:
        """Identifiers that were posted after an answer, or none, that leaves open whether the order exists.

        401 and 429 prove that nothing was placed; only after these may an identifier leave again.
        """
        spent: set[str] = set()
        again: set[str] = set()
        for post in self.requests("POST", "orders"):
            names = set(post.get("external_identifiers", ()))
            again |= names & spent
            if post["status"] not in (401, 429):
                spent |= names
        return sorted(again)

    def doubled(self) -> list[str]:
        """External identifiers that more than one order carries; a chain of replacements counts as one order."""
        orders = self.orders()
        heads = [order for order in orders if not order.get("replaces-order-id")]
        seen = [order["external-identifier"] for order in heads if order.get("external-identifier")]
        return sorted({each for each in seen if seen.count(each) > 1})


class Daemon:
    """`otocod run` in its own process, on a data directory of its own."""

    def __init__(self, paper: Paper, directory: Path, **settings: str) -> None:
        self.data_dir = directory / "data"
        self.log = directory / "log"
        self.earlier_logs: list[Path] = []
        self.settings = {
            "environment": "paper",
            "accounts": ACCOUNT,
            "data_dir": str(self.data_dir),
            "api_url": paper.api_url,
            "streamer_url": paper.streamer_url,
            "client_secret": CLIENT_SECRET,
            "refresh_token": REFRESH_TOKEN,
            "reconcile_interval_s": "1",
            "log_format": "json",
            **settings,
        }
        self.process: subprocess.Popen[bytes] | None = None

    @property
    def environ(self) -> dict[str, str]:
        return _environ() | {f"OTOCOD_{name.upper()}": value for name, value in self.settings.items()}

    # Life.

    def start(self) -> None:
        if self.log.exists():
            self.earlier_logs.append(self.log.rename(self.log.with_name(f"log.{len(self.earlier_logs)}")))
        with self.log.open("wb") as log:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "otocod", "run"], env=self.environ, stdout=log, stderr=log
            )

    def wait_ready(self, timeout_s: float = PATIENCE_S) -> None:
        until(self._is_ready, self.log.read_text, timeout_s)

    def _is_ready(self) -> bool:
        if self.process is not None and self.process.poll() is not None:
            raise AssertionError(f"the daemon ended with {self.process.returncode}:\n{self.log.read_text()}")
        return bool(self.told("ready"))

    def restart(self) -> None:
        self.start()
        self.wait_ready()

    def kill(self) -> None:
        """SIGKILL: nothing is said, nothing is finished."""
        assert self.process is not None
        self.process.kill()
        self.process.wait()

    def signal(self, number: signal.Signals) -> None:
        assert self.process is not None
        self.process.send_signal(number)

    def wait_end(self, timeout_s: float = PATIENCE_S) -> int:
        """The exit status of a daemon that ends by itself."""
        assert self.process is not None
        return self.process.wait(timeout_s)

    def stop(self, timeout_s: float = 10.0) -> int:
        """SIGTERM; the exit status."""
        assert self.process is not None
        self.process.terminate()
        return self.process.wait(timeout_s)

    def close(self) -> None:
        if self.process is not None and self.process.poll() is None:
            self.kill()

    # What it says.

    def lines(self) -> list[Json]:
        """The log of this run, in order; a line that is not complete yet is left out."""
        text = self.log.read_text()
        return [json.loads(line) for line in text[: text.rfind("\n") + 1].splitlines() if line.startswith("{")]

    def told(self, event: str, **fields: str) -> list[Json]:
        """The lines of one event; `fields` narrows them to those that contain the texts."""
        return [
            line
            for line in self.lines()
            if line["event"] == event and all(text in str(line.get(name)) for name, text in fields.items())
        ]

    def all_logs(self) -> str:
        return "".join(path.read_text() for path in (*self.earlier_logs, self.log) if path.exists())

    # The command line.

    def cli(self, *arguments: str, stdin: str | None = None) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, "-m", "otocod", *arguments],
            env=self.environ,
            input=stdin,
            stdin=subprocess.DEVNULL if stdin is None else None,
            capture_output=True,
            text=True,
            timeout=60,
        )

    def done(self, *arguments: str) -> str:
        """The output of a command that must succeed."""
        result = self.cli(*arguments)
        assert result.returncode == 0, (arguments, result.returncode, result.stdout, result.stderr)
        return result.stdout

    def status(self) -> Json:
        found: Json = json.loads(self.done("status", "--json"))
        return found

    def audit(self) -> None:
        """Raises AssertionError with the violations."""
        result = self.cli("audit", "--json")
        found = json.loads(result.stdout or "{}")
        assert (result.returncode, found.get("violations")) == (0, []), result.stdout + result.stderr
        assert found["broker_asked"]

    # The queue.

    @contextmanager
    def queue(self) -> Iterator[sqlite3.Connection]:
        """As another program opens it. Commits at the end."""
        path = self.settings.get("queue") or self.data_dir / "queue" / "queue.db"
        with closing(sqlite3.connect(path, timeout=10)) as connection, connection:
            yield connection

    def submit(self, client_ref: str, request: object, account: str = ACCOUNT, created_at: str | None = None) -> None:
        """One row. A request that is text goes in as it is."""
        self.submit_all([(client_ref, request)], account=account, created_at=created_at)

    def submit_all(
        self, rows: Sequence[tuple[str, object]], account: str = ACCOUNT, created_at: str | None = None
    ) -> None:
        texts = [(ref, account, request if isinstance(request, str) else json.dumps(request)) for ref, request in rows]
        columns, marks = "client_ref, account, request", "?, ?, ?"
        if created_at is not None:
            columns, marks = f"{columns}, created_at", f"{marks}, '{created_at}'"
        with self.queue() as connection:
            connection.executemany(f"INSERT INTO bracket_requests ({columns}) VALUES ({marks})", texts)  # noqa: S608

    def row(self, client_ref: str) -> tuple[str, str | None, str | None]:
        """(status, reason, bracket_id)"""
        with self.queue() as connection:
            found = connection.execute(
                "SELECT status, reason, bracket_id FROM bracket_requests WHERE client_ref = ?", (client_ref,)
            ).fetchone()
        return found[0], found[1], found[2]

    def answered(self, client_ref: str, timeout_s: float = PATIENCE_S) -> tuple[str, str | None, str | None]:
        """The row, once it is no longer NEW."""

        def look() -> tuple[str, str | None, str | None] | None:
            found = self.row(client_ref)
            return None if found[0] == "NEW" else found

        return until(look, lambda: f"{client_ref} is answered; {self._seen(client_ref)}", timeout_s)

    # Brackets.

    def show(self, client_ref: str) -> Json | None:
        """As `show --json`; None while there is no such bracket."""
        try:
            with closing(readmodel.open_readonly(self.data_dir / "state.db")) as connection:
                bracket_id = readmodel.find_bracket(connection, f"ref:{client_ref}")
                return readmodel.show_bracket(connection, bracket_id, now_us=time.time_ns() // 1_000)
        except readmodel.BracketNotFound:
            return None

    def bracket(self, client_ref: str) -> Json:
        found = self.show(client_ref)
        assert found is not None, f"no bracket {client_ref}: {self.row(client_ref)}"
        return found

    def until_bracket(
        self, client_ref: str, is_wanted: Callable[[Json], object], what: str, timeout_s: float = PATIENCE_S
    ) -> Json:
        def look() -> Json | None:
            found = self.show(client_ref)
            return found if found is not None and is_wanted(found) else None

        return until(look, lambda: f"{client_ref}: {what}; {self._seen(client_ref)}", timeout_s)

    def until_state(self, client_ref: str, state: str, timeout_s: float = PATIENCE_S) -> Json:
        return self.until_bracket(client_ref, lambda found: found["state"] == state, state, timeout_s)

    def until_closed(self, client_ref: str, timeout_s: float = PATIENCE_S) -> Json:
        """CLOSED, with the net prices if there was a position: of the last fill they may follow by a moment."""

        def is_complete(found: Json) -> bool:
            has_prices = found["entry_net_price"] is not None and found["exit_net_price"] is not None
            return found["state"] == "CLOSED" and (has_prices or found["outcome"] in ("ENTRY_NOT_FILLED", "RELEASED"))

        return self.until_bracket(client_ref, is_complete, "CLOSED, with net prices", timeout_s)

    def until_attention(self, client_ref: str, words: str, timeout_s: float = PATIENCE_S) -> Json:
        return self.until_bracket(
            client_ref, lambda found: words in (found["attention"] or ""), f"attention says {words!r}", timeout_s
        )

    def events_of(self, client_ref: str) -> list[str]:
        """Names of everything in its journal, moves of the state or not."""
        with closing(readmodel.open_readonly(self.data_dir / "state.db")) as connection:
            bracket_id = readmodel.find_bracket(connection, f"ref:{client_ref}")
            return [str(entry["event"]) for entry in readmodel.events(connection, bracket_id)]

    def _seen(self, client_ref: str) -> str:
        tail = "\n".join(self.log.read_text().splitlines()[-25:])
        try:
            row: object = self.row(client_ref)
        except TypeError:
            row = "no row"
        return f"{json.dumps(self.show(client_ref), indent=1)}\nrow {row}\n{tail}"


def _environ() -> dict[str, str]:
    """Without settings that happen to be set around the tests."""
    return {name: value for name, value in os.environ.items() if not name.startswith("OTOCOD_")}


@dataclass
class Pair:
    paper: Paper
    daemon: Daemon
    directory: Path

    def open_bracket(self, client_ref: str, state: str = "EXITS_LIVE", **changes: Any) -> Spread:
        """A bracket brought to PENDING_ENTRY with its entry working, or to EXITS_LIVE."""
        spread = self.paper.spread()
        self.daemon.submit(client_ref, spread.request(**changes))
        self.paper.working(spread)
        if state == "PENDING_ENTRY":
            self.daemon.until_state(client_ref, state)
            return spread
        self.paper.quote(spread, ENTRY)
        self.daemon.until_state(client_ref, state)
        return spread

    def check_end(self) -> None:
        """What must hold once every bracket is closed: nothing was sent twice, all is flat, the audit is clean."""
        assert self.paper.doubled() == []
        assert self.paper.posted_again() == []
        assert self.paper.positions() == {}
        self.daemon.audit()
        self.check_journals()
        self.check_secrets()

    def check_journals(self) -> None:
        """Every bracket's journal leads to its stored record once more."""
        with closing(readmodel.open_readonly(self.daemon.data_dir / "state.db")) as connection:
            for bracket in readmodel.list_brackets(connection):
                found = replay(readmodel.recording(connection, bracket["bracket_id"]))
                told = (bracket["client_ref"], found.difference, found.unrecorded, found.astray)
                assert told == (bracket["client_ref"], None, None, ())

    def check_secrets(self) -> None:
        logs = self.daemon.all_logs()
        assert CLIENT_SECRET not in logs
        assert REFRESH_TOKEN not in logs
        assert ACCOUNT not in logs


@contextmanager
def running(directory: Path, *, rules: Json | None = None, start: bool = True, **settings: str) -> Iterator[Pair]:
    """A paper broker and a ready daemon. With `start=False` the daemon is only prepared."""
    directory.mkdir(parents=True, exist_ok=True)
    with closing(Paper()) as paper:
        if rules:
            paper.rule(**rules)
        with closing(Daemon(paper, directory, **settings)) as daemon:
            if start:
                daemon.restart()
            yield Pair(paper, daemon, directory)
