"""Tokens: when they are fetched, when not, and by how many."""

import asyncio
import json
from collections.abc import Callable
from itertools import pairwise

import pytest

from otocod.adapters.tastytrade.auth import (
    Authenticator,
    Grant,
    LoginFailures,
    Secrets,
    TokenService,
    grant_from_answer,
)
from otocod.adapters.tastytrade.errors import MaybeSent, TokenUnreachable
from otocod.ports.broker import LoginRefused
from tests.support.tastytrade import START_US, ManualClock, payload

LIFE_US = 900_000_000


class Service:
    """Hands out numbered tokens, or raises what was put into `error`; waits at `gate` if there is one."""

    def __init__(self) -> None:
        self.calls = 0
        self.error: Exception | None = None
        self.gate: asyncio.Event | None = None

    async def fetch(self) -> Grant:
        self.calls += 1
        if self.gate is not None:
            await self.gate.wait()
        if self.error is not None:
            raise self.error
        return Grant(f"t{self.calls}", LIFE_US)


class Rig:
    def __init__(self, failures: LoginFailures | None = None) -> None:
        self.clock = ManualClock()
        self.service = Service()
        self.stored: list[LoginFailures] = []
        self.auth = Authenticator(
            self.service.fetch,
            self.clock,
            failures=failures,
            on_failures=self.stored.append,
            uniform=lambda: 1.0,
        )

    async def settle(self, calls: int) -> None:
        """A few turns of the loop, in which a renewal beside the caller begins and, without a gate, ends."""
        for _ in range(10):
            await asyncio.sleep(0)
        assert self.service.calls == calls


async def test_one_token_serves_many_uses() -> None:
    rig = Rig()
    assert [await rig.auth.bearer() for _ in range(3)] == ["Bearer t1"] * 3
    assert rig.service.calls == 1


@pytest.mark.covers("F76")
async def test_concurrent_callers_share_one_login() -> None:
    rig = Rig()
    rig.service.gate = asyncio.Event()
    callers = [asyncio.create_task(rig.auth.bearer()) for _ in range(5)]
    await rig.settle(1)
    rig.service.gate.set()
    assert set(await asyncio.gather(*callers)) == {"Bearer t1"}
    assert rig.service.calls == 1


@pytest.mark.covers("F76")
async def test_one_caller_giving_up_does_not_take_the_token_from_the_others() -> None:
    rig = Rig()
    rig.service.gate = asyncio.Event()
    first, second = (asyncio.create_task(rig.auth.bearer()) for _ in range(2))
    await rig.settle(1)
    first.cancel()
    rig.service.gate.set()
    assert await second == "Bearer t1"
    assert first.cancelled()


@pytest.mark.covers("F76")
async def test_past_60_percent_the_old_token_goes_on_while_the_new_one_is_fetched() -> None:
    rig = Rig()
    await rig.auth.bearer()
    rig.clock.advance_s(539)
    assert await rig.auth.bearer() == "Bearer t1"
    assert rig.service.calls == 1
    rig.clock.advance_s(1)
    assert await rig.auth.bearer() == "Bearer t1"
    await rig.settle(2)
    assert await rig.auth.bearer() == "Bearer t2"


async def test_an_ended_token_is_not_used() -> None:
    rig = Rig()
    await rig.auth.bearer()
    rig.clock.advance_s(896)
    assert await rig.auth.bearer() == "Bearer t2"


@pytest.mark.covers("F77")
async def test_a_token_that_still_lives_survives_an_outage_of_the_token_service() -> None:
    rig = Rig()
    await rig.auth.bearer()
    rig.service.error = TokenUnreachable("down")
    rig.clock.advance_s(600)
    assert await rig.auth.bearer() == "Bearer t1"
    await rig.settle(2)
    assert await rig.auth.bearer() == "Bearer t1"
    assert rig.service.calls == 2  # backing off
    rig.clock.advance_s(300)
    with pytest.raises(TokenUnreachable):
        await rig.auth.bearer()
    assert rig.auth.latest_bearer() == "Bearer t1"  # heartbeats go on with it


@pytest.mark.covers("F77")
async def test_an_unreachable_token_service_is_tried_at_most_every_30_seconds_and_at_least() -> None:
    rig = Rig()
    rig.service.error = TokenUnreachable("down")
    asked_at_s = []
    for second in range(200):
        before = rig.service.calls
        with pytest.raises(TokenUnreachable):
            await rig.auth.bearer()
        if rig.service.calls > before:
            asked_at_s.append(second)
        rig.clock.advance_s(1)
    gaps = [later - earlier for earlier, later in pairwise(asked_at_s)]
    assert gaps[:5] == [1, 2, 4, 8, 16]
    assert set(gaps[5:]) == {30}
    assert rig.stored == []  # no refusals


@pytest.mark.covers("F78")
async def test_a_refused_login_climbs_the_ladder() -> None:
    rig = Rig()
    rig.service.error = LoginRefused("invalid_grant")
    for wait_s in (10, 60, 300, 1_800, 1_800):
        with pytest.raises(LoginRefused):
            await rig.auth.bearer()
        calls = rig.service.calls
        rig.clock.advance_s(wait_s - 1)
        with pytest.raises(LoginRefused, match="next try in 1 s"):
            await rig.auth.bearer()
        assert rig.service.calls == calls
        rig.clock.advance_s(1)
    assert rig.service.calls == 5
    assert [failures.count for failures in rig.stored] == [1, 2, 3, 4, 5]
    assert rig.auth.is_refused


