"""submit, queue list, queue init, schema: the submitter's side. Needs the queue file and nothing of the daemon's."""

import json
import secrets
import sqlite3
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Protocol

import typer

from otocod.cli import output
from otocod.cli.client import BROKER_TIMEOUT_S, Client, bracket_path
from otocod.cli.commands import Json, command, new_app
from otocod.cli.failure import DaemonDown, ExitStatus, Failed
from otocod.cli.places import Places
from otocod.cli.source import daemon, places

# What `--wait` alone waits for.
WAIT_DEFAULT = "CLOSED"
# States in the order of a bracket's life; waiting for one ends when it, or a later one, has been reached.
_STATES = ("PENDING_ENTRY", "ENTRY_FILLED", "EXITS_LIVE", "CLOSED")
_REQUEST_MAX_BYTES = 64 * 1024
_ROW_POLL_S = 0.02
_BRACKET_POLL_S = 0.1


class Looker(Protocol):
    """The part of the daemon's client that waiting needs."""

    def get(self, path: str) -> Any: ...


queue_app = new_app(help="The queue of requests.")


def register(app: typer.Typer) -> None:
    command(app, "submit")(submit)
    command(app, "adopt")(adopt)
    command(app, "schema")(schema)
    command(queue_app, "list")(queue_list)
    command(queue_app, "init")(queue_init)
    app.add_typer(queue_app, name="queue")


def submit(
    file: str = typer.Argument(metavar="FILE|-", help="A bracket request as JSON; - is standard input."),
    client_ref: str | None = typer.Option(None, "--client-ref", help="Your key for it; made up when left out."),
    account: str | None = typer.Option(None, "--account", help="May be left out when one account is configured."),
    dry_run: bool = typer.Option(False, "--dry-run", help="Insert nothing; judge it and ask the broker."),
    explain: bool = typer.Option(False, "--explain", help="Insert nothing; say what protects it and what it can lose."),
    wait: str | None = typer.Option(
        None, "--wait", metavar="[=STATE]", help="Wait for the answer and then STATE (CLOSED)."
    ),
    as_json: bool = Json,
) -> None:
    """Validate a request and put it into the queue."""
    where = places()
    wanted = _state(wait)
    text = _read(file)
    account = account or _only_account(where)
    request = _judge(text, account, where)
    if explain:
        _explain(request, as_json)
        return
    if dry_run:
        _dry_run(text, account, as_json)
        return
    reference = client_ref or _new_reference(text)
    request_id = _insert(where, reference, account, text)
    if wanted is None:
        found = {"id": request_id, "client_ref": reference, "account": account, "status": "NEW"}
        _print_row(found, as_json)
        return
    row = _answered(where, reference)
    if row["status"] == "REJECTED":
        _print_rejected(row, as_json)
    bracket = reached(Client(where.socket), str(row["bracket_id"]), wanted)
    if as_json:
        output.print_json(bracket)
    else:
        outcome = f", {bracket['outcome']}" if bracket["outcome"] else ""
        output.say(f"{bracket['bracket_id']}  {bracket['client_ref']}  {bracket['state']}{outcome}")
    if not has_been(bracket, wanted):
        raise Failed(ExitStatus.FAILED, f"it ended {bracket['outcome']} and was never {wanted}")


def adopt(
    file: str = typer.Argument(
        metavar="FILE|-", help="A bracket request; its entry says what was opened, and for what."
    ),
    client_ref: str | None = typer.Option(None, "--client-ref", help="Your key for it; made up when left out."),
    account: str | None = typer.Option(None, "--account", help="May be left out when one account is configured."),
    from_fills: bool = typer.Option(
        False, "--from-fills", help="What it cost is read from the broker's fills, not from entry.price."
    ),
    as_json: bool = Json,
) -> None:
    """Put a bracket around a position that the account has already. Nothing is opened."""
    where = places()
    text = _read(file)
    account = account or _only_account(where)
    _judge(text, account, where)
    reference = client_ref or _new_reference(text)
    asked = {"account": account, "client_ref": reference, "request": text, "from_fills": from_fills}
    bracket = daemon().post("/v1/adopt", asked, timeout_s=BROKER_TIMEOUT_S)
    if as_json:
        output.print_json(bracket)
    else:
        output.say(f"{bracket['bracket_id']}  {bracket['client_ref']}  {bracket['state']}")


