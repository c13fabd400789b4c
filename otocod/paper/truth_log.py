"""The truth log: what was asked, what the exchange did, what was sent, in the order in which it happened.

Entries come from four writers: `rest.py` (kind `request`, one for each, when its answer is decided), the exchange's
own record (kind `exchange`, absorbed after every change), and the streams (kind `frame`, one for each message sent or
deliberately not sent), and `control.py` (kind `control`, one for each thing done by hand). `seq` rises by one and
never repeats, so a reader continues with `?since=<last seq>`. Tokens and secrets never enter.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Mapping
from itertools import islice

from otocod.paper.answers import Json

KEPT_ENTRIES = 500_000  # about a day of heavy testing; older entries make room, and `first_seq` shows it


class TruthLog:
    def __init__(self) -> None:
        self._entries: deque[Json] = deque(maxlen=KEPT_ENTRIES)
        self._next_seq = 1

    def add(self, kind: str, at_us: int, **fields: object) -> None:
        self._entries.append({"seq": self._next_seq, "at_us": at_us, "kind": kind, **fields})
        self._next_seq += 1

    def absorb(self, records: Iterable[Mapping[str, object]], *, now_us: int) -> None:
        """Takes over records of the exchange; their own times and words stay, their numbering becomes this log's."""
        for record in records:
            self._entries.append({"at_us": now_us, **record, "seq": self._next_seq, "kind": "exchange"})
            self._next_seq += 1

    def since(self, seq: int, limit: int) -> Json:
        """At most `limit` entries after `seq`, oldest first."""
        first = self._next_seq - len(self._entries)
        start = max(0, seq + 1 - first)
        entries = list(islice(self._entries, start, start + limit))
        last = entries[-1]["seq"] if entries else max(seq, 0)
        return {"first_seq": first, "last_seq": last, "more": start + limit < len(self._entries), "entries": entries}

    def clear(self) -> None:
        self._entries.clear()
