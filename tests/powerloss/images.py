"""What a disk may hold after the power has gone, given the record of what was asked of it.

The model is the pessimistic reading of what file systems promise. A file's content is safe up to its last sync; of what
was written since, any part may be there, in any order, and a write may be torn between sectors. That a file is longer
is a fact of its own and may be lost while its data are kept, or kept while they are lost, which leaves zeros. A name
that was made, moved or removed is safe once its directory has been synced; syncing the file does not make its name
safe. A sector itself is written whole or not at all, and neighbours of what is written are not harmed: that is what
SQLite assumes by default ("powersafe overwrite") and what disks with a sound controller do.
"""

import random
from collections.abc import Sequence
from dataclasses import dataclass, field
from enum import StrEnum

from tests.powerloss.recorder import (
    Acknowledged,
    Create,
    Operation,
    Remove,
    Rename,
    Sync,
    SyncDirectory,
    Truncate,
    Write,
)

SECTORS = (512, 4096)

Image = dict[str, bytes]


class Style(StrEnum):
    """What becomes of the unsynced part."""

    DROPPED = "dropped"  # all of it lost
    KEPT = "kept"  # all of it there: a plain crash of the process
    PREFIX = "prefix"  # what came first is there
    SUBSET = "subset"  # each write is there or not
    TORN = "torn"  # each sector of each write is there or not
    SIZES = "sizes"  # a subset, and lengths as they were at the last sync
    FILES = "files"  # per file all or nothing: as if one file had been flushed by the way


@dataclass(slots=True)
class _Content:
    """One file, whatever its name is."""

    safe: bytes = b""
    pending: list[Write | Truncate] = field(default_factory=list)


@dataclass(slots=True)
class Disk:
    """A disk to which operations are given one by one."""

    safe_names: dict[str, _Content] = field(default_factory=dict)
    names: dict[str, _Content] = field(default_factory=dict)
    pending_names: list[tuple[Operation, _Content]] = field(default_factory=list)

    @classmethod
    def of(cls, image: Image) -> "Disk":
        """With these files on it, safe."""
        files = {name: _Content(content) for name, content in image.items()}
        return cls(safe_names=dict(files), names=files)

    def apply(self, operation: Operation) -> None:
        match operation:
            case Write() | Truncate():
                self.names[operation.path].pending.append(operation)
            case Sync():
                content = self.names[operation.path]
                content.safe = replay(content.safe, content.pending)
                content.pending = []
            case Create():
                content = self.names[operation.path] = _Content()
                self.pending_names.append((operation, content))
            case Remove():
                self.pending_names.append((operation, self.names.pop(operation.path)))
            case Rename():
                content = self.names[operation.to] = self.names.pop(operation.path)
                self.pending_names.append((operation, content))
            case SyncDirectory():
                self.safe_names = dict(self.names)
                self.pending_names = []
            case Acknowledged():
                pass

    def whole(self) -> Image:
        """Everything asked for, done."""
        return {name: replay(content.safe, content.pending) for name, content in self.names.items()}

    def image(self, style: Style, rng: random.Random) -> Image:
        names = self._names(style, rng)
        return {name: _survived(content, style, rng) for name, content in names.items()}

    def _names(self, style: Style, rng: random.Random) -> dict[str, _Content]:
        names = dict(self.safe_names)
        if style is Style.KEPT:
            return dict(self.names)
        if style is Style.DROPPED:
            return names
        # A directory's journal keeps the order; a file system without one need not.
        kept = rng.randint(0, len(self.pending_names)) if rng.random() < 0.5 else None
        for number, (operation, content) in enumerate(self.pending_names):
            if number < kept if kept is not None else rng.random() < 0.5:
                _name(names, operation, content)
        return names


def _name(names: dict[str, _Content], operation: Operation, content: _Content) -> None:
    match operation:
        case Create():
            names[operation.path] = content
        case Remove():
            names.pop(operation.path, None)
        case Rename():
            names.pop(operation.path, None)
            names[operation.to] = content


def _survived(content: _Content, style: Style, rng: random.Random) -> bytes:
    pending = content.pending
    match style:
        case Style.DROPPED:
            return content.safe
        case Style.KEPT:
            return replay(content.safe, pending)
        case Style.FILES:
            return replay(content.safe, pending) if rng.random() < 0.5 else content.safe
        case Style.PREFIX:
            kept = pending[: rng.randint(0, len(pending))]
            if kept and isinstance(kept[-1], Write) and rng.random() < 0.5:
                kept = [*kept[:-1], *_torn(kept[-1], rng)]
            return replay(content.safe, kept)
        case Style.SUBSET:
            return replay(content.safe, _shuffled([each for each in pending if rng.random() < 0.5], rng))
        case Style.TORN:
            chance = rng.choice((0.1, 0.5, 0.9))
            parts: list[Write | Truncate] = []
            for each in pending:
                parts += _torn(each, rng, chance) if isinstance(each, Write) else [each]
            return replay(content.safe, parts)
        case Style.SIZES:
            kept = [each for each in pending if rng.random() < 0.7]
            return replay(content.safe, kept)[: len(content.safe)]


def _shuffled(operations: list[Write | Truncate], rng: random.Random) -> list[Write | Truncate]:
    """In another order, half of the time. A disk writes the newest data of a sector last, or not at all: so parts that
    touch the same bytes keep their order, which only matters where a page was written twice."""
    if rng.random() < 0.5 or any(isinstance(each, Truncate) for each in operations):
        return operations
    writes = [each for each in operations if isinstance(each, Write)]
    if len({each.offset for each in writes}) < len(writes):
        return operations
    rng.shuffle(writes)
    return list(writes)


def _torn(write: Write, rng: random.Random, chance: float = 0.5) -> list[Write]:
    """The sectors of a write that were written."""
    sector = rng.choice(SECTORS)
    kept = []
    start = write.offset
    end = write.offset + len(write.data)
    while start < end:
        stop = min(end, (start // sector + 1) * sector)
        if rng.random() < chance:
            kept.append(Write(write.path, start, write.data[start - write.offset : stop - write.offset]))
        start = stop
    return kept


def replay(content: bytes, operations: Sequence[Write | Truncate]) -> bytes:
    if not operations:
        return content
    data = bytearray(content)
    for operation in operations:
        if isinstance(operation, Truncate):
            del data[operation.size :]
            data.extend(bytes(operation.size - len(data)))
        else:
            end = operation.offset + len(operation.data)
            data.extend(bytes(max(0, end - len(data))))
            data[operation.offset : end] = operation.data
    return bytes(data)
