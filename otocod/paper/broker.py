"""The middle of the paper broker: one clock, one exchange, and the order in which effects leave.

    REST call, control call, timer  ->  exchange (pure)  ->  settle()  ->  truth log, streamer messages, next timer

Everything that changes the exchange runs on the event loop without awaiting, and calls `settle()` before anything
else can run, so the truth log and the streamer show changes in the order in which they happened. A single timer
stands for whatever the exchange will do by itself next (status steps, delayed fills, expiries); at idle nothing runs.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Mapping, Sequence
from datetime import date
from decimal import Decimal
from typing import Protocol

from otocod.paper import sessions
from otocod.paper.answers import Json
from otocod.paper.auth import QuoteTokens, Tokens
from otocod.paper.exchange import Exchange
from otocod.paper.faults import Faults, FaultsInvalid
from otocod.paper.market import ScriptStep, Walk
from otocod.paper.rules import Rules
from otocod.paper.server_rules import PREFIXES, ServerRules
from otocod.paper.state import Notice
from otocod.paper.truth_log import TruthLog


class Clock:
    """Wall time that never goes back, and that a test may move on."""

    def __init__(self) -> None:
        self._offset_us = 0
        self._last_us = 0

    def now_us(self) -> int:
        self._last_us = max(self._last_us, time.time_ns() // 1000 + self._offset_us)
        return self._last_us

    def advance(self, by_us: int) -> None:
        self._offset_us += by_us


class NoticeSink(Protocol):
    def deliver(self, notices: Sequence[Notice]) -> None: ...


class QuoteSink(Protocol):
    def publish(self, symbol: str) -> None: ...

    def wanted(self) -> set[str]: ...


class PaperBroker:
    """State of one broker; no sockets. The sinks are set by the server before anything happens."""

    def __init__(self, *, seed: int, accounts: Sequence[str] = ("5WT00001",)) -> None:
        self.seed = seed
        self.clock = Clock()
        self.rules = Rules()
        self.server_rules = ServerRules()
        self.faults = Faults(seed)
        self.tokens = Tokens(seed)
        self.quote_tokens = QuoteTokens(seed)
        self.walk = Walk(seed)
        self.log = TruthLog()
        self.accounts = tuple(accounts)
        self.exchange = Exchange(rules=self.rules, seed=seed, now_us=self.clock.now_us(), accounts=self.accounts)
        self.notices: NoticeSink | None = None
        self.quotes: QuoteSink | None = None
        self._absorbed = 0
        self._timer: asyncio.TimerHandle | None = None
        self._armed_for_us: int | None = None
        self._walk_timer: asyncio.TimerHandle | None = None
        self._script: list[asyncio.TimerHandle] = []

    def today(self) -> date:
        """The day that chains and dates to expiration count from."""
        return sessions.utc_day(self.clock.now_us())

    def settle(self) -> None:
        """Publishes what the exchange has done and sets the timer for what it will do."""
        exchange = self.exchange
        log = exchange.log
        if len(log) > self._absorbed:
            self.log.absorb(log[self._absorbed :], now_us=self.clock.now_us())
            self._absorbed = len(log)
        notices = exchange.drain()
        if notices and self.notices is not None:
            self.notices.deliver(notices)
        self._arm()

    def _arm(self) -> None:
        due_us = self.exchange.next_due_us()
        if due_us == self._armed_for_us and self._timer is not None:
            return
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        self._armed_for_us = due_us
        if due_us is not None:
            delay_s = max(0.0, (due_us - self.clock.now_us()) / 1_000_000)
            self._timer = asyncio.get_running_loop().call_later(delay_s, self._on_timer)

    def _on_timer(self) -> None:
        self._timer = None
        self._armed_for_us = None
        self.exchange.advance(self.clock.now_us())
        self.settle()

    def advance_clock(self, by_ms: int) -> None:
        self.clock.advance(by_ms * 1000)
        self.exchange.advance(self.clock.now_us())
        self._armed_for_us = None
        self.settle()

    def set_quote(self, symbol: str, bid: Decimal, ask: Decimal, *, bid_size: int = 10, ask_size: int = 10) -> None:
        self.exchange.set_quote(symbol, bid, ask, now_us=self.clock.now_us(), bid_size=bid_size, ask_size=ask_size)
        if self.quotes is not None:
            self.quotes.publish(symbol)
        self.settle()

    def ensure_quote(self, symbol: str) -> None:
        """Under the seeded walk every symbol has a price as soon as somebody asks for it; by hand it has none."""
        if self.is_seeded and symbol not in self.exchange.quotes:
            made = self.walk.quote(symbol, self.today())
            if made is not None:
                self.set_quote(symbol, made.bid, made.ask)

    @property
    def is_seeded(self) -> bool:
        return self.server_rules.word("quotes.mode") == "seeded"

    def _arm_walk(self) -> None:
        if self._walk_timer is not None:
            self._walk_timer.cancel()
            self._walk_timer = None
        if self.is_seeded:
            tick_s = self.server_rules.whole("quotes.tick_ms") / 1000
            self._walk_timer = asyncio.get_running_loop().call_later(tick_s, self._on_walk)

    def _on_walk(self) -> None:
        self.walk.tick()
        today = self.today()
        symbols = set(self.exchange.quotes) | (self.quotes.wanted() if self.quotes is not None else set())
        for symbol in sorted(symbols):
            made = self.walk.quote(symbol, today)
            if made is not None:
                self.set_quote(symbol, made.bid, made.ask)
        self._arm_walk()

    def start_script(self, steps: Sequence[ScriptStep]) -> None:
        """Replaces a running script. Times count from now."""
        self.stop_script()
        loop = asyncio.get_running_loop()
        self._script = [
            loop.call_later(step.after_ms / 1000, _quote_setter(self, step.symbol, step.bid, step.ask))
            for step in steps
        ]

    def stop_script(self) -> None:
        for handle in self._script:
            handle.cancel()
        self._script = []

    def describe_rules(self) -> list[Json]:
        return [*self.rules.describe(), *self.server_rules.describe()]

    def patch_rules(self, changes: Mapping[str, object]) -> None:
        """Market's and server's rules together, all or nothing. Raises ValueError with every problem, one a line."""
        own = {name: value for name, value in changes.items() if name.startswith(PREFIXES)}
        market = {name: value for name, value in changes.items() if name not in own}
        problems = self.server_rules.problems(own)
        if problems:
            # The market's rules are tried on a copy, so that one answer names everything.
            try:
                Rules().patch(market)
            except ValueError as error:
                problems += str(error).splitlines()
            raise ValueError("\n".join(problems))
        if market:
            self.rules.patch(market)
        self.server_rules.apply(own)
        self.exchange.advance(self.clock.now_us())
        if any(name.startswith("quotes.") for name in own):
            self._arm_walk()
        self.settle()

    def configure(self, config: Mapping[str, object]) -> list[str]:
        """Applies a configuration's `rules` and `faults`; the problems, all of them."""
        problems: list[str] = []
        rules = config.get("rules", {})
        if not isinstance(rules, Mapping):
            problems.append("rules: must be a table")
        else:
            try:
                self.patch_rules(_flat(rules))
            except ValueError as error:
                problems += [f"rules.{line}" for line in str(error).splitlines()]
        try:
            self.faults.patch(config.get("faults", {}))
        except FaultsInvalid as error:
            problems += [f"faults.{line}" for line in error.problems]
        return problems

    def reset(self) -> None:
        """A fresh day: orders, positions, quotes, faults and the truth log go; rules, tokens, connections stay."""
        self.stop_script()
        self.faults.clear()
        self.exchange.drain()
        self.log.clear()
        self.exchange.reset(self.clock.now_us())
        self.walk = Walk(self.seed)
        self._absorbed = len(self.exchange.log)  # the exchange's record goes on over a reset
        self._armed_for_us = None
        self.settle()

    def stop(self) -> None:
        self.stop_script()
        for timer in (self._timer, self._walk_timer):
            if timer is not None:
                timer.cancel()


def _flat(rules: Mapping[str, object]) -> dict[str, object]:
    """A configuration file may write the server's rules as tables: `[rules.quotes] mode = "seeded"`."""
    flat: dict[str, object] = {}
    for name, value in rules.items():
        if isinstance(value, Mapping) and f"{name}." in PREFIXES:
            flat |= {f"{name}.{key}": inner for key, inner in value.items()}
        else:
            flat[name] = value
    return flat


def _quote_setter(broker: PaperBroker, symbol: str, bid: Decimal, ask: Decimal) -> Callable[[], None]:
    return lambda: broker.set_quote(symbol, bid, ask)
