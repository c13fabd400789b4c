"""From queue rows to brackets. A row is accepted only when its entry can leave now; else it stays NEW and grows stale.

A row is answered after the bracket it became is on disk, so a crash in between leaves a NEW row whose key is known: it
is answered with the bracket it already has, and nothing is sent.
"""

import asyncio
from collections.abc import Callable, Sequence
from datetime import UTC, date, datetime, timedelta

from otocod.domain.acceptance import accept, ladder_for
from otocod.domain.brackets import Policy
from otocod.domain.ids import AccountNumber, BracketId, RequestId
from otocod.domain.request import COMMON_ZONES, canonical_text, parse_request
from otocod.domain.request_types import BracketRequest, RequestRefused
from otocod.domain.specs import Protection
from otocod.engine.capabilities import Capabilities
from otocod.engine.gate import LastGate, places_of
from otocod.engine.limits import RiskDesk
from otocod.engine.mailbox import Mailboxes
from otocod.logs import get_log
from otocod.ports.clock import Clock
from otocod.ports.requests import QueuedRequest, RequestAnswer, RequestQueue, SpoiledRequest
from otocod.ports.store import AcceptedRow, Store, StoreFailed

log = get_log(__name__)

_LOOK_AGAIN_S = 1.0
_ROWS_AT_ONCE = 200
_ROWS_WITHOUT_A_PAUSE = 10  # some five milliseconds
_FROM_BEFORE_RESTORE = (
    "this row is older than the restoring of the database from a backup, so a bracket may have come of it that is lost:"
    " nothing was sent; look at the broker, then submit it again under another client_ref"
)

_First = tuple[BracketId, AccountNumber, str]  # the bracket that has a key, its account and canonical request
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


def exchange_day(now_us: int) -> date:
    """The day by which an option has expired. In UTC it begins after the last American session of the day before."""
    return (_EPOCH + timedelta(microseconds=now_us)).date()


