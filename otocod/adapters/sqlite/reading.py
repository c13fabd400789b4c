"""The read model for the running daemon: the same queries as the command line's, on threads of their own."""

import asyncio
import sqlite3
from collections.abc import Callable, Mapping
from contextlib import closing
from pathlib import Path
from typing import TypeVar

from otocod.adapters.sqlite import readmodel
from otocod.adapters.sqlite.check import NotFit, backup
from otocod.audit import audit, broker_order_from_json
from otocod.domain.ids import BracketId
from otocod.ports.admin import AdminFailed, AdminRefused, JsonList, JsonObject, NoSuchBracket
from otocod.ports.clock import Clock

T = TypeVar("T")


class SqliteReadModel:
    """Implements engine.operator.ReadModel."""

    def __init__(self, path: Path, clock: Clock) -> None:
        self._path = path
        self._clock = clock

    async def _read(self, query: Callable[[sqlite3.Connection], T]) -> T:
        def work() -> T:
            with closing(readmodel.open_readonly(self._path)) as connection:
                return query(connection)

        return await asyncio.to_thread(work)

    async def find(self, named: str) -> BracketId:
        try:
            return BracketId(await self._read(lambda connection: readmodel.find_bracket(connection, named)))
        except readmodel.BracketNotFound:
            raise NoSuchBracket(named) from None
        except readmodel.BracketAmbiguous:
            raise NoSuchBracket(named, "more than one bracket begins with this") from None

    async def brackets(self, filters: Mapping[str, str]) -> JsonList:
        return await self._read(
            lambda connection: readmodel.list_brackets(
                connection,
                state=filters.get("state"),
                account=filters.get("account"),
                open_only=bool(filters.get("open")),
                attention=bool(filters.get("attention")),
                now_us=self._clock.now_us(),
            )
        )

    async def lately_closed(self, limit: int) -> JsonList:
        now_us = self._clock.now_us()
        return await self._read(lambda connection: readmodel.lately_closed(connection, limit=limit, now_us=now_us))

    async def bracket(self, bracket_id: BracketId) -> JsonObject:
        now_us = self._clock.now_us()
        return await self._read(lambda connection: readmodel.show_bracket(connection, bracket_id, now_us=now_us))

    async def events(self, bracket_id: BracketId | None, after_seq: int, limit: int) -> JsonList:
        return await self._read(
            lambda connection: readmodel.events(connection, bracket_id, after_seq=after_seq, limit=limit)
        )

    async def recording(self, bracket_id: BracketId) -> JsonObject:
        return await self._read(lambda connection: readmodel.recording(connection, bracket_id))

    async def summary(self) -> JsonObject:
        now_us = self._clock.now_us()
        return await self._read(lambda connection: readmodel.status_summary(connection, now_us=now_us))

    async def audit(self, broker_orders: JsonList | None, positions: Mapping[str, Mapping[str, int]]) -> JsonObject:
        orders = None if broker_orders is None else [broker_order_from_json(order) for order in broker_orders]
        now_us = self._clock.now_us()
        report = await asyncio.to_thread(lambda: audit(self._path, orders, positions, now_us=now_us))
        return {
            "violations": [
                {"rule": each.rule, "bracket_id": each.bracket_id, "text": each.text} for each in report.violations
            ],
            "checked": report.checked,
            "broker_asked": report.broker_asked,
        }

    async def backup(self, to: str) -> JsonObject:
        target = Path(to)
        try:
            size = await asyncio.to_thread(_backed_up, self._path, target)
        except FileExistsError:
            raise AdminRefused((f"{to} exists already",)) from None
        except OSError as error:
            raise AdminFailed(f"the backup {to} could not be made: {error.strerror}") from None
        except (sqlite3.Error, NotFit) as error:
            raise AdminFailed(f"the backup {to} could not be made: {error}") from None
        return {"path": to, "bytes": size}


def _backed_up(path: Path, to: Path) -> int:
    backup(path, to)
    return to.stat().st_size
