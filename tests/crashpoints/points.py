"""Where a process can be killed: a call through a port, and how far that call has come."""

from dataclasses import dataclass, field
from enum import StrEnum


class Position(StrEnum):
    BEFORE = "before"  # the call is about to be made, and is not
    WIRE = "wire"  # commands to the broker: the request has left, and is carried out after the next run has looked
    EFFECT = "effect"  # it has taken effect, and its answer has not reached the daemon
    AFTER = "after"  # the answer is there, and whatever the daemon does with it in the same step is done


@dataclass(frozen=True, order=True)
class Point:
    call: int  # calls are counted from 1, over all lives of the daemon
    position: Position

    def __str__(self) -> str:
        return f"{self.call}:{self.position}"


def point_from_text(text: str) -> Point:
    """Raises ValueError for anything but `17:after` and its like."""
    number, _, position = text.partition(":")
    return Point(int(number), Position(position))


@dataclass
class Call:
    """One call through a port, as it went. Calls of the world into the daemon (a frame, a row) count as well."""

    number: int
    life: int
    name: str
    detail: str
    at_us: int
    reached: list[Position] = field(default_factory=list)

    @property
    def points(self) -> list[Point]:
        return [Point(self.number, position) for position in self.reached]

    def __str__(self) -> str:
        at_s, where = self.at_us / 1_000_000, ", ".join(self.reached)
        return f"{self.number:4} {at_s:10.6f} life {self.life} {self.name:22} {self.detail}  [{where}]"
