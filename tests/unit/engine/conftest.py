"""Every test of the engine runs in virtual time: waits cost nothing, and the order of things repeats exactly."""

from collections.abc import Callable, Mapping
from typing import Any

from tests.support.fakes import VirtualLoop


def pytest_asyncio_loop_factories(config: Any, item: Any) -> Mapping[str, Callable[[], VirtualLoop]]:
    return {"virtual": VirtualLoop}
