from datetime import UTC, date, datetime, timedelta
from zoneinfo import ZoneInfo

import pytest

from otocod.adapters import zones
from otocod.adapters.zones import ZoneUnknown, is_zone, zone_offsets
from tests.unit.domain.test_sessions import us

YEARS = us("2025-01-01"), us("2028-01-01")


@pytest.mark.covers("F62")
def test_changes_of_new_york_are_those_of_the_law() -> None:
    offsets = zone_offsets("America/New_York", us("2026-01-01"), us("2027-01-01"))
    assert offsets.changes == (
        (us("2026-01-01"), -5 * 3600),
        (us("2026-03-08 07:00"), -4 * 3600),
        (us("2026-11-01 06:00"), -5 * 3600),
    )


@pytest.mark.parametrize("name", ["America/New_York", "Europe/Berlin", "Australia/Lord_Howe", "Asia/Kolkata", "UTC"])
def test_every_noon_is_that_of_the_zone(name: str) -> None:
    offsets, zone = zone_offsets(name, *YEARS), ZoneInfo(name)
    day = date(2025, 1, 5)
    while day < date(2027, 12, 25):
        noon = datetime(day.year, day.month, day.day, 12, tzinfo=zone).astimezone(UTC)
        assert offsets.utc_us(day, 12 * 60) == int(noon.timestamp()) * 1_000_000
        day += timedelta(days=1)


@pytest.mark.parametrize(
    "name",
    [
        *(
            "Mars/Olympus",
            "",
            "../../etc/passwd",
            "/etc/passwd",
            "America",
            "a\x00b",
            "New York",
            "localtime",
            "posixrules",
        ),
        *("right/America/New_York", "posix/UTC", "america/new_york", "America/New_York/", "x" * 10_000),
    ],
)
def test_name_of_no_zone_is_refused_with_the_remedy(name: str) -> None:
    with pytest.raises(ZoneUnknown, match="America/New_York"):
        zone_offsets(name, *YEARS)
    assert not is_zone(name)


def test_every_listed_zone_can_be_read() -> None:
    for name in ("America/New_York", "Europe/Berlin", "America/Argentina/Buenos_Aires", "Etc/GMT+5", "EST5EDT", "UTC"):
        assert is_zone(name)
        assert zone_offsets(name, us("2026-01-01"), us("2026-01-02")).name == name


def test_without_the_package_there_are_no_zones(monkeypatch: pytest.MonkeyPatch) -> None:
    def missing(package: str) -> None:
        raise ModuleNotFoundError(package)

    zones._names.cache_clear()
    monkeypatch.setattr("otocod.adapters.zones.resources.files", missing)
    try:
        assert not is_zone("America/New_York")
    finally:
        zones._names.cache_clear()
