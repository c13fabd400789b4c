"""What an operator may ask of the running daemon. The admin socket serves it; the engine answers.

Every value is JSON-ready: text, numbers, booleans, None, lists and dictionaries with text keys. `by` says who asked, as
the kernel told it. An operator's command is an intent like any other: durable when the call returns, carried out after
it, and asking twice changes nothing.
"""

from collections.abc import Mapping
from typing import Any, Protocol

JsonObject = dict[str, Any]
JsonList = list[JsonObject]


class AdminError(Exception):
    """The request was not carried out; the text is for the operator. Anything else that is raised is a bug."""


class AdminRefused(AdminError):
    """Not now, or not this. `reasons` holds all of them, one line each."""

    def __init__(self, reasons: tuple[str, ...]) -> None:
        super().__init__("; ".join(reasons))
        self.reasons = reasons


class AdminFailed(AdminError):
    """It was tried and did not work; nothing is wrong with the request."""


class NoSuchBracket(AdminError):
    """No bracket, or more than one, answers to `named`."""

    def __init__(self, named: str, why: str = "no such bracket") -> None:
        super().__init__(f"{why}: {named}")
        self.named = named


class BrokerUnreachable(AdminError):
    """The broker had to be asked and could not be, so nothing is known and nothing was done."""


class AdminService(Protocol):
    """`bracket` arguments are an id, a unique prefix of one, or `ref:CLIENT_REF`; every method that takes one raises
    NoSuchBracket, and every method may raise AdminRefused and BrokerUnreachable. All may be called concurrently.
    """

    async def status(self) -> JsonObject:
        """Keys: ready, reasons_not_ready, environment, accounts (masked), streamer {healthy, age_s}, login,
        last_reconcile_at, counts (by state), unknown_outcomes, attention, longest_unprotected_s, halted, halt_level,
        halt_reason, adoption (why a person must adopt, or None), orders_today, risk_today, version, pid, uptime_s."""
        ...

    async def brackets(self, filters: Mapping[str, str], /) -> JsonList:
        """filters: any of state, account, open ("1"), attention ("1"). Without orders and history, oldest first."""
        ...

    async def bracket(self, bracket: str, /) -> JsonObject:
        """One bracket as `show --json` prints it."""
        ...

    async def safety(self, bracket: str, /) -> list[str]:
        """The safety contract of a bracket as it stands, one statement a line; none once it is over."""
        ...

    async def overview(self) -> JsonObject:
        """What a person looks at: running, health, counts (by state), attention, the most urgent open brackets as
        `engine.picture.picture_of`, unshown (open ones left out), closed (lately). At most a few hundred rows."""
        ...

    async def view(self, bracket: str, /) -> JsonObject:
        """One bracket looked at closely. Keys: bracket (its picture), orders, story, fills, course (points, told)."""
        ...

    async def events(self, bracket: str | None, /, *, after_seq: int, limit: int, wait_s: float) -> JsonList:
        """Journal entries with a sequence number above `after_seq`, in order; waits up to `wait_s` for the first."""
        ...

    async def recording(self, bracket: str, /) -> JsonObject:
        """All that is stored of one bracket, row by row. Keys: bracket, orders, identifiers, journal."""
        ...

    async def truth(self, bracket: str, /) -> JsonObject:
        """The broker's own record of a bracket's orders, read now; times by its clock. Keys: clock_offset_us (its
        clock minus ours), orders [{external_identifier, role, broker_order_id, status, is_terminal, received_us,
        changed_us, fills}]; status is None for one that it does not have, fills are [symbol, quantity, at_us]."""
        ...

    async def cancel(self, bracket: str, /, *, by: str) -> JsonObject:
        """Cancel the entry; a filled part is protected. Answers as `bracket`, like all that follow on one bracket."""
        ...

    async def close(self, bracket: str, /, *, at: str | None, by: str) -> JsonObject:
        """at: "natural" (None means the same), or an unsigned price per unit of the spread as decimal text."""
        ...

    async def change(self, bracket: str, *, target: str | None, stop: tuple[str, str] | None, by: str) -> JsonObject:
        """target: a limit; stop: (trigger, limit); unsigned prices as decimal text. At least one is given."""
        ...

    async def ack(self, bracket: str, /, *, by: str) -> JsonObject: ...

    async def unfreeze(self, bracket: str, /, *, by: str) -> JsonObject: ...

    async def release(self, bracket: str, /, *, by: str) -> JsonObject: ...

    async def take_over(
        self, *, account: str, client_ref: str, request_text: str, from_fills: bool, by: str
    ) -> JsonObject:
        """A bracket around a position that the account has already, opened at the entry's price of the request, or at
        what the broker's fills make. The same key with the same request is the same bracket."""
        ...

    async def halt(self, *, reason: str, by: str, level: str = "entries", confirm: bool = False) -> JsonObject:
        """No new entries, across restarts; or as much as `level` says: intake, entries, cancel-entries, flatten.

        It never lowers the level in force. `flatten` wants `confirm`. Answers as `status`, like `resume`.
        """
        ...

    async def resume(self, *, by: str) -> JsonObject: ...

    async def reconcile(self, *, dry_run: bool, by: str) -> JsonObject:
        """Keys: listed (orders read), differences (lines)."""
        ...

    async def adopt(self, *, fate: str | None, by: str) -> JsonObject:
        """A reconcile that ends the state in which the database is behind the broker. Orders with our source that
        belong to no bracket here are refused, each named, unless `fate` says what becomes of them: "cancel" (entries
        that work are cancelled, all else is a person's) or "leave". Keys: listed, differences, adopted (lines).
        """
        ...

    async def audit(self) -> JsonObject:
        """Keys: violations [{rule, bracket_id, text}], checked (counts), broker_asked."""
        ...

    async def dry_run(self, account: str, request_text: str, /) -> JsonObject:
        """Judge a request and have the broker judge its entry, without effect. Keys: reasons, broker."""
        ...

    async def capabilities(self) -> JsonList: ...

    async def doctor(self) -> JsonList:
        """Checks, each with the keys check, ok, detail, remedy."""
        ...

    async def backup(self, to: str, /) -> JsonObject:
        """A consistent copy of state.db at the path `to`, which must not exist. Keys: path, bytes."""
        ...

    async def prune(self) -> JsonObject:
        """Journals of brackets that closed long ago go into the archive, old answers from the queue file, by the
        settings. Keys: closed_before (None: journals are kept), brackets, rows, archives, answered_before (None:
        answers are kept), answers."""
        ...

    async def reload(self) -> JsonObject:
        """Read the settings again. Keys: applied, needs_restart, problems; with problems nothing changed."""
        ...
