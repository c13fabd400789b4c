"""What a daemon holds before it does anything: its directory, the lock, databases that fit and a queue that is safe."""

import errno
import fcntl
import os
from collections.abc import Sequence
from pathlib import Path

from otocod import logs
from otocod.adapters.queue import landlock
from otocod.adapters.queue.init import check_directory, init_queue
from otocod.adapters.sqlite.check import require_fit
from otocod.adapters.sqlite.migrate import check_identity, upgrade
from otocod.config import Settings

log = logs.get_log(__name__)


class AlreadyRunning(Exception):
    pass


class QueueUnsafe(Exception):
    def __init__(self, refusals: Sequence[str]) -> None:
        super().__init__("\n".join(refusals))
        self.refusals = refusals


def prepare(settings: Settings) -> int:
    """The directory, the lock, the databases; answers with the lock's descriptor, which is held for life."""
    settings.data_dir.mkdir(parents=True, exist_ok=True, mode=0o750)
    settings.data_dir.chmod(0o750)
    lock = _take_lock(settings.lock)
    try:
        require_fit(settings.state_db)
        saved = upgrade(settings.state_db)
        if saved is not None:
            log.info("database_upgraded", backup=str(saved))
        check_identity(settings.state_db, environment=settings.environment.value, accounts=settings.accounts)
        if not os.path.lexists(settings.queue):
            # Whatever else stands there is compared, and moved aside, by the confined reader.
            init_queue(settings.queue, group=None)
        refusals = check_directory(settings.queue, landlock.is_available())
        if refusals:
            raise QueueUnsafe(refusals)
    except BaseException:
        os.close(lock)
        raise
    return lock


def _take_lock(path: Path) -> int:
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        os.close(descriptor)
        if error.errno in (errno.EWOULDBLOCK, errno.EACCES):
            raise AlreadyRunning from None
        raise
    os.truncate(descriptor, 0)
    os.pwrite(descriptor, f"{os.getpid()}\n".encode(), 0)
    return descriptor


def is_file(path: Path, held: os.stat_result) -> bool:
    """Whether the lock file is still the one that is held: whoever removes it lets a second daemon in."""
    try:
        return os.path.samestat(os.lstat(path), held)
    except OSError:
        return False
