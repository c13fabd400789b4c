"""What people look at, put together from the running engine. Nothing here is between a fill and the exits.

However many brackets there are, and however many look, the work is bounded: an overview is made at most once a second
and shared, in slices between which the loop turns; it shows the MOST_SHOWN most urgent brackets and counts the rest.
"""

import asyncio
import heapq
from collections import Counter
from collections.abc import Sequence
from typing import Protocol

from otocod.domain.brackets import Bracket
from otocod.domain.ids import BracketId
from otocod.engine import picture
from otocod.engine.course import Courses
from otocod.engine.quotewatch import DELAYED_LEVEL
from otocod.engine.supervisor import Supervisor
from otocod.ports.admin import JsonList, JsonObject, NoSuchBracket

MOST_SHOWN = 200
CLOSED_SHOWN = 20
STORY_EVENTS = 1000
EVERY_S = 1.0
SECOND_US = 1_000_000
# Each of these takes about a millisecond.
_SLICE = 20
_RANKED_AT_ONCE = 500


class Reads(Protocol):
    async def find(self, named: str) -> BracketId: ...
    async def bracket(self, bracket_id: BracketId) -> JsonObject: ...
    async def events(self, bracket_id: BracketId | None, after_seq: int, limit: int) -> JsonList: ...
    async def lately_closed(self, limit: int) -> JsonList: ...


class Identity(Protocol):
    def identity(self) -> JsonObject: ...


class Board:
    def __init__(self, supervisor: Supervisor, reads: Reads, identity: Identity) -> None:
        self._supervisor = supervisor
        self._reads = reads
        self._identity = identity
        self._courses = Courses()
        self._overview: asyncio.Task[JsonObject] | None = None
        self._made_us = -SECOND_US

    async def run(self) -> None:
        """For life: keeps the courses of prices for whoever will look at a chart."""
        while True:
            await asyncio.sleep(EVERY_S)
            await self._note_courses()

    async def _note_courses(self) -> None:
        quotes = self._supervisor.quotes
        if quotes is None:
            return
        names = quotes.quoted_names[:MOST_SHOWN]
        for start in range(0, len(names), _SLICE):
            self._courses.note(names[start : start + _SLICE], quotes.quote_of, self._supervisor.clock.now_us())
            await asyncio.sleep(0)

    async def overview(self) -> JsonObject:
        """Whoever asks within a second of another gets the same answer; one who goes away disturbs nobody."""
        now_us = self._supervisor.clock.now_us()
        task = self._overview
        if task is None or (task.done() and (now_us - self._made_us >= SECOND_US or task.exception() is not None)):
            self._made_us = now_us
            task = self._overview = asyncio.get_running_loop().create_task(self._make(), name="overview")
        return await asyncio.shield(task)

    async def _make(self) -> JsonObject:
        brackets = self._supervisor.mailboxes.open_brackets()
        chosen = await _most_urgent(brackets)
        self._show(chosen)
        pictures: JsonList = []
        for start in range(0, len(chosen), _SLICE):
            pictures += [self._picture(bracket) for bracket in chosen[start : start + _SLICE]]
            await asyncio.sleep(0)
        return picture.overview_of(
            identity=self._identity.identity(),
            health=picture.health_of(self._vitals()),
            pictures=pictures,
            closed=await self._reads.lately_closed(CLOSED_SHOWN),
            counts=Counter(bracket.state.value for bracket in brackets),
            unshown=len(brackets) - len(chosen),
            at_us=self._supervisor.clock.now_us(),
            is_running=True,
        )

    def _picture(self, bracket: Bracket) -> JsonObject:
        return picture.picture_of(bracket, self._quote(bracket), self._supervisor.clock.now_us())

    def _quote(self, bracket: Bracket) -> picture.Quote:
        quotes = self._supervisor.quotes
        return None if quotes is None else quotes.quote_of(bracket.bracket_id)

    def _show(self, brackets: list[Bracket]) -> None:
        if self._supervisor.quotes is not None:
            self._supervisor.quotes.show(brackets)

    async def view(self, named: str) -> JsonObject:
        bracket_id = await self._reads.find(named)
        bracket = self._supervisor.mailboxes.brackets.get(bracket_id)
        if bracket is None:
            bracket = await self._supervisor.store.bracket(bracket_id)
        if bracket is None:
            raise NoSuchBracket(named)
        shown = await self._reads.bracket(bracket_id)
        events = await self._reads.events(bracket_id, 0, STORY_EVENTS)
        return picture.view_of(
            bracket,
            self._quote(bracket),
            self._supervisor.clock.now_us(),
            shown=shown,
            events=events,
            points=self._courses.points(bracket_id),
            is_running=True,
        )

    def _vitals(self) -> picture.Vitals:
        supervisor = self._supervisor
        now_us = supervisor.clock.now_us()
        health = None if supervisor.quotes is None else supervisor.quotes.health
        reasons = [] if supervisor.is_ready else [f"waiting for {supervisor.waiting_for}"]
        if supervisor.login_refused is not None:
            reasons.append(f"log-in refused: {supervisor.login_refused}")
        return picture.Vitals(
            is_ready=supervisor.is_ready,
            reasons_not_ready=reasons,
            is_stream_healthy=supervisor.streamer.is_healthy,
            stream_age_s=_age_s(now_us, supervisor.streamer.last_message_us),
            reconcile_age_s=_age_s(now_us, supervisor.reconciler.last_completed_us),
            quotes_wanted=None if health is None else health.wanted,
            quotes_held=0 if health is None else health.quoted,
            is_feed_up=health is not None and health.feed.is_up,
            why_feed_down=None if health is None else health.why_down,
            is_delayed=health is not None and health.level == DELAYED_LEVEL,
            halt_level=supervisor.halts.level.value,
            halt_reason=supervisor.halt_reason,
            requests_waiting=supervisor.intake.waiting,
        )


async def _most_urgent(brackets: Sequence[Bracket]) -> list[Bracket]:
    """By what needs no picture: thousands may be open, and all but a few of them are well."""
    ranked: list[tuple[int, int, int]] = []
    for start in range(0, len(brackets), _RANKED_AT_ONCE):
        ranked += [
            (picture.TONES.index(picture.standing_of(each)[0]), -each.created_at_us, start + number)
            for number, each in enumerate(brackets[start : start + _RANKED_AT_ONCE])
        ]
        await asyncio.sleep(0)
    return [brackets[number] for _, _, number in heapq.nsmallest(MOST_SHOWN, ranked)]


def _age_s(now_us: int, at_us: int | None) -> float | None:
    return None if at_us is None else max(now_us - at_us, 0) / SECOND_US
