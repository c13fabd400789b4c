"""Request rows: from the bytes of a queue row to the first command, or to the reasons of its refusal.

A row that the daemon accepts must be right by a judge of its own (`row_judge`), must have been heard as it was said,
and sends exactly its entry. Everything else is refused with reasons that can be printed.
"""

from datetime import date
from decimal import Decimal
from random import Random
from typing import Any

from otocod.adapters.queue.rows import BadRow, RawRow, row_from_raw, storable_reason
from otocod.domain.acceptance import accept, ladder_for
from otocod.domain.brackets import OnDoubleExit, OnUnprotectable, Policy
from otocod.domain.commands import SubmitComplex, SubmitOrder
from otocod.domain.decide import decide
from otocod.domain.events import TimeReached
from otocod.domain.ids import AccountNumber, BracketId
from otocod.domain.invariants import violations_of
from otocod.domain.request import RequestRefused, canonical_text, parse_request
from otocod.domain.request_types import BracketRequest
from otocod.domain.specs import Protection, Role
from tests.fuzz import row_judge
from tests.fuzz.harness import Case, paths_of
from tests.fuzz.mutation import (
    HOSTILE_TEXTS,
    deep_text,
    dumped,
    mutate_bytes,
    mutate_text,
    mutate_tree,
    noise,
    token,
)

NOW_US = 1_795_446_000_000_000  # 2026-11-23, 15:00 UTC
TODAY = date(2026, 11, 23)
ACCOUNT = "5WT00001"
_CREATED = b"2026-11-23T14:59:58.123Z"
_POLICY = Policy(5_000_000, OnUnprotectable.CLOSE, OnDoubleExit.ALERT)
_NATIVE = (frozenset[Protection](), frozenset({Protection.NATIVE_OCO}), frozenset({Protection.NATIVE_OTOCO}))
_BRACKET_ID = BracketId("0199b1c0-0000-7000-8000-000000000001")

WORDS = (
    *("Day", "GTC", "GTD", "IOC", "Limit", "Market", "Stop", "Stop Limit", "Debit", "Credit", "Buy", "Sell"),
    *("Buy to Open", "Sell to Open", "Buy to Close", "Sell to Close", "Equity", "Equity Option", "Future"),
    *("Future Option", "Cryptocurrency", "AAPL", "BRK/B", "/ESZ6", "./ESZ6 EW4Z6 261224C6500", "BTC/USD"),
    *("AAPL  261218C00155000", "AAPL  261218P00155000", "SPXW  261218C06500000", "AAPL  261120C00155000"),
    *("AAPL  261318C00155000", "AAPL261218C155", "aapl  261218C00155000", "AAPL1 261218C00155000"),
    *("auto", "native-otoco", "native-oco", "watched", "unlinked", "stop", "target", "entry", "close", "hold"),
    *("restore", "release", "flatten", "2026-12-18", "2026-02-30", "2026-11-23", "2026-11-23T15:30:00Z"),
    *("2026-11-23 15:30:00.123456789+00:00", "2026-11-23T14:00:00Z", "9999-12-31T23:59:59Z", "0001-01-01T00:00Z"),
    *("version", "entry", "legs", "price", "price-effect", "trigger", "quantity", "action", "symbol", "tags"),
    *("profit-percent", "loss-percent", "limit-offset", "gtc-date", "stop-trigger", "source", "rest"),
    *("external-identifier", "advanced-instructions", "instrument-type", "order-type", "time-in-force"),
    *("watch", "on", "quotes", "of", "dwell-s", "natural", "mid", "mark", "trail", "break-even", "tiers", "keep"),
    *("distance", "distance-percent", "give-back-percent", "after-profit", "after-profit-percent", "keep-percent"),
    *("least-move", "time-exits", "at", "zone", "date", "minutes-before-close", "days-to-expiry", "after-s"),
    *("15:45", "24:00", "America/New_York", "UTC", "Europe/Berlin", "right/UTC", "2026-12-20", "2026-11-26"),
    *("0.01", "0.05", "0.40", "0.85", "0.855", "1.70", "1.90", "2.49", "2.50", "3.00", "50", "100", "100.1", "1", "3"),
)


