"""One module of the daemon with other text, for the process that asks: the tree on disk is not touched.

The text is put in front of the import system before anything of otocod has been imported, so every user of the module
gets the planted one. A process is good for one planting; `in_fresh_process` makes them.
"""

import importlib.machinery
import importlib.util
import multiprocessing
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from importlib.abc import MetaPathFinder
from importlib.machinery import ModuleSpec
from pathlib import Path
from types import ModuleType
from typing import Any, TypeVar

ROOT = Path(__file__).parents[2]

A = TypeVar("A")
R = TypeVar("R")


class _Loader(importlib.machinery.SourceFileLoader):
    def __init__(self, name: str, path: str, text: str) -> None:
        super().__init__(name, path)
        self._text = text

    def get_data(self, path: str) -> bytes:
        return self._text.encode()

    def path_stats(self, path: str) -> Mapping[str, Any]:
        raise OSError("no bytecode of another text is used, and none is kept of this one")


class Planted(MetaPathFinder):
    def __init__(self, file: str, text: str) -> None:
        """`file` from the root of the project, `otocod/domain/turn.py`."""
        self._name = file.removesuffix(".py").replace("/", ".")
        self._path = str(ROOT / file)
        self._text = text
        self.is_used = False

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        if fullname != self._name:
            return None
        self.is_used = True
        return importlib.util.spec_from_file_location(
            fullname, self._path, loader=_Loader(fullname, self._path, self._text)
        )


def plant(file: str, text: str) -> Planted:
    """Raises if the daemon has been imported already: the planted text would come too late."""
    loaded = [name for name in sys.modules if name == "otocod" or name.startswith("otocod.")]
    if loaded:
        raise RuntimeError(f"imported before the planting: {', '.join(sorted(loaded)[:5])}")
    planted = Planted(file, text)
    sys.meta_path.insert(0, planted)
    return planted


def in_fresh_process(work: Callable[[A], R], items: Iterable[A], *, jobs: int) -> Iterator[R]:
    """`work` of each item in a process of its own, at most `jobs` at once; results as they come."""
    with multiprocessing.get_context("fork").Pool(jobs, maxtasksperchild=1) as pool:
        yield from pool.imap_unordered(work, items, chunksize=1)
