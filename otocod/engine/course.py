"""The course of a spread's price, kept in memory while somebody looks: bounded, and thinned rather than cut.

A course covers all of the time since it was begun with at most MOST_POINTS points: when it is full every second one
goes and new ones come half as often. It is no record: it dies with the process, and nothing decides by it.
"""

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from decimal import Decimal

from otocod.domain.ids import BracketId
from otocod.domain.quotes import QuoteFault, SpreadQuote

MOST_POINTS = 720
MOST_COURSES = 200
FIRST_STEP_US = 1_000_000


@dataclass(slots=True)
class _Course:
    step_us: int = FIRST_STEP_US
    points: list[tuple[int, Decimal | None]] = field(default_factory=list)  # (at_us, natural); None begins a gap

    def note(self, at_us: int, natural: Decimal | None) -> None:
        last = self.points[-1] if self.points else None
        if last is not None and natural is None and last[1] is None:
            return
        # A gap is told at once; it costs one point, however long it lasts.
        if last is not None and natural is not None and last[1] is not None and at_us < last[0] + self.step_us:
            return
        self.points.append((at_us, natural))
        if len(self.points) > MOST_POINTS:
            del self.points[-2::-2]
            self.step_us *= 2


class Courses:
    def __init__(self) -> None:
        self._courses: dict[BracketId, _Course] = {}

    def note(
        self,
        names: Iterable[BracketId],
        quote_of: Callable[[BracketId], SpreadQuote | QuoteFault | None],
        now_us: int,
    ) -> None:
        for name in names:
            quote = quote_of(name)
            if quote is None:
                continue
            course = self._courses.pop(name, None) or _Course()
            # Newest last: what nobody has added to for the longest time goes first.
            self._courses[name] = course
            course.note(now_us, quote.natural if isinstance(quote, SpreadQuote) else None)
        while len(self._courses) > MOST_COURSES:
            del self._courses[next(iter(self._courses))]

    def points(self, name: BracketId) -> list[tuple[int, Decimal | None]]:
        course = self._courses.get(name)
        return [] if course is None else list(course.points)
