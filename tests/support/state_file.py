"""An empty state.db for each test, migrated once a process: the migrations have tests of their own."""

import os
import tempfile
from functools import cache
from pathlib import Path

from otocod.adapters.sqlite.migrate import upgrade


@cache
def _empty() -> bytes:
    with tempfile.TemporaryDirectory() as directory:
        path = Path(directory) / "state.db"
        upgrade(path)
        return path.read_bytes()


def fresh_state(directory: Path) -> Path:
    """The path of a new state.db in `directory`, both with the modes that otocod gives them."""
    directory.chmod(0o750)
    path = directory / "state.db"
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(descriptor, "wb") as file:
        file.write(_empty())
    return path