def _state(wait: str | None) -> str | None:
    if wait is None:
        return None
    if wait.upper() not in _STATES:
        raise Failed(ExitStatus.USAGE, f"submit: --wait={wait}: no such state; there are {', '.join(_STATES)}")
    return wait.upper()


def _read(file: str) -> str:
    try:
        raw = sys.stdin.buffer.read(_REQUEST_MAX_BYTES + 1) if file == "-" else _head(Path(file))
    except OSError as error:
        raise Failed(ExitStatus.FAILED, f"{file}: {error.strerror}") from None
    if len(raw) > _REQUEST_MAX_BYTES:
        raise Failed(ExitStatus.REFUSED, f"{file}: a request has at most {_REQUEST_MAX_BYTES} bytes")
    try:
        return raw.decode("utf-8")
    except UnicodeDecodeError as error:
        raise Failed(ExitStatus.REFUSED, f"{file}: is not UTF-8 (byte {error.start})") from None


def _head(path: Path) -> bytes:
    with path.open("rb") as file:
        return file.read(_REQUEST_MAX_BYTES + 1)


def _only_account(where: Places) -> str:
    if len(where.accounts) == 1:
        return where.accounts[0]
    known = f"one of {', '.join(where.accounts)}" if where.accounts else "none is configured here"
    raise Failed(ExitStatus.USAGE, f"submit: --account is needed: {known}")


def _judge(text: str, account: str, where: Places) -> Any:
    """The same judgement the daemon makes, less what only it knows. Raises Failed with every reason."""
    from otocod.adapters.zones import is_zone
    from otocod.domain.request import RequestRefused, parse_request

    now_us = time.time_ns() // 1000
    try:
        return parse_request(
            text,
            account=account,
            accounts=where.accounts or (account,),
            created_at_us=now_us,
            now_us=now_us,
            today=_exchange_day(),
            is_zone=is_zone,
        )
    except RequestRefused as refused:
        raise Failed(ExitStatus.REFUSED, "the request is not valid", refused.reasons) from None


def _explain(request: Any, as_json: bool) -> None:
    from otocod.safety import safety_contract

    lines = safety_contract(request)
    if as_json:
        output.print_json(lines)
    else:
        for line in lines:
            output.say(line)


def _exchange_day() -> Any:
    from zoneinfo import ZoneInfo

    return datetime.now(ZoneInfo("America/New_York")).date()


def _dry_run(text: str, account: str, as_json: bool) -> None:
    found = daemon().post("/v1/dry-run", {"account": account, "request": text}, timeout_s=BROKER_TIMEOUT_S)
    if as_json:
        output.print_json(found)
    elif not found.get("reasons"):
        output.say("the request is valid and the broker would take its entry")
        for name, value in (found.get("broker") or {}).items():
            output.say(f"  {name}: {value if isinstance(value, str) else json.dumps(value)}")
    if found.get("reasons"):
        raise Failed(ExitStatus.REFUSED, "it would be refused", tuple(map(str, found["reasons"])))


def _new_reference(text: str) -> str:
    """A key that a person can read and nobody else makes: `AAPL-20261122-150405-3f9a1c`."""
    symbol = json.loads(text)["entry"]["legs"][0]["symbol"]
    root = "".join(letter for letter in str(symbol).split(" ")[0] if letter.isalnum()) or "bracket"
    return f"{root}-{datetime.now(UTC):%Y%m%d-%H%M%S}-{secrets.token_hex(3)}"


@contextmanager
def _queue_failures() -> Iterator[None]:
    from otocod.adapters.queue import producer

    try:
        yield
    except producer.QueueUnusableError as error:
        raise Failed(ExitStatus.NOT_AS_NEEDED, str(error)) from None
    except producer.DuplicateClientRefError as error:
        raise Failed(ExitStatus.REFUSED, str(error)) from None
    except (OSError, sqlite3.Error) as error:
        raise Failed(ExitStatus.FAILED, f"the queue: {error}") from None


