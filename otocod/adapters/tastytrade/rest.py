"""Orders and queries over REST: `ports.broker.Broker`.

A command has exactly one of four outcomes, told apart by how far the request got and by what was answered:

    no connection was ever in hand (name, address, TLS, slot)   -> NotSent
    401, after one renewal of the token still 401; 429          -> NotSent
    no token to be had                                          -> NotSent
    2xx, readable, and its echo is what was sent                -> Confirmed
    4xx with the API's own error envelope                       -> Refused
    anything else: 3xx, 5xx, 4xx from a proxy, timeout, reset,
    cut short, unreadable, another order's answer               -> Unknown

A 401 needs no envelope: without a User-Agent it comes from the proxy as HTML, and it proves all the same that nothing
was placed. A command is never repeated here but for that 401, and then with the same bytes.
"""

import asyncio
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import TypeVar
from urllib.parse import quote

import msgspec
import structlog
from tenacity import AsyncRetrying, retry_if_exception, stop_after_attempt, wait_random_exponential

from otocod.adapters.tastytrade import echo
from otocod.adapters.tastytrade.auth import Authenticator
from otocod.adapters.tastytrade.errors import (
    AdapterError,
    HttpError,
    MaybeSent,
    NeverSent,
    TokenUnreachable,
    Unreadable,
)
from otocod.adapters.tastytrade.http import Answer, Query, Transport
from otocod.adapters.tastytrade.parse import (
    complex_report_from_raw,
    position_from_wire,
    quote_from_wire,
    read_order,
    refusal_from_body,
    session_from_wire,
    settled_from_wire,
    us_from_http_date,
)
from otocod.adapters.tastytrade.render import complex_body, order_body, replacement_body
from otocod.adapters.tastytrade.retry import ReadRetry, Verdict, classify
from otocod.adapters.tastytrade.schema import (
    AccountItemWire,
    EnvelopeWire,
    ItemsWire,
    PositionWire,
    QuoteWire,
    SessionWire,
    TransactionWire,
    Wire,
    scalars_from_raw,
    tolerant,
)
from otocod.domain.commands import Member
from otocod.domain.events import ComplexReport
from otocod.domain.ids import AccountNumber, BrokerOrderId, ComplexOrderId, ExternalIdentifier
from otocod.domain.orders import OrderReport, Refusal
from otocod.ports.broker import (
    Confirmed,
    Listing,
    LoginRefused,
    MarketSession,
    NotFound,
    NotSent,
    Outcome,
    Position,
    Quote,
    ReadFailed,
    Refused,
    SettledPosition,
    Unknown,
)

log = structlog.get_logger(__name__)

T = TypeVar("T")
W = TypeVar("W", bound=Wire)

_PER_PAGE = 200  # known good; the default is 10 or 100, depending on who describes it
_MOST_PAGES = 5_000  # a million orders; a broker that goes on for ever is not listened to for ever
_MOST_PASSES = 4  # over a listing that changes under us
_MOST_QUOTES = 100  # symbols in one request
_READS_AT_ONCE = 6  # so that a sweep never keeps a cancel or an exit waiting for a connection
_SESSION_PATH = "/market-time/equities/sessions/current"
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]{0,63}\Z")


@dataclass(frozen=True, slots=True)
class Orphan:
    """The outcome of a command whose caller was cancelled before it came."""

    command: str  # submit, submit_complex, replace, cancel, cancel_complex
    account: AccountNumber
    external_identifiers: tuple[ExternalIdentifier, ...]
    broker_id: str | None  # of the order or group that the command was about
    outcome: Outcome


@dataclass(frozen=True, slots=True)
class _Request:
    command: str
    method: str
    path: str
    body: bytes | None
    account: AccountNumber
    members: Sequence[Member] = ()
    broker_id: str | None = None  # of the order or group that it is about


# The token it went with, and the answer to come.
_Begun = tuple[str, "asyncio.Future[Answer]"]


def _ignore_orphan(orphan: Orphan) -> None:
    log.warning("command_orphaned", command=orphan.command, outcome=type(orphan.outcome).__name__)


