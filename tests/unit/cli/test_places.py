"""The short way to the paths gives what the long way gives."""

from collections.abc import Mapping
from pathlib import Path

import pytest

from otocod.cli.failure import Failed
from otocod.cli.places import find_places
from otocod.config import ConfigInvalid, load_settings

PAPER = {
    "OTOCOD_ENVIRONMENT": "paper",
    "OTOCOD_API_URL": "http://127.0.0.1:1",
    "OTOCOD_STREAMER_URL": "ws://127.0.0.1:1",
}


@pytest.mark.parametrize(
    ("environ", "toml"),
    [
        ({"HOME": "/home/t", "OTOCOD_ACCOUNTS": "A1, B2"}, None),
        ({"HOME": "/home/t", "OTOCOD_ACCOUNTS": "A1", "XDG_STATE_HOME": "/state"}, None),
        ({"HOME": "/home/t", "OTOCOD_ACCOUNTS": "A1", "XDG_STATE_HOME": "relative"}, None),
        ({"HOME": "/home/t", "OTOCOD_ACCOUNTS": "A1", "STATE_DIRECTORY": "/var/lib/otocod:/other"}, None),
        ({"HOME": "/home/t", "OTOCOD_ACCOUNTS": "A1", "OTOCOD_DATA_DIR": "~/d", "OTOCOD_QUEUE": "/q/q.db"}, None),
        ({"HOME": "/home/t", "OTOCOD_ACCOUNTS": "A1", "OTOCOD_DATA_DIR": "/d", "OTOCOD_SOCKET": ""}, None),
        ({"HOME": "/home/t"}, 'accounts = ["A1", "B2"]\ndata_dir = "/data"\nsocket = "/run/otocod/sock"\n'),
        ({"HOME": "/home/t", "OTOCOD_DATA_DIR": "/env"}, 'accounts = ["A1"]\ndata_dir = "/file"\n'),
    ],
)
@pytest.mark.parametrize("is_named_by_environment", [True, False])
def test_places_are_those_of_the_settings(
    tmp_path: Path, environ: Mapping[str, str], toml: str | None, is_named_by_environment: bool
) -> None:
    config: Path | None = None
    everything = {**PAPER, **environ}
    if toml is not None:
        config = tmp_path / "otocod.toml"
        config.write_text(toml)
        if is_named_by_environment:
            everything["OTOCOD_CONFIG"], config = str(config), None
    places = find_places(config, everything)
    settings = load_settings(config, everything).settings
    assert (places.data_dir, places.queue, places.socket) == (settings.data_dir, settings.queue, settings.socket)
    assert places.state_db == settings.state_db
    assert places.accounts == settings.accounts


@pytest.mark.parametrize(
    ("environ", "toml"),
    [
        ({"HOME": "/home/t", "OTOCOD_DATA_DIR": "relative"}, None),
        ({}, None),
        ({"HOME": "/home/t"}, "data_dir = ["),
        ({"HOME": "/home/t"}, 'accounts = ["A1", 2]'),
    ],
)
def test_what_the_settings_refuse_is_refused_with_78(
    tmp_path: Path, environ: Mapping[str, str], toml: str | None
) -> None:
    config: Path | None = None
    everything = {**PAPER, "OTOCOD_ACCOUNTS": "A1", **environ}
    if toml is not None:
        config = tmp_path / "otocod.toml"
        config.write_text(toml)
        del everything["OTOCOD_ACCOUNTS"]
    with pytest.raises(ConfigInvalid):
        load_settings(config, everything)
    with pytest.raises(Failed) as failed:
        find_places(config, everything)
    assert failed.value.status == 78


def test_a_named_file_that_is_missing_is_refused(tmp_path: Path) -> None:
    with pytest.raises(Failed) as failed:
        find_places(tmp_path / "none.toml", {"HOME": "/home/t"})
    assert failed.value.status == 78


def test_a_submitter_without_accounts_is_served() -> None:
    assert find_places(None, {"HOME": "/home/t"}).accounts == ()