def _insert(where: Places, reference: str, account: str, text: str) -> int:
    from otocod.adapters.queue import producer

    with _queue_failures():
        return producer.submit_row(where.queue, client_ref=reference, account=account, request=text)


def _answered(where: Places, reference: str) -> dict[str, Any]:
    """The row once the daemon has answered it, however long that takes: a halt or an outage leaves it NEW."""
    while True:
        row = _row(where, reference)
        if row["status"] != "NEW":
            return row
        time.sleep(_ROW_POLL_S)


def _row(where: Places, reference: str) -> dict[str, Any]:
    from otocod.adapters.queue import producer

    with _queue_failures():
        found = producer.row(where.queue, reference)
    if found is None:
        raise Failed(ExitStatus.FAILED, f"{reference}: the row was deleted from the queue")
    return asdict(found)


def _print_row(row: dict[str, Any], as_json: bool) -> None:
    if as_json:
        output.print_json(row)
    else:
        output.say(f"{row['client_ref']}  row {row['id']}  {row['status']}")


def _print_rejected(row: dict[str, Any], as_json: bool) -> None:
    if as_json:
        output.print_json(row)
    reasons = tuple(str(row["reason"] or "").splitlines())
    raise Failed(ExitStatus.REFUSED, f"{row['client_ref']} was rejected", reasons)


def has_been(bracket: dict[str, Any], wanted: str) -> bool:
    return any(entry["to"] == wanted for entry in bracket["history"])


def reached(client: Looker, bracket_id: str, wanted: str) -> dict[str, Any]:
    """The bracket once it has been in the state, or is over. The daemon may be restarted meanwhile."""
    while True:
        try:
            bracket: dict[str, Any] = client.get(bracket_path(bracket_id))
        except DaemonDown as down:
            raise Failed(down.status, f"{bracket_id} was accepted, but {down.message}") from None
        if bracket["state"] == "CLOSED" or has_been(bracket, wanted):
            return bracket
        time.sleep(_BRACKET_POLL_S)


def schema(as_json: bool = Json) -> None:
    """The JSON Schema of a bracket request."""
    from otocod.domain.schema import request_schema

    output.print_json(request_schema())


def queue_list(
    status: str | None = typer.Option(
        None, "--status", metavar="NEW|ACCEPTED|REJECTED", help="Only rows of this status."
    ),
    limit: int = typer.Option(1000, "--limit", help="At most so many, the newest."),
    as_json: bool = Json,
) -> None:
    """The rows of the queue and what became of them."""
    from otocod.adapters.queue import producer

    with _queue_failures():
        found = producer.rows(places().queue, status=status.upper() if status else None, limit=limit)
    if as_json:
        output.print_json([asdict(row) for row in found])
        return
    rows = [
        (
            row.id,
            row.created_at,
            row.client_ref,
            row.status,
            row.bracket_id or "; ".join((row.reason or "").splitlines()),
        )
        for row in found
    ]
    output.print_table(
        ("id>", "created at (UTC)", "ref", "status", "bracket or reasons"), rows, empty="the queue is empty"
    )


def queue_init(
    group: str | None = typer.Option(None, "--group", help="The submitters' group; as the directory's when left out."),
    as_json: bool = Json,
) -> None:
    """Make the queue file and its directory, with the modes that let the group submit."""
    from otocod.adapters.queue.init import init_queue

    path = places().queue
    try:
        made = init_queue(path, group=group)
    except LookupError:
        raise Failed(ExitStatus.FAILED, f"there is no group {group}") from None
    except ValueError as error:
        raise Failed(ExitStatus.FAILED, str(error)) from None
    except OSError as error:
        raise Failed(ExitStatus.FAILED, f"{error.filename or path}: {error.strerror}") from None
    if as_json:
        output.print_json({"path": str(path), "made": made})
    else:
        output.say(f"{path} {'made' if made else 'was there already'}")