class TastytradeBroker:
    def __init__(
        self,
        transport: Transport,
        auth: Authenticator,
        *,
        read_retry: ReadRetry | None = None,
        on_orphan: Callable[[Orphan], None] = _ignore_orphan,
    ) -> None:
        """`on_orphan` must not raise; it is called from the event loop."""
        self._transport = transport
        self._auth = auth
        self._read_retry = read_retry or ReadRetry()
        self._on_orphan = on_orphan
        self._reads = asyncio.Semaphore(_READS_AT_ONCE)
        self._commands: set[asyncio.Task[Outcome]] = set()

    async def warm(self) -> None:
        """Opens two connections, so that an exit and a cancel find one each. Failing does no harm and is not told."""
        await asyncio.gather(self.market_session(), self.market_session(), return_exceptions=True)

    async def drain(self, timeout_s: float) -> bool:
        """Waits for the commands on the wire; whether all have ended."""
        if not self._commands:
            return True
        _, pending = await asyncio.wait(set(self._commands), timeout=timeout_s)
        return not pending

    # Commands.

    def submit(self, account: AccountNumber, member: Member) -> "asyncio.Future[Outcome]":
        body = msgspec.json.encode(order_body(member))

        def read(answer: bytes) -> Confirmed:
            return _confirmed(echo.placed_order(answer, account, member))

        request = _Request("submit", "POST", _orders(account), body, account, (member,))
        return self._send(request, read)

    def submit_complex(self, account: AccountNumber, members: Sequence[Member]) -> "asyncio.Future[Outcome]":
        body = msgspec.json.encode(complex_body(members))

        def read(answer: bytes) -> Confirmed:
            return _confirmed(echo.placed_complex(answer, account, members))

        request = _Request("submit_complex", "POST", _complex_orders(account), body, account, members)
        return self._send(request, read)

    def replace(
        self, account: AccountNumber, broker_order_id: BrokerOrderId, member: Member
    ) -> "asyncio.Future[Outcome]":
        body = msgspec.json.encode(replacement_body(member))

        def read(answer: bytes) -> Confirmed:
            return _confirmed(echo.replaced_order(answer, account, broker_order_id, member))

        path = f"{_orders(account)}/{_segment(broker_order_id)}"
        return self._send(_Request("replace", "PUT", path, body, account, (member,), broker_order_id), read)

    def cancel(self, account: AccountNumber, broker_order_id: BrokerOrderId) -> "asyncio.Future[Outcome]":
        def read(answer: bytes) -> Confirmed:
            return Confirmed((echo.one_order(answer, account, broker_order_id),))

        path = f"{_orders(account)}/{_segment(broker_order_id)}"
        return self._send(_Request("cancel", "DELETE", path, None, account, broker_id=broker_order_id), read)

    def cancel_complex(self, account: AccountNumber, complex_order_id: ComplexOrderId) -> "asyncio.Future[Outcome]":
        def read(answer: bytes) -> Confirmed:
            report = echo.one_complex(answer, account, complex_order_id)
            return Confirmed(report.orders, report.complex_order_id)

        path = f"{_complex_orders(account)}/{_segment(complex_order_id)}"
        return self._send(_Request("cancel_complex", "DELETE", path, None, account, broker_id=complex_order_id), read)

    async def dry_run(self, account: AccountNumber, members: Sequence[Member]) -> Outcome:
        """Confirmed with the warnings and no reports: a dry run's orders have no ids."""
        if len(members) == 1:
            path, body = f"{_orders(account)}/dry-run", msgspec.json.encode(order_body(members[0]))

            def read(answer: bytes) -> Outcome:
                return _dry_run_outcome(echo.placed_order(answer, account, members[0], is_dry_run=True))

        else:
            path, body = f"{_complex_orders(account)}/dry-run", msgspec.json.encode(complex_body(members))

            def read(answer: bytes) -> Outcome:
                return _dry_run_outcome(echo.placed_complex(answer, account, members, is_dry_run=True))

        return await self._command(_Request("dry_run", "POST", path, body, account), read)

    async def dry_run_replace(self, account: AccountNumber, broker_order_id: BrokerOrderId, member: Member) -> Outcome:
        def read(answer: bytes) -> Outcome:
            return _dry_run_outcome(echo.replacement_dry_run(answer, account, member))

        path = f"{_orders(account)}/{_segment(broker_order_id)}/dry-run"
        body = msgspec.json.encode(replacement_body(member))
        return await self._command(_Request("dry_run", "POST", path, body, account), read)

    def _send(self, request: "_Request", read: Callable[[bytes], Outcome]) -> "asyncio.Future[Outcome]":
        """The request leaves in this step if there is a token and a free connection.

        It is carried through by a task of its own: what is on the wire cannot be called back by cancelling whoever
        waits for the outcome, who then hears of it as an orphan.
        """
        task = asyncio.get_running_loop().create_task(self._command(request, read, self._begin(request)))
        self._commands.add(task)
        task.add_done_callback(self._commands.discard)
        told = asyncio.shield(task)
        told.add_done_callback(lambda done: self._orphan(request, task) if done.cancelled() else None)
        return told

    def _begin(self, request: "_Request") -> "_Begun | None":
        bearer = self._auth.ready_bearer()
        if bearer is None:
            return None
        return bearer, self._transport.ask(request.method, request.path, bearer=bearer, body=request.body)

    def _orphan(self, request: "_Request", task: "asyncio.Task[Outcome]") -> None:
        identifiers = tuple(member.external_identifier for member in request.members)

        def report(done: "asyncio.Task[Outcome]") -> None:
            outcome = Unknown("ended with the process") if done.cancelled() else done.result()
            self._on_orphan(Orphan(request.command, request.account, identifiers, request.broker_id, outcome))

        task.add_done_callback(report)

    async def _command(
        self, request: "_Request", read: Callable[[bytes], Outcome], begun: "_Begun | None" = None
    ) -> Outcome:
        try:
            answer = await self._exchange_authorized(request.method, request.path, request.body, begun=begun)
            return _outcome(answer, request.account, read)
        except (LoginRefused, TokenUnreachable, NeverSent) as error:
            return NotSent(str(error))
        except MaybeSent as error:
            return Unknown(str(error))
        except Exception as error:  # a bug here must not become an order that nobody looks for
            log.error("command_failed", method=request.method, error=type(error).__name__)
            return Unknown(f"internal: {type(error).__name__}")

    async def _exchange_authorized(
        self, method: str, path: str, body: bytes | None = None, query: Query = (), begun: "_Begun | None" = None
    ) -> Answer:
        """With one renewal of the token after a 401. A renewal that fails leaves nothing placed either."""
        if begun is None:
            bearer = await self._auth.bearer()
            answer = await self._transport.exchange(method, path, bearer=bearer, body=body, query=query)
        else:
            bearer, asked = begun
            answer = await asked
        if answer.http_status != 401:
            return answer
        bearer = await self._auth.replace(bearer)
        return await self._transport.exchange(method, path, bearer=bearer, body=body, query=query)

    # Queries.

    async def read_order(self, account: AccountNumber, broker_order_id: BrokerOrderId) -> OrderReport:
        path = f"{_orders(account)}/{_segment(broker_order_id)}"
        return await self._read(path, lambda answer: echo.one_order(answer.body, account, broker_order_id))

    async def read_complex(self, account: AccountNumber, complex_order_id: ComplexOrderId) -> ComplexReport:
        path = f"{_complex_orders(account)}/{_segment(complex_order_id)}"
        return await self._read(path, lambda answer: echo.one_complex(answer.body, account, complex_order_id))

    async def search(self, account: AccountNumber, *, from_us: int, statuses: Sequence[str] = ()) -> Listing:
        query = (
            ("start-at", _iso_from_us(from_us)),
            # Ascending: what arrives while we read joins at the end and moves nothing that we have still to read.
            ("sort", "Asc"),
            *(("status[]", status) for status in statuses),
        )
        return await self._listing(_orders(account), account, query, is_paged=True)

    async def live_orders(self, account: AccountNumber) -> Listing:
        return await self._listing(f"{_orders(account)}/live", account, (), is_paged=False)

    async def live_complex_orders(self, account: AccountNumber) -> tuple[ComplexReport, ...]:
        def parse(answer: Answer) -> tuple[ComplexReport, ...]:
            reports: list[ComplexReport] = []
            for raw in _all_rows(answer.body):
                try:
                    report, wire, damage = complex_report_from_raw(raw)
                except ValueError:
                    report, wire, damage = None, None, ()
                if report is None or wire is None or "orders" in damage or "trigger-order" in damage:
                    raise Unreadable("a complex order in the listing cannot be read")
                reports.append(report)
            return tuple(reports)

        return await self._read(f"{_complex_orders(account)}/live", parse)

    async def positions(self, account: AccountNumber) -> tuple[Position, ...]:
        def parse(answer: Answer) -> tuple[Position, ...]:
            found = [position_from_wire(wire) for wire in _items(answer.body, PositionWire)]
            # Skipping one that cannot be read would make it look flat.
            if any(position is None for position in found):
                raise Unreadable("a position cannot be read")
            return tuple(position for position in found if position is not None)

        return await self._read(f"{_account(account)}/positions", parse)

    async def settled_positions(self, account: AccountNumber, *, from_us: int) -> tuple[SettledPosition, ...]:
        # The ledger only grows, and ascending it grows at its end: one pass over its pages is enough.
        query = (("start-at", _iso_from_us(from_us)), ("types[]", "Receive Deliver"), ("sort", "Asc"))
        found: list[SettledPosition] = []
        for number in range(_MOST_PAGES):
            paging = (("per-page", str(_PER_PAGE)), ("page-offset", str(number)))
            page, _ = await self._read(f"{_account(account)}/transactions", _page_and_answer, (*query, *paging))
            try:
                rows = [settled_from_wire(tolerant(TransactionWire, row)[0]) for row in page.rows]
            except ValueError:
                raise ReadFailed("a row of the ledger is no object") from None
            found += [row for row in rows if row is not None]
            if number + 1 >= page.total_pages:
                return tuple(found)
        raise ReadFailed("the ledger has too many pages")

    async def balances(self, account: AccountNumber) -> dict[str, str]:
        def parse(answer: Answer) -> dict[str, str]:
            envelope = echo.envelope_from_body(answer.body)
            items = _items_or_none(envelope)
            try:
                return scalars_from_raw(items[0] if items else envelope.data)
            except ValueError:
                raise Unreadable("the balances cannot be read") from None

        return await self._read(f"{_account(account)}/balances", parse)

    async def accounts(self) -> tuple[AccountNumber, ...]:
        def parse(answer: Answer) -> tuple[AccountNumber, ...]:
            numbers = [
                None if item.account is None else item.account.account_number
                for item in _items(answer.body, AccountItemWire)
            ]
            if any(number is None or not _NAME.match(number) for number in numbers):
                raise Unreadable("an account cannot be read")
            return tuple(AccountNumber(number) for number in numbers if number is not None)

        return await self._read("/customers/me/accounts", parse)

    async def market_session(self) -> MarketSession:
        def parse(answer: Answer) -> MarketSession:
            try:
                return session_from_wire(tolerant(SessionWire, echo.envelope_from_body(answer.body).data)[0])
            except ValueError:
                raise Unreadable("the market session cannot be read") from None

        return await self._read(_SESSION_PATH, parse)

    async def quotes(self, symbols: Sequence[tuple[str, str]]) -> tuple[Quote, ...]:
        """Symbols the broker does not answer for are missing from the result."""

        def parse(answer: Answer) -> tuple[Quote, ...]:
            found = (quote_from_wire(wire) for wire in _items(answer.body, QuoteWire))
            return tuple(quote for quote in found if quote is not None)

        quotes: list[Quote] = []
        for start in range(0, len(symbols), _MOST_QUOTES):
            # `Equity Option` -> `equity-option`
            query = [(kind.lower().replace(" ", "-"), symbol) for kind, symbol in symbols[start : start + _MOST_QUOTES]]
            quotes.extend(await self._read("/market-data/by-type", parse, query))
        return tuple(quotes)

    async def _read(self, path: str, parse: Callable[[Answer], T], query: Query = ()) -> T:
        """Raises ReadFailed, NotFound or LoginRefused, with words that name neither account nor address."""
        retrying = AsyncRetrying(
            retry=retry_if_exception(lambda error: classify(error) is Verdict.RETRY),
            stop=stop_after_attempt(self._read_retry.attempts),
            wait=wait_random_exponential(multiplier=self._read_retry.initial_s, max=self._read_retry.max_s),
            reraise=True,
        )
        try:
            async for attempt in retrying:
                with attempt:
                    async with self._reads:
                        answer = await self._exchange_authorized("GET", path, query=query)
                    return parse(_successful(answer, hide=_account_in(path)))
        except HttpError as error:
            if error.http_status == 404 and error.refusal is not None:
                raise NotFound(str(error)) from None
            raise ReadFailed(str(error)) from None
        except AdapterError as error:
            raise ReadFailed(str(error)) from None
        raise AssertionError("a read ends in an answer or an error")

    async def _listing(self, path: str, account: AccountNumber, query: Query, *, is_paged: bool) -> Listing:
        """A listing of several pages counts only when two passes in a row agree.

        Pages are cut by position. A row that leaves the result between two requests (its order ended, and the search
        asks for a status) moves all later rows up, and the one on the seam is in neither page. Then the next pass
        differs, and only one that repeats proves that nothing moved.
        """
        previous: list[BrokerOrderId] | None = None
        for _ in range(_MOST_PASSES):
            try:
                passed = await self._pass(path, account, query, is_paged=is_paged)
            except _Moved:
                previous = None
                continue
            ids = [report.broker_order_id for report in passed.reports]
            if passed.pages == 1 or (previous is not None and ids[: len(previous)] == previous):
                return Listing(tuple(passed.reports), passed.clock_offset_us)
            previous = ids
        raise ReadFailed("the listing changed under every pass")

    async def _pass(self, path: str, account: AccountNumber, query: Query, *, is_paged: bool) -> "_Pass":
        """All pages once. Raises _Moved if they do not fit together."""
        passed = _Pass()
        total = 0
        for number in range(_MOST_PAGES):
            paging = (("per-page", str(_PER_PAGE)), ("page-offset", str(number))) if is_paged else ()
            page, answer = await self._read(path, _page_and_answer, (*query, *paging))
            if page.total_pages > 1 and not is_paged:
                return await self._pass(path, account, query, is_paged=True)
            passed.pages += 1
            passed.clock_offset_us = _clock_offset_us(answer)
            try:
                passed.reports.extend(_listed(row, account) for row in page.rows)
            except Unreadable as error:
                raise ReadFailed(str(error)) from None
            # Growth is no move: ascending, a new row comes last.
            if page.offset not in (None, number) or (page.total_items is not None and page.total_items < total):
                raise _Moved
            total = len(passed.reports) if page.total_items is None else page.total_items
            if number + 1 >= page.total_pages:
                if total != len(passed.reports) or len({report.broker_order_id for report in passed.reports}) != total:
                    raise _Moved
                return passed
        raise ReadFailed("the listing has too many pages")