class Intake:
    def __init__(
        self,
        mailboxes: Mailboxes,
        store: Store,
        clock: Clock,
        gate: LastGate,
        capabilities: Capabilities,
        queue: RequestQueue,
        *,
        accounts: Sequence[AccountNumber],
        policy: Callable[[], Policy],
        make_id: Callable[[], BracketId],
        is_open: Callable[[], bool],
        risk: RiskDesk,
        broker_clock_offset_us: Callable[[], int],
        requests_from_us: Callable[[], int] = lambda: 0,
        is_zone: Callable[[str], bool] = COMMON_ZONES.__contains__,
    ) -> None:
        self._mailboxes = mailboxes
        self._store = store
        self._clock = clock
        self._gate = gate
        self._capabilities = capabilities
        self._queue = queue
        self._accounts = tuple(accounts)
        self._policy = policy
        self._make_id = make_id
        self._is_open = is_open
        self._risk = risk
        self._held: dict[RequestId, tuple[str, ...]] = {}  # by a risk limit, and why
        self._broker_clock_offset_us = broker_clock_offset_us
        self._is_zone = is_zone
        self._requests_from_us = requests_from_us
        self._waiting: dict[RequestId, QueuedRequest] = {}
        self._accepting: dict[str, asyncio.Future[None]] = {}
        self._promised = 0  # orders that leave as soon as their acceptance is on disk, or in place of those
        self._wake = asyncio.Event()

    def take(self, rows: Sequence[QueuedRequest | SpoiledRequest]) -> None:
        spoiled = [row for row in rows if isinstance(row, SpoiledRequest)]
        if spoiled:
            self._queue.answer([RequestAnswer(row.request_id, row.client_ref, None, row.reasons) for row in spoiled])
        for row in rows:
            if isinstance(row, QueuedRequest):
                self._waiting[row.request_id] = row
        self._wake.set()

    @property
    def waiting(self) -> int:
        return len(self._waiting)

    @property
    def oldest_waiting_us(self) -> int | None:
        """When the oldest row that waits was made."""
        return min((row.created_at_us for row in self._waiting.values()), default=None)

    def look_again(self) -> None:
        self._wake.set()

    async def run(self) -> None:
        """For life. Rows in the order of their ids."""
        while True:
            await self._pause()
            self._wake.clear()
            waiting = sorted(self._waiting)
            for start in range(0, len(waiting), _ROWS_AT_ONCE):
                await self._judge_all([self._waiting[each] for each in waiting[start : start + _ROWS_AT_ONCE]])

    async def _judge_all(self, rows: Sequence[QueuedRequest]) -> None:
        # Asked together: one by one, rows by the thousand would wait longer for these answers than for the disk.
        found = await asyncio.gather(*(self._store.bracket_of_ref(row.client_ref) for row in rows))
        known = {row.client_ref: first for row, first in zip(rows, found, strict=True)}
        for number, row in enumerate(rows, 1):
            if await self._judge(row, known):
                self._waiting.pop(row.request_id, None)
            if number % _ROWS_WITHOUT_A_PAUSE == 0:
                await asyncio.sleep(0)  # a fill must not wait until hundreds of requests have been judged

    async def _pause(self) -> None:
        # Rows that may not be accepted yet are looked at again, so that they are told when they have grown stale.
        try:
            async with asyncio.timeout(_LOOK_AGAIN_S if self._waiting else None):
                await self._wake.wait()
        except TimeoutError:
            return

    async def _judge(self, row: QueuedRequest, known: dict[str, _First | None]) -> bool:
        """Whether the row is done with. `known`: what the database has under the rows' keys."""
        earlier = self._accepting.get(row.client_ref)
        if earlier is not None:
            await asyncio.wait([earlier])
        if earlier is not None or row.client_ref not in known:
            first = await self._store.bracket_of_ref(row.client_ref)
        else:
            # What is accepted from here on is not in it: the next row with this key has to ask again.
            first = known.pop(row.client_ref)
        if first is not None:
            self._answer_repeat(row, first)
            return True
        if row.created_at_us < self._requests_from_us():
            self._reject(row, (_FROM_BEFORE_RESTORE,))
            return True
        try:
            request = self._parse(row)
        except RequestRefused as refused:
            self._reject(row, (*refused.reasons, *self._held.pop(row.request_id, ())))
            return True
        if not self._may_enter():
            return False
        usable = frozenset[Protection]()
        if request.protection is Protection.AUTO:
            usable = await self._capabilities.usable(AccountNumber(row.account), request)
        if not self._may_enter():
            return False
        reasons = self._clashes(row, request)
        if reasons:
            self._reject(row, reasons)
            return True
        verdict = self._risk.judge(request, self._promised)
        if verdict.refusals:
            self._reject(row, verdict.refusals)
            return True
        if verdict.waits:
            self._held[row.request_id] = tuple(f"it waited because {why}" for _, why in verdict.waits)
            return False
        return self._accept(row, request, usable)

    def _may_enter(self) -> bool:
        return self._is_open() and not self._gate.is_halted and self._has_room()

    def _has_room(self, wanted: int = 1) -> bool:
        return self._gate.has_room(self._clock.now_us(), self._promised, wanted)

    def _parse(self, row: QueuedRequest) -> BracketRequest:
        now_us = self._clock.now_us()
        return parse_request(
            row.text,
            account=row.account,
            accounts=self._accounts,
            created_at_us=row.created_at_us,
            now_us=now_us,
            today=exchange_day(now_us),
            is_zone=self._is_zone,
        )

    def _clashes(self, row: QueuedRequest, request: BracketRequest) -> tuple[str, ...]:
        """The broker refuses opposite orders on one symbol, so two brackets on one leg would stop each other."""
        symbols = {leg.symbol for leg in request.entry.legs}
        found: list[str] = []
        for bracket in self._mailboxes.open_on(symbols):
            if bracket.account != row.account:
                continue
            shared = sorted(symbols & {leg.symbol for leg in bracket.request.entry.legs})
            if shared:
                names = ", ".join(symbol.strip() for symbol in shared)
                found.append(
                    f"entry.legs: {names} is also in the open bracket {bracket.bracket_id} (ref:{bracket.client_ref});"
                    " the broker refuses opposite orders on one symbol: wait until that one is closed"
                )
        return tuple(found)

    def _accept(self, row: QueuedRequest, request: BracketRequest, usable: frozenset[Protection]) -> bool:
        """Whether the ceiling has room for what it sends."""
        bracket_id = self._make_id()
        decision = accept(
            request,
            bracket_id=bracket_id,
            client_ref=row.client_ref,
            account=AccountNumber(row.account),
            policy=self._policy(),
            ladder=ladder_for(request, usable),
            now_us=self._clock.now_us(),
            broker_clock_offset_us=self._broker_clock_offset_us(),
        )
        places = places_of(len(decision.bracket.orders))
        if not self._has_room(places):
            return False
        self._held.pop(row.request_id, None)
        accepted = AcceptedRow(row.request_id, row.client_ref, row.account, row.text)
        future = self._mailboxes.accept(decision, accepted)
        self._accepting[row.client_ref] = future
        self._risk.note_accepted(bracket_id, request)
        self._promised += places
        future.add_done_callback(lambda done: self._accepted(done, row, bracket_id, places))
        return True

    def _accepted(self, done: "asyncio.Future[None]", row: QueuedRequest, bracket_id: BracketId, places: int) -> None:
        self._accepting.pop(row.client_ref, None)
        self._promised -= places
        error = None if done.cancelled() else done.exception()
        if done.cancelled() or error is not None:
            log.error("acceptance_failed", client_ref=row.client_ref, error=str(error))
            if isinstance(error, StoreFailed) and error.is_of_change:
                self._reject(row, (f"the database does not take it ({error}): nothing was sent; report this",))
            else:
                self._waiting[row.request_id] = row  # tried again until it is stale
                asyncio.get_running_loop().call_later(_LOOK_AGAIN_S, self._wake.set)
            return
        log.info("request_accepted", client_ref=row.client_ref, bracket_id=bracket_id)
        self._queue.answer([RequestAnswer(row.request_id, row.client_ref, bracket_id)])

    def _answer_repeat(self, row: QueuedRequest, first: tuple[BracketId, AccountNumber, str]) -> None:
        bracket_id, account, text = first
        try:
            is_same = account == row.account and canonical_text(row.text) == text
        except RequestRefused:
            is_same = False
        if is_same:
            self._queue.answer([RequestAnswer(row.request_id, row.client_ref, bracket_id)])
        else:
            self._reject(row, (f"duplicate client_ref: bracket {bracket_id} has it with another account or request",))

    def _reject(self, row: QueuedRequest, reasons: tuple[str, ...]) -> None:
        log.info("request_rejected", client_ref=row.client_ref, reasons=list(reasons))
        self._queue.answer([RequestAnswer(row.request_id, row.client_ref, None, reasons)])
