"""What goes wrong in one run: drawn from the seed, each class of fault on or off, then its rate.

Each class, and each place that draws, has a random stream of its own, named after it. So switching a class off leaves
what the others draw as it was, which is what makes shrinking worth anything.
"""

from dataclasses import dataclass, field
from random import Random

FAULT_CLASSES: dict[str, str] = {
    "request_lost": "a request never reaches the broker; the caller times out",
    "answer_lost": "the broker acts, and the caller times out",
    "late_acceptance": "the broker acts some time after the caller has been told nothing, or 502",
    "doubled": "a proxy repeats a request: two orders with one identifier",
    "server_errors": "500 or 502, with and without the request having been carried out",
    "rate_limited": "429",
    "not_sent": "no connection: proved that nothing left",
    "garbage": "carried out, and the answer cannot be read",
    "slow": "requests take seconds",
    "outage": "for a while nothing reaches the broker, stream included",
    "reads_fail": "reads and listings fail, torn pages among them",
    "listing_lag": "listings do not show an order for a while",
    "frames_dropped": "single frames are lost without a word",
    "frames_delayed": "frames come late, in order",
    "frames_doubled": "frames come twice",
    "frames_reordered": "frames overtake each other",
    "frames_stale": "a frame comes again much later",
    "frames_odd": "a frame cannot be read; only the order's id is known",
    "stream_down": "the stream ends and comes back",
    "stream_silent": "the stream says nothing and counts as healthy until its heartbeat is missed",
    "partial_fills": "orders fill in parts",
    "cancel_race": "fills win against cancels and replacements",
    "both_exits": "the second exit fills beside the first, before anybody can cancel it",
    "late_fills": "a cancelled order turns out to be filled",
    "broker_ends": "the broker cancels, rejects or expires what it has accepted",
    "refusals": "the broker does not take groups, spreads in groups, or stops beyond their trigger",
    "odd_rules": "the broker's undocumented habits, the other way round",
    "position_lag": "the broker's position record follows fills late",
    "hand_cancels": "a person cancels orders on the platform",
    "hand_edits": "a person moves orders on the platform",
    "crashes": "the process is killed; what was not committed is lost",
    "crash_again": "and killed again while it recovers",
    "clean_stops": "stopped and started in order",
    "store_slow": "commits take long",
    "store_full": "the disk is full for a while",
    "store_dies": "a commit fails for good: the daemon must end and start anew",
    "clock_steps": "the wall clock jumps, while running and between runs",
    "operator": "close, cancel, change and release by an operator",
    "repeated_rows": "a producer inserts the same request again",
}
# Each of these is drawn from a stream of its own too, so that one more changes nothing of what a seed has drawn so far.
FAULT_CLASSES |= (
    _DRAWN_ALONE := {
        "torn_pages": "a listing is read page by page while orders change, and pages contradict each other",
        "token_death": "the access token dies in the middle of things, and the log-in may be refused for a while",
        "second_daemon": "the lock is stolen: a second daemon starts on the same database while the first one lives",
        "hand_closes": "a person closes a position on the platform, or it is assigned",
        "foreign_orders": "a person has orders of their own on the same legs",
        "closed_market": "the market closes for a while: Day orders expire, new ones wait",
        "quotes_down": "the quote feed goes away, with and without saying so",
        "quotes_lie": "one leg's quote is wrong for a moment",
        "positions_untold": "the stream says nothing of positions",
        "shares": "shares instead of options",
        "hours": "days of some minutes with nights between, the last one the options' own; time exits",
        "exits_moved": "an operator moves targets and stops, again and again",
        "late_entries": "an entry is carried out minutes after it was sent, when it has long been given up",
    }
)
# One seed in so many runs on the real store and a real file.
SQLITE_EVERY = 100

_RATES = (0.02, 0.05, 0.1, 0.25)


@dataclass(frozen=True)
class Plan:
    """`rates`: of the classes that are on; what a rate means is the place's that draws."""

    seed: int
    rates: dict[str, float]
    brackets: int
    active_s: float  # faults may happen until then
    latency_ms: float
    off: frozenset[str] = frozenset()
    is_on_sqlite: bool = False
    _streams: dict[str, Random] = field(default_factory=dict, compare=False, repr=False)

    def random(self, name: str) -> Random:
        stream = self._streams.get(name)
        if stream is None:
            stream = self._streams[name] = Random(f"{self.seed}/{name}")
        return stream

    def is_on(self, name: str) -> bool:
        return name in self.rates

    def strikes(self, name: str) -> bool:
        rate = self.rates.get(name)
        return rate is not None and self.random(name).random() < rate

    @property
    def classes(self) -> tuple[str, ...]:
        return tuple(name for name in FAULT_CLASSES if name in self.rates)


def plan_from_seed(seed: int, *, off: frozenset[str] = frozenset(), only: frozenset[str] | None = None) -> Plan:
    """`off`: classes switched off whatever the seed says; `only`: all others are."""
    random = Random(f"{seed}/plan")
    share = random.choice((0.05, 0.15, 0.3, 0.5))
    rates: dict[str, float] = {}
    for name in FAULT_CLASSES:
        source = Random(f"{seed}/class/{name}") if name in _DRAWN_ALONE else random
        is_on, rate = source.random() < share, source.choice(_RATES)
        if is_on and name not in off and (only is None or name in only):
            rates[name] = rate
    return Plan(
        seed=seed,
        rates=rates,
        brackets=random.randint(2, 5),
        active_s=random.uniform(30, 90),
        latency_ms=random.choice((1.0, 10.0, 60.0, 200.0)),
        off=off,
        is_on_sqlite=seed % SQLITE_EVERY == 0,
    )