class _Moved(Exception):
    """Rows moved between the pages of one pass."""


@dataclass(slots=True)
class _Pass:
    reports: list[OrderReport] = field(default_factory=list)
    pages: int = 0
    clock_offset_us: int | None = None


@dataclass(frozen=True, slots=True)
class _Page:
    rows: tuple[msgspec.Raw, ...]
    offset: int | None
    total_items: int | None
    total_pages: int


def _page(body: bytes, *, is_cut_at: int | None = None) -> _Page:
    """`is_cut_at`: rows that were asked for; so many, and no word about pages, may be the beginning of more."""
    envelope = echo.envelope_from_body(body)
    rows = _items_or_none(envelope)
    if rows is None:
        raise Unreadable("no items in the answer")
    pagination = envelope.pagination
    if pagination is None or pagination.total_pages is None:
        if is_cut_at is not None and len(rows) >= is_cut_at:
            raise Unreadable("a full page without pagination")
        return _Page(tuple(rows), None, None, 1)
    return _Page(tuple(rows), pagination.page_offset, pagination.total_items, pagination.total_pages)


def _all_rows(body: bytes) -> tuple[msgspec.Raw, ...]:
    """Of a listing that is not documented to have pages."""
    page = _page(body)
    if page.total_pages > 1:
        raise Unreadable("the answer is one page of several")
    return page.rows


