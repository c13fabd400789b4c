"""One data directory's life: brackets come and go, the daemon dies again and again, and at the end all must be right.

The market moves by what is true at the exchange and by drawn pauses, whether or not a daemon is alive to see it. Deaths
are drawn too: a named point, a moment, an orderly stop that is cut short. After each death the files are looked at. The
last run is left alone until every bracket is closed, stops in good order, and the record is judged twice: by the audit
and by the exchange's truth log.
"""

import asyncio
import json
import random
import signal
import sqlite3
import time
from collections import Counter
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from otocod.audit import audit
from tests.kills.daemons import Life, Nursery
from tests.kills.market import Market
from tests.kills.points import DELAYED_POINTS, LIFE_POINTS, START_POINTS, STOP_POINTS, Plan
from tests.kills.remains import violations_of_remains
from tests.support.processes import CLIENT_SECRET, ENTRY, QUIET, REFRESH_TOKEN, STOP, TARGET, Spread

MODES = ("native-otoco", "native-oco", "unlinked", "watched")
ENDINGS = {"TARGET_FILLED": TARGET, "STOP_FILLED": STOP}
# A lost entry is looked for during 120 s before the daemon may say that it is not there; machines need some more.
LAST_RUN_S = 170.0
READY_S = 30.0
STOP_S = 15.0
# What the daemon says only when it has found a bug in itself.
_OWN_FAULTS = ("decision_failed", "change_rejected", "order_denied", "command_failed", "task_failed", "store_failed")


@dataclass(frozen=True, slots=True)
class Shape:
    """How much happens in a story."""

    kills: int
    wards: int
    first_wards: int = 3
    is_told_to_the_end: bool = True  # else the last run is only brought to ready, and brackets may stay open


@dataclass(slots=True)
class Ward:
    """A bracket and what the market will do with it."""

    ref: str
    mode: str
    ending: str
    units: int
    spread: Spread
    is_submitted: bool = False

    def request(self) -> dict[str, Any]:
        return self.spread.request(self.units, protection=self.mode)


@dataclass(slots=True)
class Told:
    """What the daemons of a directory wrote about themselves, read on from where the last look ended."""

    path: Path
    acknowledged: dict[str, int] = field(default_factory=dict)
    was_ready: bool = False
    point: str | None = None
    _read: int = 0

    def read_on(self) -> None:
        self.was_ready, self.point = False, None
        if not self.path.exists():
            return
        text = self.path.read_bytes()[self._read :].decode()
        self._read += len(text)
        for line in text.splitlines():
            word, _, rest = line.partition(" ")
            if word == "acked":
                bracket_id, version = rest.split()
                self.acknowledged[bracket_id] = max(int(version), self.acknowledged.get(bracket_id, 0))
            elif word == "killed":
                self.point = rest
            elif word == "ready":
                self.was_ready = True