@pytest.mark.covers("F78")
async def test_the_ladder_goes_on_after_a_restart() -> None:
    rig = Rig(failures=LoginFailures(3, START_US - 60_000_000))
    with pytest.raises(LoginRefused, match="refused 3 times; next try in 240 s"):
        await rig.auth.bearer()
    assert rig.service.calls == 0


@pytest.mark.covers("F78")
async def test_an_operator_may_have_it_tried_at_once_and_the_count_stays() -> None:
    rig = Rig(failures=LoginFailures(3, START_US))
    rig.auth.retry_now()
    rig.service.error = LoginRefused("invalid_grant")
    with pytest.raises(LoginRefused):
        await rig.auth.bearer()
    assert rig.service.calls == 1
    assert rig.stored[-1].count == 4


async def test_a_login_that_works_ends_the_count() -> None:
    rig = Rig(failures=LoginFailures(2, START_US - 3_600_000_000))
    assert await rig.auth.bearer() == "Bearer t1"
    assert rig.stored == [LoginFailures()]


@pytest.mark.covers("F12")
async def test_a_rejected_token_is_replaced_once_for_all_who_saw_the_401() -> None:
    rig = Rig()
    rejected = await rig.auth.bearer()
    replaced = await asyncio.gather(*(rig.auth.replace(rejected) for _ in range(4)))
    assert set(replaced) == {"Bearer t2"}
    assert await rig.auth.replace(rejected) == "Bearer t2"
    assert rig.service.calls == 2


@pytest.mark.covers("F12")
async def test_a_token_rejected_at_once_is_not_fetched_again_and_again() -> None:
    rig = Rig()
    assert await rig.auth.replace(await rig.auth.bearer()) == "Bearer t2"
    for _ in range(3):
        assert await rig.auth.replace("Bearer t2") == "Bearer t2"
    assert rig.service.calls == 2
    rig.clock.advance_s(10)
    assert await rig.auth.replace("Bearer t2") == "Bearer t3"


@pytest.mark.parametrize(
    ("status", "body", "error"),
    [
        (400, json.dumps(payload("oauth_refused")), LoginRefused),
        (401, '{"error": {"code": "invalid_credentials", "message": "no"}}', LoginRefused),
        (403, "<html>", LoginRefused),
        (422, '{"error": "invalid_scope"}', LoginRefused),
        (404, "<html>", TokenUnreachable),
        (429, '{"error": "slow_down"}', TokenUnreachable),
        (500, "{}", TokenUnreachable),
        (502, "<html>", TokenUnreachable),
        (302, "", TokenUnreachable),
        (200, "<html>", TokenUnreachable),
        (200, "{}", TokenUnreachable),
        (200, '{"access_token": "a\\r\\nX-Evil: 1"}', TokenUnreachable),
        (200, '{"access_token": "a", "expires_in": "soon"}', TokenUnreachable),
    ],
)
def test_a_refusal_is_told_from_an_outage(status: int, body: str, error: type[Exception]) -> None:
    with pytest.raises(error):
        grant_from_answer(status, body.encode())


@pytest.mark.parametrize(("life", "expected_us"), [(900, 900_000_000), ("900", 900_000_000), (0, 30_000_000)])
def test_life_is_read_and_bounded(life: object, expected_us: int) -> None:
    body = json.dumps({"access_token": "a", "expires_in": life}).encode()
    assert grant_from_answer(200, body) == Grant("a", expected_us)


def test_a_missing_life_is_the_documented_one() -> None:
    assert grant_from_answer(200, b'{"access_token": "a"}').life_us == LIFE_US


class Poster:
    def __init__(self, answer: Callable[[], tuple[int, bytes]]) -> None:
        self.answer = answer
        self.posted: list[tuple[str, dict[str, str]]] = []

    async def post(self, path: str, body: bytes) -> tuple[int, bytes]:
        self.posted.append((path, json.loads(body)))
        return self.answer()


async def test_the_refresh_grant_is_posted_without_a_client_id() -> None:
    poster = Poster(lambda: (200, json.dumps(payload("oauth_token")).encode()))
    await TokenService(poster, Secrets("sec", "ref")).fetch()
    assert poster.posted == [
        ("/oauth/token", {"grant_type": "refresh_token", "refresh_token": "ref", "client_secret": "sec"})
    ]


async def test_no_answer_is_an_outage_and_no_refusal() -> None:
    def lost() -> tuple[int, bytes]:
        raise MaybeSent("timed out")

    with pytest.raises(TokenUnreachable):
        await TokenService(Poster(lost), Secrets("sec", "ref")).fetch()


@pytest.mark.covers("F118")
async def test_no_secret_shows_in_a_representation() -> None:
    canaries = ("canary-secret", "canary-refresh", "canary-access")
    rig = Rig()
    shown = [Secrets("canary-secret", "canary-refresh"), Grant("canary-access", 1), rig.auth]
    shown.append(TokenService(Poster(lambda: (500, b"")), Secrets("canary-secret", "canary-refresh")))
    text = " ".join(f"{thing!r} {thing!s}" for thing in shown)
    assert not [canary for canary in canaries if canary in text]
