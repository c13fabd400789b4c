"""The adapter against a small broker on a real socket."""

from collections.abc import AsyncIterator

import pytest

from otocod.adapters.tastytrade.auth import Authenticator, Secrets, TokenService
from otocod.adapters.tastytrade.http import Timeouts, Transport
from otocod.adapters.tastytrade.rest import Orphan, TastytradeBroker
from otocod.adapters.tastytrade.retry import ReadRetry
from tests.support.tastytrade import FakeBroker, ManualClock, fake_broker


@pytest.fixture
async def fake() -> AsyncIterator[FakeBroker]:
    async with fake_broker() as broker:
        yield broker


class Rig:
    """One adapter, wired as the composition root does it."""

    def __init__(self, url: str, *, answer_s: float = 5.0, accept_version: str | None = None) -> None:
        self.clock = ManualClock()
        self.orphans: list[Orphan] = []
        timeouts = Timeouts(connect_s=2.0, answer_s=answer_s)
        self.transport = Transport(url, self.clock, timeouts=timeouts, accept_version=accept_version)
        self.auth = Authenticator(
            TokenService(self.transport, Secrets("canary-secret", "canary-refresh")).fetch, self.clock
        )
        self.broker = TastytradeBroker(
            self.transport, self.auth, read_retry=ReadRetry(3, 0.001, 0.002), on_orphan=self.orphans.append
        )

    async def close(self) -> None:
        await self.broker.drain(5)
        await self.auth.close()
        await self.transport.close()


@pytest.fixture
async def rig(fake: FakeBroker) -> AsyncIterator[Rig]:
    made = Rig(fake.url)
    yield made
    await made.close()
