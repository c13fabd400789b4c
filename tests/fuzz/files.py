"""Database files with bytes that nobody of ours wrote: state.db, its WAL, its mark, the queue and its journal.

The daemon opens them as it starts, and the command line reads them. Either works, or says in a line what is wrong
and ends with a status of the contract; neither shows a traceback, and neither makes a damaged file worse.
"""

import shutil
import sqlite3
import tempfile
from contextlib import closing
from pathlib import Path
from random import Random
from typing import Any

from tests.fuzz.forker import Forker
from tests.fuzz.harness import Case
from tests.fuzz.stored import environ_of, make_data_dir

_STATE, _WAL, _MARK, _QUEUE, _JOURNAL = (
    "state.db",
    "state.db-wal",
    "state.db-mark",
    "queue/queue.db",
    "queue/queue.db-journal",
)
_READS = (
    ["status"],
    ["list", "--json"],
    ["show", "ref:ref-3"],
    ["explain", "ref:ref-4"],
    ["events"],
    ["queue", "list"],
)
_CHECKS = (["db", "check"], ["audit"])
_STATUSES = {0, 1, 3, 4, 75, 78}


class Files:
    def __init__(self) -> None:
        self._directory = tempfile.TemporaryDirectory(prefix="otocod-fuzz-")
        self._base = Path(self._directory.name)
        self._sound = self._base / "sound"
        self._sound.mkdir(mode=0o750)
        make_data_dir(self._sound)
        self._work = self._base / "work"
        self._environ = environ_of(self._work)
        self._forker = Forker(self._base)

    def close(self) -> None:
        self._forker.close()
        self._directory.cleanup()

    def case(self, rng: Random) -> Case:
        name = rng.choice((_STATE, _STATE, _STATE, _STATE, _QUEUE, _QUEUE, _JOURNAL, _WAL, _MARK))
        sound = self._sound / name
        content = sound.read_bytes() if sound.exists() else rng.randbytes(rng.choice((0, 1, 32, 512, 8_192)))
        return Case(f"{rng.choice(('run', 'read', 'check'))} {name}", _delta(rng, content))

    def check(self, case: Case) -> str:
        what, name = case.kind.split(" ")
        shutil.rmtree(self._work, ignore_errors=True)
        shutil.copytree(self._sound, self._work, symlinks=True)
        damaged = self._work / name
        content = _applied(damaged.read_bytes() if damaged.exists() else b"", case.content)
        damaged.write_bytes(content)
        damaged.chmod(0o660 if name.startswith("queue") else 0o600)
        argvs = {"run": [["run", "--json"]], "read": [*_READS], "check": [*_CHECKS]}[what]
        called = self._forker.call(argvs, self._environ)
        assert not called.signal, f"ended by signal {called.signal}: {called.err[-2000:]}"
        assert len(called.statuses) == len(argvs)
        assert set(called.statuses) <= _STATUSES, called.statuses
        _check_said(called.statuses, called.err)
        self._check_kept(what, name, content, called.statuses)
        return f"{what} {name} {'well' if not any(called.statuses) else 'refused'}"

    def _check_kept(self, what: str, name: str, content: bytes, statuses: tuple[int, ...]) -> None:
        path = self._work / name
        if what != "run":
            if name in (_STATE, _QUEUE):
                assert path.read_bytes() == content, "a reader changed the file"
        elif name == _QUEUE:
            # In place and answered, or moved aside as it was.
            found = [each for each in path.parent.iterdir() if each.is_file()]
            assert path.exists() or statuses != (0,)
            assert len(found) > 1 or path.read_bytes()[:100] == content[:100] or _is_sound(path), (
                "the queue's rows are gone"
            )
        elif name == _STATE and statuses == (4,):
            # Some damage shows only when records are read, with the file open and its settings written.
            before = self._base / "before.db"
            before.write_bytes(content)
            assert path.read_bytes() == content or _records(path) == _records(before), "a refused file lost records"


def _records(path: Path) -> list[Any]:
    """Whatever the tables hold that hold a life, as bytes: some of it is no text any more."""
    with closing(sqlite3.connect(f"file:{path}?mode=ro", uri=True)) as connection:
        connection.text_factory = bytes
        tables = ("brackets", "orders", "fills", "journal", "external_identifiers", "accepted_rows")
        return [connection.execute(f"SELECT * FROM {table}").fetchall() for table in tables]  # noqa: S608


def _is_sound(path: Path) -> bool:
    return path.read_bytes().startswith(b"SQLite format 3\0")


def _check_said(statuses: tuple[int, ...], err: str) -> None:
    assert "Traceback" not in err, err[-3000:]
    for line in err.splitlines():
        assert line.isprintable(), line
        # The last resort names a type; a damaged file deserves words.
        assert not line.startswith("otocod: ") or "Error:" not in line.split(" ", 2)[1], line
    if any(status not in (0, 3) for status in statuses):
        assert err.strip() or statuses[-1] == 1, "refused without a word"


# A damage is a list of edits, so that a case is small and shrinks well: lines of `offset:hex`, or `cut:offset`.


def _delta(rng: Random, content: bytes) -> bytes:
    edits = []
    size = max(len(content), 1)
    for _ in range(rng.choice((1, 1, 2, 4, 20))):
        choice = rng.random()
        # Headers of the file and of pages hold most of what a reader believes.
        at = rng.choice(
            (rng.randrange(size), rng.randrange(min(size, 128)), rng.randrange(size) // 4096 * 4096 + rng.randrange(16))
        )
        if choice < 0.80:
            edits.append(f"{at}:{rng.randbytes(rng.choice((1, 1, 2, 8, 64))).hex()}")
        elif choice < 0.90:
            edits.append(f"{at}:{'00' * rng.choice((16, 512, 4096))}")
        elif choice < 0.95:
            edits.append(f"cut:{at}")
        else:
            edits.append(f"{len(content)}:{rng.randbytes(rng.choice((1, 4096))).hex()}")
    return "\n".join(edits).encode()


def _applied(content: bytes, delta: bytes) -> bytes:
    changed = bytearray(content)
    for line in delta.split(b"\n"):
        at, _, rest = line.partition(b":")
        try:
            if at == b"cut":
                del changed[int(rest) :]
            else:
                piece = bytes.fromhex(rest.decode())
                changed[int(at) : int(at) + len(piece)] = piece
        except ValueError:
            continue  # a line that shrinking has broken
    return bytes(changed)