def _page_and_answer(answer: Answer) -> tuple[_Page, Answer]:
    return _page(answer.body, is_cut_at=_PER_PAGE), answer


def _listed(raw: msgspec.Raw, account: AccountNumber) -> OrderReport:
    try:
        message = read_order(raw)
    except ValueError:
        raise Unreadable("a row of the listing is no order") from None
    if message.report is None:
        raise Unreadable("a row of the listing has no id")
    if message.wire.account_number is not None and message.wire.account_number != account:
        raise Unreadable("a row of the listing is of another account")
    return message.report


def _items_or_none(envelope: EnvelopeWire) -> list[msgspec.Raw] | None:
    try:
        return tolerant(ItemsWire, envelope.data)[0].items
    except ValueError:
        return None


def _items(body: bytes, kind: type[W]) -> list[W]:
    rows = _all_rows(body)
    try:
        return [tolerant(kind, row)[0] for row in rows]
    except ValueError:
        raise Unreadable("an item in the answer is no object") from None


def _successful(answer: Answer, *, hide: Sequence[str]) -> Answer:
    if 200 <= answer.http_status < 300:
        return answer
    raise HttpError(answer.http_status, refusal_from_body(answer.http_status, answer.body, hide=hide))


def _outcome(answer: Answer, account: AccountNumber, read: Callable[[bytes], Outcome]) -> Outcome:
    status = answer.http_status
    if 200 <= status < 300:
        try:
            return read(answer.body)
        except Unreadable as error:
            return Unknown(f"HTTP {status}: {error}")
    if status in (401, 429):
        return NotSent(f"HTTP {status}")
    refusal = refusal_from_body(status, answer.body, hide=(account,)) if 400 <= status < 500 else None
    return Unknown(f"HTTP {status}") if refusal is None else Refused(refusal)


