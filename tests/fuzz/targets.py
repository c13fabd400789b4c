"""The fuzz targets by name."""

from collections.abc import Callable

from tests.fuzz.files import Files
from tests.fuzz.frames import Frames
from tests.fuzz.harness import Target
from tests.fuzz.paper import Paper
from tests.fuzz.rest import Rest
from tests.fuzz.rows import Rows
from tests.fuzz.settings import Settings
from tests.fuzz.terminal import Terminal

TARGETS: dict[str, Callable[[], Target]] = {
    "config": Settings,
    "dxlink": Paper,
    "files": Files,
    "frames": Frames,
    "rest": Rest,
    "rows": Rows,
    "terminal": Terminal,
}
