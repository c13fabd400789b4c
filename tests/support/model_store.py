"""A Store in memory: the same rules as the real one, futures that are resolved on return, failures at will."""

import asyncio
from collections import deque
from collections.abc import Callable, Sequence

from otocod.adapters.sqlite.engine import ChangeRejected, DiskFailed, FailureKind
from otocod.domain.brackets import Bracket, BracketState
from otocod.domain.ids import AccountNumber, BracketId, ExternalIdentifier
from otocod.domain.orders import OrderState
from otocod.domain.specs import Protection, Role
from otocod.ports.store import (
    Alarm,
    BracketChange,
    Capability,
    Change,
    Delivery,
    JournalArchived,
    Setting,
    StoreFailed,
)


class ModelStore:
    """`committed` holds every change that took place, in order. Brackets are kept as they were given."""

    def __init__(self) -> None:
        self.committed: list[Change] = []
        self._brackets: dict[BracketId, Bracket] = {}
        self._refs: dict[str, BracketId] = {}
        self._ids: dict[ExternalIdentifier, BracketId] = {}
        self._staged: set[ExternalIdentifier] = set()
        self._settings: dict[str, str] = {}
        self._capabilities: dict[tuple[AccountNumber, str, Protection], Capability] = {}
        self._failures: deque[tuple[Callable[[Change], bool], StoreFailed]] = deque()
        self._final: DiskFailed | None = None
        self._held: list[tuple[Change, asyncio.Future[None]]] | None = None

    # What a test makes go wrong.

    def fail_next(self, failure: StoreFailed, when: Callable[[Change], bool] = lambda change: True) -> None:
        """The next change for which `when` holds is lost with `failure`; several calls queue up."""
        self._failures.append((when, failure))

    def hold(self) -> None:
        """Commits stay under way until `release`."""
        self._held = [] if self._held is None else self._held

    def release(self) -> None:
        """Resolves what was held, in order, and holds no more."""
        held, self._held = self._held or [], None
        for change, future in held:
            self._resolve(change, future)

    @property
    def failure(self) -> FailureKind | None:
        return None if self._final is None else self._final.kind

    @property
    def alarms(self) -> list[Alarm]:
        return [change for change in self.committed if isinstance(change, Alarm)]

    # The port.

    def commit(self, change: Change) -> "asyncio.Future[None]":
        future = asyncio.get_running_loop().create_future()
        if self._held is None:
            self._resolve(change, future)
        else:
            self._held.append((change, future))
        return future

    async def load_open(self) -> tuple[Bracket, ...]:
        found = [bracket for bracket in self._brackets.values() if bracket.state is not BracketState.CLOSED]
        return tuple(sorted(found, key=lambda bracket: (bracket.created_at_us, bracket.bracket_id)))

    async def bracket(self, bracket_id: BracketId) -> Bracket | None:
        return self._brackets.get(bracket_id)

    async def bracket_of(self, external_identifier: ExternalIdentifier) -> BracketId | None:
        return self._ids.get(external_identifier)

    async def bracket_of_ref(self, client_ref: str) -> tuple[BracketId, AccountNumber, str] | None:
        bracket_id = self._refs.get(client_ref)
        if bracket_id is None:
            return None
        bracket = self._brackets[bracket_id]
        return bracket_id, bracket.account, bracket.request.text

    async def settings(self) -> dict[str, str]:
        return dict(self._settings)

    async def capabilities(self) -> Sequence[Capability]:
        return tuple(self._capabilities[key] for key in sorted(self._capabilities))

    async def close(self) -> None:
        self.release()
        self._final = self._final or DiskFailed(FailureKind.CLOSED, "the store is closed")

    def _resolve(self, change: Change, future: "asyncio.Future[None]") -> None:
        failure = self._failure_of(change)
        if failure is None:
            self._apply(change)
            self.committed.append(change)
        if future.done():
            return
        if failure is None:
            future.set_result(None)
        else:
            future.set_exception(failure)

    def _failure_of(self, change: Change) -> StoreFailed | None:
        if self._final is not None:
            return DiskFailed(self._final.kind, self._final.detail)
        if self._failures and self._failures[0][0](change):
            failure = self._failures.popleft()[1]
            if isinstance(failure, DiskFailed) and failure.kind.is_final:
                self._final = failure
            return failure
        reason = self._refusal(change) if isinstance(change, BracketChange) else None
        return None if reason is None else ChangeRejected(reason)

    def _refusal(self, change: BracketChange) -> str | None:
        before, after = change.before, change.after
        known = self._brackets.get(after.bracket_id)
        if before is None and (known is not None or after.client_ref in self._refs):
            return "bracket_id and client_ref are unique"
        if before is not None and (known is None or known.version != before.version):
            return "the version is stale"
        if not _has_same_ids(known, after):
            if any(self._ids.get(name, after.bracket_id) != after.bracket_id for name in _ids_of(after)):
                return "an external identifier belongs to another bracket"
            again = {name for _, name in after.staged} - self._staged
            if any(name in self._ids for name in again):
                return "an external identifier is staged again"
        if sum(order.role is Role.ENTRY and order.state is OrderState.FILLED for order in after.orders) > 1:
            return "one filled entry a bracket"
        if after.state is BracketState.CLOSED and after.outcome is None:
            return "a closed bracket has an outcome"
        return None

    def _apply(self, change: Change) -> None:
        match change:
            case BracketChange(after=after):
                known = self._brackets.get(after.bracket_id)
                self._brackets[after.bracket_id] = after
                if _has_same_ids(known, after):
                    return
                self._staged -= set() if known is None else {name for _, name in known.staged}
                self._staged |= {name for _, name in after.staged}
                self._refs.setdefault(after.client_ref, after.bracket_id)
                self._ids.update(dict.fromkeys(_ids_of(after), after.bracket_id))
            case Capability():
                self._capabilities[(change.account, change.product, change.protection)] = change
            case Setting():
                self._settings[change.name] = change.value
            case Alarm() | Delivery() | JournalArchived():
                pass


def _has_same_ids(known: Bracket | None, after: Bracket) -> bool:
    """Whether a look at what has not changed can be saved: most changes make no order and stage nothing."""
    return (
        known is not None
        and known.staged is after.staged
        and known.suspects is after.suspects
        and len(known.orders) == len(after.orders)
        and all(a.external_identifier == b.external_identifier for a, b in zip(known.orders, after.orders, strict=True))
    )


def _ids_of(bracket: Bracket) -> list[ExternalIdentifier]:
    ordered = [order.external_identifier for order in bracket.orders]
    return ordered + [name for _, name in (*bracket.staged, *bracket.suspects)]