class Story:
    def __init__(self, seed: str, shape: Shape, directory: Path, market: Market, nursery: Nursery) -> None:
        self.seed = seed
        self.shape = shape
        self.directory = directory
        self.data_dir = directory / "data"
        self.violations: list[str] = []
        self.kills: Counter[tuple[str, str]] = Counter()  # (where, "ready" or "starting")
        self.outcomes: Counter[str] = Counter()
        self.attention: Counter[str] = Counter()
        self.clean_stops = 0
        self.wards: list[Ward] = []
        self._rng = random.Random(seed)
        self._market = market
        self._nursery = nursery
        self._account = market.new_account()
        self._truth = market.truths[self._account]
        self._spreads = [market.spreads.pop() for _ in range(shape.wards)]
        self._told = Told(directory / "told")
        self._environ = self._settings()

    def _settings(self) -> dict[str, str]:
        settings = {
            "environment": "paper",
            "accounts": self._account,
            "data_dir": str(self.data_dir),
            "api_url": self._market.paper.api_url,
            "streamer_url": self._market.paper.streamer_url,
            "client_secret": CLIENT_SECRET,
            "refresh_token": REFRESH_TOKEN,
            "reconcile_interval_s": self._rng.choice(("1", "15", "15")),
            "log_format": "json",
        }
        return {f"OTOCOD_{name.upper()}": value for name, value in settings.items()}

    async def tell(self, starting: asyncio.Semaphore) -> None:
        """`starting`: held while a daemon starts, so that starts do not queue for the machine."""
        self.directory.mkdir(parents=True)
        moves: list[asyncio.Task[None]] = []
        try:
            # Kills are counted, not lives: a stop that comes through in order is none.
            while (done := self.kills.total()) < self.shape.kills and not self.violations:
                self._admit(done, moves)
                await self._live_and_die(starting)
            if not self.violations:
                self._admit(self.shape.kills, moves)
                await self._last_run(starting, moves)
        finally:
            for move in moves:
                move.cancel()
            await asyncio.gather(*moves, return_exceptions=True)
            self._market.spreads.extend(self._spreads)
            self._spreads = []

    def _admit(self, done: int, moves: list[asyncio.Task[None]]) -> None:
        """New brackets spread over the first two thirds of the kills, so that every kill meets some in mid life."""
        due = self.shape.first_wards + (self.shape.wards - self.shape.first_wards) * done * 3 // (self.shape.kills * 2)
        while len(self.wards) < min(due, self.shape.wards):
            number = len(self.wards)
            mode = self._rng.choice(MODES)
            ward = Ward(
                ref=f"w{number}",
                mode=mode,
                # In `watched` the stop rests alone, and nothing but a fill of it ends the bracket.
                ending="STOP_FILLED" if mode == "watched" else self._rng.choice(tuple(ENDINGS)),
                units=self._rng.choice((1, 1, 2, 3)),
                spread=self._spreads[number],
            )
            self.wards.append(ward)
            moves.append(asyncio.create_task(self._move(ward, random.Random(f"{self.seed}/{number}")), name=ward.ref))

    # The market.

    async def _move(self, ward: Ward, rng: random.Random) -> None:
        market, truth, symbol = self._market, self._truth, ward.spread.short
        if ward.mode == "unlinked":
            truth.allow_unlinked(symbol)
        await market.quote(ward.spread, QUIET)
        await asyncio.sleep(rng.uniform(0, 0.5))
        await self._submit(ward)
        if not await market.until(lambda: any(e.status == "Live" for e in truth.entries(symbol)), LAST_RUN_S):
            return
        await asyncio.sleep(rng.expovariate(2))
        fate = rng.random()
        if fate < 0.06:
            await market.act(truth.entries(symbol)[0].order_id, "cancel", by="broker", reason="session over")
            return
        if fate < 0.2 and ward.units > 1:
            await market.act(truth.entries(symbol)[0].order_id, "fill", quantity=1)
            await asyncio.sleep(rng.expovariate(2))
        await market.quote(ward.spread, ENTRY)
        exits = 1 if ward.mode == "watched" else 2
        await market.until(lambda: len(truth.working_exits(symbol)) >= exits, rng.choice((1, 20, 40)))
        await asyncio.sleep(rng.expovariate(1))
        await market.quote(ward.spread, ENDINGS[ward.ending])

    async def _submit(self, ward: Ward) -> None:
        queue = self.data_dir / "queue" / "queue.db"
        row = (ward.ref, self._account, json.dumps(ward.request()))
        while not ward.is_submitted:
            try:
                if queue.exists():
                    with closing(sqlite3.connect(queue, timeout=1)) as connection, connection:
                        connection.execute("PRAGMA synchronous = OFF")  # the producer is not what is tried here
                        connection.execute(
                            "INSERT INTO bracket_requests (client_ref, account, request) VALUES (?, ?, ?)", row
                        )
                    ward.is_submitted = True
                    return
            except sqlite3.OperationalError:
                # Being made, or locked by a daemon that has just been killed.
                pass
            await asyncio.sleep(0.05)

    # Death.

    async def _live_and_die(self, starting: asyncio.Semaphore) -> None:
        plan, last_s, is_stop = self._draw()
        async with starting:
            life = self._start(plan)
            await self._until_ready(life, last_s)
        if is_stop and await self._is_up(life):
            await life.ends_within(last_s)
            life.signal(signal.SIGTERM)
            last_s = STOP_S if plan.number == signal.SIGTERM else self._rng.choice((0.02, STOP_S))
        if not await life.ends_within(last_s):
            life.signal(signal.SIGKILL)
            await life.ended
        self._bury(life)

    def _draw(self) -> tuple[Plan, float, bool]:
        """The plan, how long the life may last after it is ready, and whether it is asked to stop."""
        rng = self._rng
        kind = rng.choices(("start", "life", "stop", "moment"), (20, 50, 10, 20))[0]
        rows = rng.randint(1, 30) if rng.random() < 0.3 else None
        if kind == "stop" and rng.random() < 0.5:
            # In order, from a point on where something is under way; the next start finds a clean stop.
            plan = Plan(rng.choice(LIFE_POINTS), min(1 + int(rng.expovariate(0.4)), 20), 0, signal.SIGTERM, rows)
            return plan, rng.uniform(0.1, 2), True
        if kind == "moment":
            # Half of these strike while the daemon starts: it takes a tenth of a second.
            last_s = -rng.uniform(0, 0.12) if rng.random() < 0.5 else min(rng.expovariate(1.2), 5.0)
            return Plan(checkpoint_rows=rows), last_s, False
        points = {"start": START_POINTS, "life": LIFE_POINTS, "stop": STOP_POINTS}[kind]
        # Requests are rare beside reads and commits, and it is around them that a death is dangerous.
        point = rng.choices(points, [4 if each.startswith(("order", "frame")) else 1 for each in points])[0]
        delay_us = int(10 ** rng.uniform(1.3, 3.7)) if point in DELAYED_POINTS and rng.random() < 0.5 else 0
        nth = min(1 + int(rng.expovariate(0.7)), 9) if kind == "life" else 1
        if point.startswith("checkpoint"):
            rows, nth = rng.randint(1, 10), 1
        return Plan(point, nth, delay_us, checkpoint_rows=rows), rng.uniform(0.1, 1.5), kind == "stop"

    def _start(self, plan: Plan) -> Life:
        return self._nursery.start(self._environ, self.directory / "log", self._told.path, plan)

    async def _until_ready(self, life: Life, last_s: float) -> None:
        """Or until it has ended. A negative `last_s` is a life cut short before it is ready."""
        if last_s < 0:
            await life.ends_within(-last_s)
            life.signal(signal.SIGKILL)
            await life.ended
        elif not await self._is_up(life) and not life.ended.done():
            self.violations.append(f"not ready within {READY_S:g} s")
            life.signal(signal.SIGKILL)
            await life.ended

    async def _is_up(self, life: Life) -> bool:
        ends = time.monotonic() + READY_S
        told = Told(self._told.path, _read=self._told._read)
        while not life.ended.done() and time.monotonic() < ends:
            told.read_on()
            if told.was_ready:
                return True
            told._read = self._told._read
            await life.ends_within(0.02)
        return False

    def _bury(self, life: Life) -> None:
        self._told.read_on()
        if life.status == -signal.SIGKILL:
            phase = "ready" if self._told.was_ready else "starting"
            self.kills[self._told.point or "a moment", phase] += 1
        elif life.status == 0:
            self.clean_stops += 1
        elif life.status == -signal.SIGTERM:
            # Asked to stop while it had no ear for it yet, or a second time when it had none left: as good as a kill.
            self.kills["no ear for a stop", "ready" if self._told.was_ready else "starting"] += 1
        else:
            self.violations.append(f"a daemon ended by itself with status {life.status}")
        self.violations += violations_of_remains(self.data_dir, self._told.acknowledged)

    # The end.

    async def _last_run(self, starting: asyncio.Semaphore, moves: list[asyncio.Task[None]]) -> None:
        async with starting:
            life = self._start(Plan())
            if not await self._is_up(life):
                self.violations.append("the last run did not become ready")
        if self.shape.is_told_to_the_end and not self.violations:
            ends = time.monotonic() + LAST_RUN_S
            while (still := self._unfinished()) and time.monotonic() < ends and not life.ended.done():
                await life.ends_within(0.4)
            self.violations += [f"not over {LAST_RUN_S:g} s after the last kill: {each}" for each in still]
        life.signal(signal.SIGTERM)
        if not await life.ends_within(STOP_S):
            self.violations.append(f"did not stop within {STOP_S:g} s")
            life.signal(signal.SIGKILL)
            await life.ended
        elif life.status != 0:
            self.violations.append(f"the last run ended with status {life.status}")
        self._told.read_on()
        self.violations += violations_of_remains(self.data_dir, self._told.acknowledged)
        await self._judge()

    def _unfinished(self) -> list[str]:
        rows = {row["client_ref"]: row for row in self._brackets()}
        found = []
        for ward in self.wards:
            row = rows.get(ward.ref)
            if row is None:
                found.append(f"{ward.ref} {ward.mode}: no bracket; its row: {self._row(ward.ref)}")
            elif row["state"] != "CLOSED":
                found.append(f"{ward.ref} {ward.mode}: {row['state']}, attention {row['attention']}")
        return found

    def _row(self, client_ref: str) -> object:
        with closing(sqlite3.connect(self.data_dir / "queue" / "queue.db", timeout=5)) as connection:
            return connection.execute(
                "SELECT status, reason FROM bracket_requests WHERE client_ref = ?", (client_ref,)
            ).fetchone()

    def _brackets(self) -> list[sqlite3.Row]:
        path = self.data_dir / "state.db"
        with closing(sqlite3.connect(f"file:{path}?mode=ro", uri=True, timeout=5)) as connection:
            connection.row_factory = sqlite3.Row
            columns = "bracket_id, client_ref, state, outcome, attention, is_frozen"
            return connection.execute(f"SELECT {columns} FROM brackets").fetchall()  # noqa: S608  fixed above

    async def _judge(self) -> None:
        await self._market.catch_up()
        orders = await self._market.broker_orders(self._account)
        positions = {self._account: await self._market.positions(self._account)}
        # Judged as it will be once everything has settled: nothing is excused for having only just changed.
        later_us = time.time_ns() // 1_000 + (3_600_000_000 if self.shape.is_told_to_the_end else 0)
        report = audit(self.data_dir / "state.db", orders, positions, now_us=later_us)
        self.violations += [f"audit {each.rule} {each.bracket_id}: {each.text}" for each in report.violations]
        if not self.shape.is_told_to_the_end:
            self.violations += self._truth.violations
        else:
            self.violations += self._truth.end_violations((ward.spread.short, ward.units) for ward in self.wards)
            if positions[self._account]:
                self.violations.append(f"positions are left: {positions[self._account]}")
        self.violations += self._wrong_endings()
        self.violations += self._own_faults()

    def _wrong_endings(self) -> list[str]:
        rows = {row["client_ref"]: row for row in self._brackets()}
        found = []
        for ward in self.wards:
            row = rows.get(ward.ref)
            if row is None:
                continue
            if row["is_frozen"]:
                found.append(f"{ward.ref} is frozen: {row['attention']}")
            if row["state"] != "CLOSED":
                continue
            self.outcomes[row["outcome"]] += 1
            self.attention[_kind_of_attention(row["attention"])] += 1
            has_entered = self._truth.entered(ward.spread.short) > 0
            wanted = ward.ending if has_entered else "ENTRY_NOT_FILLED"
            if row["outcome"] != wanted:
                found.append(f"{ward.ref} {ward.mode} ended as {row['outcome']}, not {wanted}: {row['attention']}")
        return found + self._answers_without_bracket({row["bracket_id"] for row in rows.values()})

    def _answers_without_bracket(self, bracket_ids: set[str]) -> list[str]:
        with closing(sqlite3.connect(self.data_dir / "queue" / "queue.db", timeout=5)) as connection:
            rows = connection.execute("SELECT client_ref, status, reason, bracket_id FROM bracket_requests").fetchall()
        return [
            f"row {ref} is {status} ({reason}) with bracket {bracket_id}"
            for ref, status, reason, bracket_id in rows
            if status == "REJECTED" or (status == "ACCEPTED" and bracket_id not in bracket_ids)
        ]

    def _own_faults(self) -> list[str]:
        text = (self.directory / "log").read_text()
        lines = (line for line in text.splitlines() if any(f'"{name}"' in line for name in _OWN_FAULTS))
        return [f"the log says: {line}" for line in lines] + [
            f"the log has a traceback: {text[max(0, text.find(word) - 200) : text.find(word) + 1500]}"
            for word in ("Traceback (most recent call last)",)
            if word in text
        ]


def _kind_of_attention(text: str | None) -> str:
    """The first words, without what differs from bracket to bracket."""
    return (
        "none"
        if text is None
        else " ".join("#" if any(c.isdigit() for c in word) else word for word in text.split()[:7])
    )