def _option(strike: int, right: str = "C", root: str = "AAPL") -> str:
    return f"{root:<6}261218{right}{strike * 1000:08d}"


def _leg(symbol: str, action: str, quantity: int = 1, kind: str = "Equity Option") -> dict[str, Any]:
    return {"instrument-type": kind, "symbol": symbol, "quantity": quantity, "action": action}


def _cents(number: int) -> str:
    return str(Decimal(number) / 100)


class Grammar:
    """Requests that are right, or nearly: every form that the contract describes, with drawn prices."""

    def __init__(self, rng: Random) -> None:
        self._rng = rng

    def request(self) -> dict[str, Any]:
        rng = self._rng
        legs, width = self._legs()
        units = rng.choice((1, 1, 1, 2, 5))
        for leg in legs:
            leg["quantity"] *= units
        is_credit = legs[0]["action"].startswith("Sell")
        effect, other = ("Credit", "Debit") if is_credit else ("Debit", "Credit")
        price = rng.randrange(20, max(21, width * 2 // 3), 5)
        entry: dict[str, Any] = {"time-in-force": "Day", "order-type": "Limit", "legs": legs}
        entry |= {"price": _cents(price), "price-effect": effect}
        self._vary_entry(entry)
        request: dict[str, Any] = {"version": 1, "entry": entry}
        exits = rng.random()
        if exits < 0.9:
            request["target"] = self._target(price, is_credit, other)
        if exits > 0.1 and legs[0]["instrument-type"] != "Future Option":
            request["stop"] = self._stop(price, is_credit, other, width, len(legs))
            if rng.random() < 0.3:
                request["stop"] |= self._moving(price)
        if rng.random() < 0.3:
            self._decorate(request)
        return request

    def _legs(self) -> tuple[list[dict[str, Any]], int]:
        """The legs of one unit, and the largest value they can have, in cents."""
        rng = self._rng
        sell, buy = ("Sell to Open", "Buy to Open") if rng.random() < 0.6 else ("Buy to Open", "Sell to Open")
        low = rng.choice((90, 155, 200))
        choice = rng.random()
        if choice < 0.5:
            right, step = rng.choice("CP"), rng.choice((5, 10))
            near, far = (low, low + step) if right == "C" else (low + step, low)
            return [_leg(_option(near, right), sell), _leg(_option(far, right), buy)], step * 100
        if choice < 0.65:
            wings = [(low, "P", buy), (low + 5, "P", sell), (low + 20, "C", sell), (low + 25, "C", buy)]
            legs = [_leg(_option(strike, right), action) for strike, right, action in wings]
            return [legs[1], legs[0], legs[2], legs[3]], 500
        if choice < 0.80:
            return [_leg(_option(low, rng.choice("CP"), rng.choice(("AAPL", "SPY", "SPXW"))), sell)], 2_000
        if choice < 0.86:
            return [_leg(_option(low), "Buy to Open"), _leg(_option(low + 5), "Sell to Open", 2)], 400
        if choice < 0.91:
            return [_leg("AAPL", sell, 100, "Equity")], 20_000
        if choice < 0.95:
            return [_leg("/ESZ6", rng.choice((sell, "Buy", "Sell")), 1, "Future")], 100_000
        return [_leg("./ESZ6 EW4Z6 261224C6500", sell, 1, "Future Option")], 5_000

    def _vary_entry(self, entry: dict[str, Any]) -> None:
        rng = self._rng
        choice = rng.random()
        if choice < 0.1:
            entry |= {"time-in-force": "GTD", "gtc-date": "2026-12-18"}
        elif choice < 0.2:
            entry["time-in-force"] = rng.choice(("GTC", "IOC"))
        elif choice < 0.3 and len(entry["legs"]) == 1:
            kind = rng.choice(("Market", "Stop", "Stop Limit"))
            entry["order-type"] = kind
            if kind != "Stop Limit":
                del entry["price"], entry["price-effect"]
            if kind != "Market":
                entry["stop-trigger"] = "1.05"
        if rng.random() < 0.05:
            entry["automated-source"] = rng.random() < 0.5

    def _target(self, price: int, is_credit: bool, effect: str) -> dict[str, Any]:
        rng = self._rng
        if rng.random() < 0.4:
            return {"profit-percent": rng.choice(("50", "25.5", "80", "100", token("50"), token("33.3")))}
        wanted = max(price // 2 // 5 * 5, 5) if is_credit else price * 2
        return {"price": _cents(wanted), "price-effect": effect}

    def _stop(self, price: int, is_credit: bool, effect: str, width: int, legs: int) -> dict[str, Any]:
        rng = self._rng
        choice = rng.random()
        if choice < 0.35:
            stop: dict[str, Any] = {
                "loss-percent": rng.choice(("50", "99", token("75")) if not is_credit else ("100", "200"))
            }
            if rng.random() < 0.5:
                stop["limit-offset"] = rng.choice(("0.20", "0", token("0.05")))
            return stop
        trigger = min(price * 3 // 2 // 5 * 5 + 5, width - 10) if is_credit else max(price // 2 // 5 * 5, 5)
        if choice < (0.6 if legs == 1 else 0.45):
            return {"trigger": _cents(trigger)}
        limit = trigger + 10 if is_credit else max(trigger - 5, 1)
        return {"trigger": _cents(trigger), "price": _cents(limit), "price-effect": effect}

    def _moving(self, price: int) -> dict[str, Any]:
        """What moves a stop; now and then tiers that only loosen."""
        rng = self._rng
        moving: dict[str, Any] = {}
        if rng.random() < 0.6:
            distance = {"distance": "0.20"}, {"distance-percent": token("25")}, {"give-back-percent": "40"}
            after: tuple[dict[str, Any], ...] = (
                {},
                {"after-profit": _cents(max(price // 4, 1))},
                {"after-profit-percent": rng.choice(("25", "101"))},
            )
            more: tuple[dict[str, Any], ...] = (
                {},
                {"on": rng.choice(("natural", "mid", "mark"))},
                {"least-move": token("0.05")},
            )
            moving["trail"] = rng.choice(distance) | rng.choice(after) | rng.choice(more)
        if rng.random() < 0.4:
            moving["break-even"] = {"after-profit-percent": rng.choice(("10", token("20.5")))}
            if rng.random() < 0.5:
                moving["break-even"]["keep"] = rng.choice(("0", "0.01", token("0.02"), _cents(price)))
        if rng.random() < 0.4:
            steps = sorted(rng.sample(range(21, 100), rng.randrange(0, 9)))
            moving["tiers"] = [
                {"after-profit-percent": str(step), "keep-percent": str(step // 2)}
                if rng.random() < 0.7
                else {"after-profit": _cents(step * price // 100), "keep": _cents(step * price // 200)}
                for step in steps
            ]
        return moving

    def _watch(self) -> dict[str, Any]:
        rng = self._rng
        window = rng.randrange(2, 21)
        watch = {
            "on": rng.choice(("natural", "mid", "mark")),
            "quotes": rng.choice((rng.randrange(2, window + 1), str(window))),
            "of": window,
            "dwell-s": rng.choice(("0", "1", token("2.5"), token("300"))),
        }
        return {key: watch[key] for key in rng.sample(sorted(watch), rng.randrange(0, 5))}

    def _time_exit(self) -> dict[str, Any]:
        rng = self._rng
        if rng.random() < 0.2:
            return {"after-s": rng.choice((token("3600"), "0.5", token("31622400")))}
        days: dict[str, Any] = {"days-to-expiry": rng.choice((token("0"), "5", token("25"), token("26")))}
        if rng.random() < 0.2:
            return days
        clock = {
            "at": rng.choice(("15:45", "00:00", "23:59")),
            "zone": rng.choice(("America/New_York", "UTC", "Mars/X")),
        }
        close = {"minutes-before-close": rng.choice((token("15"), "1", token("390")))}
        on = {"date": rng.choice(("2026-12-01", "2026-12-18", "2026-12-21", "2026-11-26", "2026-11-23"))}
        return rng.choice((clock, close)) | rng.choice(({}, days, on))

    def _walk(self) -> dict[str, Any]:
        rng = self._rng
        choices: dict[str, Any] = {
            "start": rng.choice(("mid", "mark", "natural", "width", "far")),
            "width-percent": rng.choice((token("30"), "0", "101")),
            "every-s": rng.choice((token("2"), "0.5", token("300"))),
            "cap": {"price": rng.choice((token("2.10"), "1.00")), "price-effect": rng.choice(("Debit", "Credit"))},
            "cap-offset": rng.choice((token("0.20"), "0")),
            "then": rng.choice(("hold", "cancel", "marketable")),
            "replaces": rng.choice((token("5"), "1", token("61"))),
        }
        told = {key: choices[key] for key in rng.sample(sorted(choices), rng.randrange(0, 4))}
        return {"step": rng.choice((token("0.05"), "0.01", "0.001"))} | told

    def _decorate(self, request: dict[str, Any]) -> None:
        rng = self._rng
        choices: dict[str, Any] = {
            "not-after": rng.choice(("2026-11-23T16:00:00Z", "2026-11-24 00:00+00:00", "2026-11-23T15:30:00.1234567Z")),
            "protection": rng.choice(list(Protection)).value,
            "rest": rng.choice(("stop", "target")),
            "partial-entry": {"grace-s": rng.choice((token("30"), token("0"), "1.5", token("3600")))},
            "on-outside-change": rng.choice(("hold", "restore", "release", "flatten")),
            "watch": self._watch(),
            "walk": {role: self._walk() for role in rng.sample(("target", "stop", "close"), rng.choice((0, 1, 1, 2)))},
            "time-exits": [self._time_exit() for _ in range(rng.choice((0, 1, 1, 2, 4)))],
            "tags": {rng.choice(HOSTILE_TEXTS): rng.choice(HOSTILE_TEXTS)} if rng.random() < 0.3 else {"desk": "a"},
        }
        for key in rng.sample(sorted(choices), rng.randrange(1, 4)):
            request[key] = choices[key]
        for part in ("target", "stop"):
            if part in request and rng.random() < 0.3:
                request[part]["time-in-force"] = rng.choice(("Day", "GTC"))


class Rows:
    def case(self, rng: Random) -> Case:
        choice = rng.random()
        if choice < 0.001:
            return Case("request", _bomb(rng))
        if choice < 0.03:
            return Case("request", noise(rng))
        request = Grammar(rng).request()
        if choice < 0.06:
            return Case(rng.choice(("client_ref", "account", "created_at")), _column(rng))
        if choice < 0.30:
            return Case("request", dumped(request, indent=rng.choice((None, None, 1))).encode())
        if choice < 0.75:
            paths = paths_of(request)
            for _ in range(rng.choice((1, 1, 1, 2, 3))):
                mutate_tree(rng, request, paths, WORDS)
            return Case("request", dumped(request).encode())
        content = dumped(request)
        if choice < 0.93:
            for _ in range(rng.choice((1, 1, 2))):
                content = mutate_text(rng, content)
            return Case("request", content.encode("utf-8", "surrogatepass"))
        return Case("request", mutate_bytes(rng, content.encode()))

    def check(self, case: Case) -> str:
        row = row_from_raw(_raw(case), now_us=NOW_US)
        if isinstance(row, BadRow):
            _check_reasons(row.reasons)
            assert row.client_ref.isprintable() or case.kind == "client_ref"
            return "spoiled"
        try:
            request = parse_request(
                row.request,
                account=row.account,
                accounts=(ACCOUNT,),
                created_at_us=row.created_at_us,
                now_us=NOW_US,
                today=TODAY,
            )
        except RequestRefused as refused:
            _check_reasons(refused.reasons)
            return "refused"
        assert row.account == ACCOUNT
        _check_heard(row.request, request)
        _check_sent(request, row.client_ref)
        return "accepted"

    def close(self) -> None:
        pass


def _raw(case: Case) -> RawRow:
    columns = {
        "client_ref": b"ref-1",
        "account": ACCOUNT.encode(),
        "request": _PLAIN,
        "created_at": _CREATED,
        case.kind: case.content,
    }
    return RawRow(1, **{name: ("text", content) for name, content in columns.items()})


_PLAIN = dumped(
    {
        "version": 1,
        "entry": {
            "time-in-force": "Day",
            "order-type": "Limit",
            "price": "0.85",
            "price-effect": "Credit",
            "legs": [_leg(_option(155), "Sell to Open"), _leg(_option(160), "Buy to Open")],
        },
        "target": {"price": "0.40", "price-effect": "Debit"},
    }
).encode()


def _column(rng: Random) -> bytes:
    if rng.random() < 0.3:
        return noise(rng, 2_000)
    text = rng.choice(
        (*HOSTILE_TEXTS, ACCOUNT, "2026-11-23T14:59:00", "2026-11-23T16:00Z", "0001-01-01T00:00:00+23:59")
    )
    return text.encode("utf-8", "surrogatepass")


def _bomb(rng: Random) -> bytes:
    """What is meant to cost: at or over every bound of size and depth."""
    choice = rng.randrange(8)
    if choice == 0:
        return deep_text(rng).encode()
    if choice == 1:
        return ("{" + ",".join(f'"k{number}":0' for number in range(5_000)) + "}").encode()
    if choice == 2:
        return ('{"version":1,' + ",".join('"entri":0' for _ in range(5_000)) + "}").encode()
    request = Grammar(rng).request()
    if choice == 3:
        request["entry"]["legs"] *= 400
    elif choice == 4:
        request["tags"] = {f"tag{number}": "x" * 900 for number in range(rng.choice((60, 64, 65)))}
    elif choice == 5:
        request["entry"]["price"] = token("9" * 60_000)
    elif choice == 6:
        request |= {"x" * 1_000 + str(number): number for number in range(50)}
    else:
        request["tags"] = {"a": "\u202e" * rng.choice((1_000, 20_000))}
    return dumped(request).encode()


def _check_reasons(reasons: tuple[str, ...]) -> None:
    assert reasons, "refused without a reason"
    assert len(set(reasons)) == len(reasons) <= 60
    for reason in reasons:
        assert 0 < len(reason) < 600, reason
        assert reason.isprintable(), reason
    text = "\n".join(reasons)
    stored = storable_reason(text)
    assert stored is not None and len(stored) <= 8_193


def _check_heard(text: str, request: BracketRequest) -> None:
    tree, wrong = row_judge.wrongs_of(text, today=TODAY, now_us=NOW_US)
    assert not wrong, f"accepted, but {wrong}"
    different = row_judge.differences(tree, request)
    assert not different, different
    if "not-after" in tree:
        assert request.not_after_us == row_judge.us_of(tree["not-after"])
    assert request.not_after_us > NOW_US
    # What is stored is the canonical text: read again it must be itself. One in four, since it costs a parse.
    if len(text) % 4 == 0:
        assert canonical_text(request.text) == request.text


def _check_sent(request: BracketRequest, client_ref: str) -> None:
    usable = _NATIVE[len(request.text) % len(_NATIVE)]
    ladder = ladder_for(request, usable)
    decision = accept(
        request,
        bracket_id=_BRACKET_ID,
        client_ref=client_ref,
        account=AccountNumber(ACCOUNT),
        policy=_POLICY,
        ladder=ladder,
        now_us=NOW_US,
    )
    assert violations_of(decision.bracket) == ()
    (command,) = decision.commands
    assert isinstance(command, SubmitOrder | SubmitComplex) and command.after_commit
    members = (command.member,) if isinstance(command, SubmitOrder) else command.members
    assert [member.role for member in members].count(Role.ENTRY) == 1
    assert members[0].spec == request.entry
    for member in members[1:]:
        assert member.spec.strict and not any(leg.action.is_opening for leg in member.spec.legs)
        assert [leg.quantity for leg in member.spec.legs] == [leg.quantity for leg in request.entry.legs]
    later = decide(decision.bracket, TimeReached(), NOW_US + 1_000_000)
    assert not later.commands and violations_of(later.bracket) == ()
