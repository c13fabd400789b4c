"""Leads the demonstration: one loop that moves the market, asks the daemon how things stand and draws.

Each bracket follows a script of its own, a generator that yields what it waits for: a condition, asked again in every
round. So all of them live at once, in one thread, and the market moves for each at its own time.
"""

import random
import socket
import sqlite3
import subprocess
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from decimal import Decimal
from typing import TYPE_CHECKING, Any

from otocod.cli.client import Client, bracket_path
from otocod.cli.demo.market import Market, expirations
from otocod.cli.demo.plan import UNDERLYINGS, Plan, plans
from otocod.cli.demo.stage import Stage
from otocod.cli.failure import DaemonDown, Failed

if TYPE_CHECKING:
    from otocod.cli.demo.screen import Screen

_ROUND_S = 0.1
# One wait of a script; more than the longest window in which the daemon settles an unknown outcome.
_WAIT_S = 25.0
_ALL_S = 58.0
_CENT = Decimal("0.01")

Condition = Callable[[], bool]
Script = Iterator["Wait"]


class DemoFailed(Exception):
    """Something did not happen, or not as it should; the text says what."""


@dataclass(frozen=True, slots=True)
class Wait:
    what: str  # completes "waited for ..."
    condition: Condition


@dataclass
class Actor:
    """One bracket on the stage: its plan, its market, and what the daemon last said about it."""

    plan: Plan
    value: Decimal  # the spread's middle
    goal: Decimal
    step: Decimal = Decimal(0)  # of each round, towards the goal
    prices: list[float] = field(default_factory=list)  # one a round, from the insertion on
    is_inserted: bool = False
    row: dict[str, Any] = field(default_factory=dict)  # of the queue: status, reason, bracket_id
    bracket: dict[str, Any] = field(default_factory=dict)  # as `show --json`
    waiting: Wait | None = None
    waiting_since_s: float = 0.0
    script: Script | None = None

    @property
    def state(self) -> str:
        return str(self.bracket.get("state") or ("REJECTED" if self.row.get("status") == "REJECTED" else ""))

    @property
    def ending(self) -> str:
        """The outcome, or REJECTED; empty while it lives."""
        return "REJECTED" if self.state == "REJECTED" else str(self.bracket.get("outcome") or "")

    @property
    def is_over(self) -> bool:
        return self.state in ("CLOSED", "REJECTED")

    def has_been(self, state: str) -> bool:
        return any(entry["to"] == state for entry in self.bracket.get("history", ()))

    def order(self, role: str) -> dict[str, Any]:
        """The newest of a role; empty if there is none."""
        found = [order for order in self.bracket.get("orders", ()) if order["role"] == role]
        return dict(found[-1]) if found else {}

    @property
    def described(self) -> str:
        parts = (self.state or "not accepted", self.ending, self.bracket.get("attention"))
        return ", ".join(str(part) for part in parts if part)

    @property
    def is_as_planned(self) -> bool:
        if self.ending != self.plan.is_ending:
            return False
        return self.ending == "REJECTED" or self.bracket.get("protection") == self.plan.in_force