def _confirmed(placed: echo.Placed) -> Confirmed:
    # Errors beside an order that has an id: it was placed all the same, and somebody should look.
    return Confirmed(placed.reports, placed.complex_order_id, (*placed.warnings, *placed.errors))


def _dry_run_outcome(placed: echo.Placed) -> Outcome:
    if placed.errors:
        return Refused(Refusal(200, placed.errors, "dry run"))
    return Confirmed((), None, placed.warnings)


def _clock_offset_us(answer: Answer) -> int | None:
    """The broker's clock minus ours, good to half a second and half the way to the broker and back."""
    theirs_us = us_from_http_date(answer.date)
    return None if theirs_us is None else theirs_us - (answer.asked_us + answer.answered_us) // 2


def _iso_from_us(at_us: int) -> str:
    # Whole seconds, rounded down: reaching back too far does no harm.
    return datetime.fromtimestamp(at_us // 1_000_000, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def _account(account: AccountNumber) -> str:
    return f"/accounts/{_segment(account)}"


def _account_in(path: str) -> tuple[str, ...]:
    """The account number in the address of a request, which an answer may repeat."""
    segments = path.split("/")
    return (segments[2],) if segments[1] == "accounts" else ()


def _orders(account: AccountNumber) -> str:
    return f"{_account(account)}/orders"


def _complex_orders(account: AccountNumber) -> str:
    return f"{_account(account)}/complex-orders"


def _segment(name: str) -> str:
    if not _NAME.match(name):
        raise ValueError("not an id that may stand in an address")
    return quote(name, safe="")
