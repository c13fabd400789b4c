"""Time zones as plain tables: the core gets offsets, never a zone.

The zones are those of the `tzdata` package and not of the machine, so that a request means the same everywhere. A
machine has other ones, too: `right/America/New_York`, say, whose clocks are off by the leap seconds.
"""

import zoneinfo
from datetime import UTC, datetime, timedelta
from functools import cache
from importlib import resources

from otocod.domain.time_exits import ZoneOffsets

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_SECOND_US = 1_000_000
_STEP = timedelta(hours=12)  # no zone has changed its clocks twice in less


class ZoneUnknown(ValueError):
    """The name is no zone of this machine; `reason` is one line with the remedy."""

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason


def is_zone(name: str) -> bool:
    """Whether `zone_offsets` knows the zone; `name` is hostile text, and no path is made of it."""
    return name in _names()


@cache
def _names() -> frozenset[str]:
    """Empty without the package: then no zone is taken, and the daemon goes on."""
    try:
        listed = resources.files("tzdata").joinpath("zones")
    except ModuleNotFoundError:
        return frozenset()
    return frozenset(listed.read_text(encoding="utf-8").split())


@cache
def _zone(name: str) -> zoneinfo.ZoneInfo:
    if not is_zone(name):
        raise ZoneUnknown("no known time zone: write it like America/New_York, or install tzdata")
    with resources.files("tzdata").joinpath("zoneinfo", *name.split("/")).open("rb") as file:
        return zoneinfo.ZoneInfo.from_file(file, key=name)


def zone_offsets(name: str, from_us: int, until_us: int) -> ZoneOffsets:
    """The zone's offsets between two instants, exact to the second. Raises ZoneUnknown; reads the zone's file."""
    zone = _zone(name)
    at, until = _at(from_us), _at(until_us)
    changes = [(from_us, _offset_s(at, zone))]
    while at < until:
        following = min(at + _STEP, until)
        offset_s = _offset_s(following, zone)
        if offset_s != changes[-1][1]:
            change = _bisected(at, following, zone)
            changes.append(((change - _EPOCH) // timedelta(microseconds=1), offset_s))
        at = following
    return ZoneOffsets(name, tuple(changes))


def _at(us: int) -> datetime:
    return _EPOCH + timedelta(microseconds=us)


def _offset_s(at: datetime, zone: zoneinfo.ZoneInfo) -> int:
    offset = at.astimezone(zone).utcoffset()
    assert offset is not None
    return offset // timedelta(seconds=1)


def _bisected(low: datetime, high: datetime, zone: zoneinfo.ZoneInfo) -> datetime:
    """The second at which the offset of `high` begins."""
    before = _offset_s(low, zone)
    while high - low > timedelta(seconds=1):
        middle = low + ((high - low) // 2 // timedelta(seconds=1)) * timedelta(seconds=1)
        if _offset_s(middle, zone) == before:
            low = middle
        else:
            high = middle
    return high