class Director:
    def __init__(self, stage: Stage, screen: "Screen") -> None:
        self._stage = stage
        self._screen = screen
        self._client = Client(stage.socket)
        self._market: Market | None = None
        self._account = ""
        self._expirations: dict[str, str] = {}
        self._started_s = time.monotonic()
        self._random = random.Random(7)  # noqa: S311  the market's noise: the same in every run
        self._last_seq = 0
        self._daemon_is_dead = False
        self._was_killed = False
        self._is_ready = False
        self.actors = [Actor(plan, plan.at_start, plan.at_start) for plan in plans()]
        self._by_name = {actor.plan.name: actor for actor in self.actors}

    def perform(self, *, as_json: bool) -> bool:
        """Whether all went as it should. Raises DemoFailed, StageFailed, MarketFailed."""
        with self._screen:
            self._open()
            for actor in self.actors:
                actor.script = self._script(actor)
            while any(actor.script is not None for actor in self.actors):
                self._round()
            self._look(thorough=True)
            self._draw()
            audit = self._audit()
        self._close()
        self._screen.finish(self.actors, audit, self._elapsed_s, as_json=as_json)
        return not audit["violations"] and all(actor.is_as_planned for actor in self.actors)

    @property
    def _elapsed_s(self) -> float:
        return time.monotonic() - self._started_s

    def _say(self, text: str) -> None:
        self._screen.line(self._elapsed_s, "", text)

    # The stage.

    def _open(self) -> None:
        self._stage.start_paper()
        self._market = Market(self._stage.urls["control_url"])
        self._account = self._market.accounts()[0]
        self._expirations = expirations(self._stage.urls["api_url"], UNDERLYINGS)
        self._say(f"paper broker up at {self._stage.urls['api_url']}")
        for actor in self.actors:
            self._quote(actor)
        self._stage.start_daemon(self._account)
        self._await_ready()
        self._say(f"otocod ready, process {self._stage.daemon_pid}")

    def _await_ready(self) -> None:
        until_s = time.monotonic() + _WAIT_S
        while not self._ready():
            self._stage.check()
            if time.monotonic() > until_s:
                raise DemoFailed(f"otocod was not ready after {_WAIT_S:g} s")
            self._draw()
            time.sleep(_ROUND_S)

    def _ready(self) -> bool:
        try:
            self._is_ready = bool(self._client.get("/v1/status")["ready"])
        except Failed:
            self._is_ready = False
        return self._is_ready

    def _close(self) -> None:
        status = self._stage.stop_daemon()
        if status != 0:
            raise DemoFailed(f"otocod ended with status {status} on SIGTERM")

    def _audit(self) -> dict[str, Any]:
        try:
            found: dict[str, Any] = self._client.post("/v1/audit")
        except Failed as failure:
            raise DemoFailed(f"the audit could not be made: {failure.message}") from None
        return found

    # The loop.

    def _round(self) -> None:
        began_s = time.monotonic()
        if self._elapsed_s > _ALL_S:
            waiting = [f"{a.plan.name} for {a.waiting.what}" for a in self.actors if a.waiting is not None]
            raise DemoFailed(f"not over after {_ALL_S:g} s; waiting: {', '.join(waiting)}")
        self._stage.check()
        self._drift()
        self._look(thorough=False)
        for actor in self.actors:
            self._advance(actor)
        self._draw()
        time.sleep(max(0.0, _ROUND_S - (time.monotonic() - began_s)))

    def _advance(self, actor: Actor) -> None:
        """Runs the script as far as its conditions are met."""
        while actor.script is not None:
            if actor.waiting is not None and not actor.waiting.condition():
                if time.monotonic() - actor.waiting_since_s > _WAIT_S:
                    raise DemoFailed(
                        f"{actor.plan.name} waited {_WAIT_S:g} s for {actor.waiting.what}; it is {actor.described}"
                    )
                return
            actor.waiting = next(actor.script, None)
            actor.waiting_since_s = time.monotonic()
            if actor.waiting is None:
                actor.script = None

    def _draw(self) -> None:
        daemon = "killed" if self._daemon_is_dead else ("ready" if self._is_ready else "starting")
        self._screen.draw(self.actors, daemon, self._elapsed_s)

    def _look(self, *, thorough: bool) -> None:
        """Asks the daemon. While it is dead everything stays as it was last seen."""
        if self._daemon_is_dead:
            return
        try:
            for event in self._client.get("/v1/events", query={"after": self._last_seq, "limit": 500}):
                self._last_seq = int(event["seq"])
                self._tell(event)
            self._read_queue()
            for actor in self.actors:
                bracket_id = actor.row.get("bracket_id")
                if bracket_id and (thorough or not actor.is_over):
                    actor.bracket = self._client.get(bracket_path(str(bracket_id)))
        except DaemonDown:
            # The next round's check says whether it has ended.
            return
        except Failed as failure:
            raise DemoFailed(f"otocod answered: {failure.message}") from None

    def _tell(self, event: dict[str, Any]) -> None:
        actor = next((a for a in self.actors if a.row.get("bracket_id") == event["bracket_id"]), None)
        if actor is None:
            self._read_queue()
            actor = next((a for a in self.actors if a.row.get("bracket_id") == event["bracket_id"]), None)
        name = actor.plan.name if actor else str(event["bracket_id"])[:8]
        self._screen.event(self._elapsed_s, name, event)

    def _read_queue(self) -> None:
        missing = [actor for actor in self.actors if actor.is_inserted and actor.row.get("status", "NEW") == "NEW"]
        if not missing:
            return
        connection = sqlite3.connect(f"{self._stage.queue.as_uri()}?mode=ro", uri=True, timeout=5)
        try:
            for actor in missing:
                found = connection.execute(
                    "SELECT status, reason, bracket_id FROM bracket_requests WHERE client_ref = ?", (actor.plan.name,)
                ).fetchone()
                if found is not None:
                    actor.row = dict(zip(("status", "reason", "bracket_id"), found, strict=True))
                    if found[0] == "REJECTED":
                        self._screen.rejected(self._elapsed_s, actor)
        finally:
            connection.close()

    # The market.

    def _drift(self) -> None:
        for actor in self.actors:
            if actor.value != actor.goal:
                self._step(actor)
                self._quote(actor)
            if actor.is_inserted and not actor.is_over:
                actor.prices.append(float(actor.value))

    def _step(self, actor: Actor) -> None:
        """Nearer to the goal, with noise that never goes beyond either end, so that no level is met before its time."""
        left = actor.goal - actor.value
        if abs(left) <= actor.step:
            actor.value = actor.goal
            return
        noise = _CENT * self._random.randint(-2, 2)
        direction = 1 if left > 0 else -1
        stepped = (actor.value + actor.step * direction + noise).quantize(_CENT)
        actor.value = min(stepped, actor.goal - _CENT) if direction > 0 else max(stepped, actor.goal + _CENT)

    def _quote(self, actor: Actor) -> None:
        assert self._market is not None
        plan = actor.plan
        for symbol, (bid, ask) in zip(plan.symbols(self._expirations), plan.quotes(actor.value), strict=True):
            self._market.quote(symbol, bid, ask)

    def _move(self, actor: Actor, to: Decimal, seconds: float) -> None:
        actor.goal = to
        actor.step = max(_CENT, (abs(to - actor.value) / Decimal(str(seconds / _ROUND_S))).quantize(_CENT))

    # The scripts.

    def _script(self, actor: Actor) -> Script:
        special = {
            "otoco-target": self._ends_while_otocod_is_dead,
            "killed": self._survives_a_kill,
            "cancelled": self._is_cancelled,
            "flawed": self._is_rejected,
            "watched-target": self._is_watched,
            "watched-stop": self._is_watched,
            "trailing-stop": self._is_trailed,
            "by-the-clock": self._is_timed,
            "no-groups": self._is_closed_by_operator,
            "unlinked": self._without_groups,
        }
        yield from special.get(actor.plan.name, self._runs_by_itself)(actor)

    def _insert(self, actor: Actor) -> None:
        """All that a producer does: one INSERT, and a datagram to have it picked up at once."""
        connection = sqlite3.connect(self._stage.queue, timeout=5)
        try:
            with connection:
                connection.execute(
                    "INSERT INTO bracket_requests (client_ref, account, request) VALUES (?, ?, ?)",
                    (actor.plan.name, self._account, actor.plan.request(self._expirations)),
                )
        finally:
            connection.close()
        actor.is_inserted = True
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as wake:
            try:
                wake.sendto(b"", str(self._stage.queue.parent / "wake"))
            except OSError:
                return  # only a hint: the daemon finds the row without it

    def _after(self, seconds: float) -> Wait:
        until_s = time.monotonic() + seconds
        return Wait(f"{seconds:g} s to pass", lambda: time.monotonic() >= until_s)

    def _state(self, actor: Actor, state: str) -> Wait:
        return Wait(state, lambda: actor.has_been(state) or actor.is_over)

    def _working(self, actor: Actor) -> Wait:
        return Wait("the entry to work at the broker", lambda: actor.order("entry").get("status") == "Live")

    def _entered(self, actor: Actor) -> Script:
        """From the insertion to a protected position."""
        self._insert(actor)
        yield self._working(actor)
        yield self._after(0.5)
        self._move(actor, actor.plan.at_entry, 1.5)
        yield self._state(actor, "EXITS_LIVE")

    def _left(self, actor: Actor) -> Script:
        to_target = actor.plan.is_ending == "TARGET_FILLED"
        self._move(actor, actor.plan.at_target if to_target else actor.plan.at_stop, 3.0)
        yield self._state(actor, "CLOSED")

    def _runs_by_itself(self, actor: Actor) -> Script:
        yield self._after(0.3 * self.actors.index(actor))
        yield from self._entered(actor)
        yield Wait("otocod to be killed and back", lambda: self._was_killed and not self._daemon_is_dead)
        yield from self._left(actor)

    def _ends_while_otocod_is_dead(self, actor: Actor) -> Script:
        """Its exits work at the broker, linked there; the script of the kill moves its market."""
        yield from self._entered(actor)
        yield self._state(actor, "CLOSED")

    def _survives_a_kill(self, actor: Actor) -> Script:
        yield self._after(1.2)
        self._insert(actor)
        yield self._working(actor)
        others = [self._by_name[name] for name in ("otoco-target", "otoco-stop", "condor-target", "debit-stop")]
        yield Wait("the others to be protected", lambda: all(other.has_been("EXITS_LIVE") for other in others))
        # What it has written so far belongs before the kill on the timeline.
        self._look(thorough=False)
        pid = self._stage.daemon_pid
        self._stage.kill_daemon()
        self._daemon_is_dead, self._was_killed, self._is_ready = True, True, False
        self._say(f"SIGKILL to otocod, process {pid}; the market goes on")
        protected = self._by_name["otoco-target"]
        self._move(actor, actor.plan.at_entry, 0.7)
        self._move(protected, protected.plan.at_target, 1.0)
        for order, owner in ((actor.order("entry"), actor), (protected.order("target"), protected)):
            yield self._filled_at_broker(order)
            self._say(f"the {order['role']} of {owner.plan.name} filled while nobody watched")
        yield self._after(0.5)
        self._stage.start_daemon(self._account)
        self._say(f"otocod started again, process {self._stage.daemon_pid}")
        yield Wait("otocod to be ready again", self._ready)
        self._daemon_is_dead = False
        self._say("otocod ready again: the broker was reconciled")
        yield self._state(actor, "EXITS_LIVE")
        yield from self._left(actor)

    def _filled_at_broker(self, order: dict[str, Any]) -> Wait:
        market, external_identifier = self._market, str(order["external_identifier"])
        assert market is not None
        return Wait(f"the {order['role']} to fill while otocod is dead", lambda: market.is_filled(external_identifier))

    def _is_cancelled(self, actor: Actor) -> Script:
        yield self._after(0.9)
        self._insert(actor)
        yield self._working(actor)
        yield self._after(0.5)
        yield from self._operate(actor, "cancel")
        yield self._state(actor, "CLOSED")

    def _is_rejected(self, actor: Actor) -> Script:
        yield self._after(0.6)
        self._insert(actor)
        yield Wait("the rejection", lambda: actor.is_over)

    def _groups_are_off(self) -> Wait:
        """The broker's rules change for the last two; by then everybody else's groups are in place."""
        unlinked = self._by_name["unlinked"]
        return Wait("the broker's rules to change", lambda: unlinked.is_inserted)

    def _without_groups(self, actor: Actor) -> Script:
        killed = self._by_name["killed"]
        yield Wait("everybody else's groups to be in place", lambda: killed.has_been("EXITS_LIVE"))
        assert self._market is not None
        self._market.set_rules(native_otoco_spreads=False, native_oco_spreads=False, reservation=False)
        self._say("the broker now refuses groups of spreads, and takes two closing orders for one position")
        yield from self._entered(actor)
        yield from self._left(actor)

    def _is_watched(self, actor: Actor) -> Script:
        """One exit rests at the broker, the other is watched for on quotes."""
        yield self._is_back()
        yield from self._entered(actor)
        yield from self._left(actor)

    def _is_trailed(self, actor: Actor) -> Script:
        """The stop follows the profit and keeps some of it when the market turns."""
        yield self._is_back()
        yield from self._entered(actor)
        best = (actor.plan.entry + actor.plan.target) / 2
        self._move(actor, best, 1.5)
        yield Wait("the stop to have followed", lambda: self._stops_of(actor) > 1)
        yield self._after(4.0)
        assert actor.plan.trail is not None
        self._move(actor, best + Decimal(actor.plan.trail), 1.5)
        yield self._state(actor, "CLOSED")

    def _stops_of(self, actor: Actor) -> int:
        return sum(order["role"] == "stop" for order in actor.bracket.get("orders", ()))

    def _is_timed(self, actor: Actor) -> Script:
        yield self._is_back()
        yield from self._entered(actor)
        yield self._state(actor, "CLOSED")

    def _is_back(self) -> Wait:
        return Wait("otocod to be killed and back", lambda: self._was_killed and not self._daemon_is_dead)

    def _is_closed_by_operator(self, actor: Actor) -> Script:
        yield self._groups_are_off()
        yield from self._entered(actor)
        yield Wait("attention", lambda: bool(actor.bracket.get("attention")))
        yield self._after(1.0)
        yield from self._operate(actor, "close")
        yield self._state(actor, "CLOSED")

    def _operate(self, actor: Actor, verb: str) -> Script:
        """An operator's command, as one would type it."""
        self._say(f"$ otocod {verb} ref:{actor.plan.name}")
        command = self._stage.command(verb, f"ref:{actor.plan.name}")
        yield Wait(f"the command `{verb}`", lambda: command.poll() is not None)
        said = _output(command)
        if command.returncode != 0:
            raise DemoFailed(f"otocod {verb} ended with status {command.returncode}: {said}")


def _output(command: subprocess.Popen[str]) -> str:
    said, _ = command.communicate()
    return " ".join(said.split())
