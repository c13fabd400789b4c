"""The queue's one table, exactly as the public contract prints it, and the comparison that finds any other."""

import re
from collections.abc import Iterable

TABLE = "bracket_requests"

DDL = """\
CREATE TABLE bracket_requests (
    id          INTEGER PRIMARY KEY,
    client_ref  TEXT NOT NULL UNIQUE,   -- the caller's key: the same key never makes a second bracket
    account     TEXT NOT NULL,
    request     TEXT NOT NULL,          -- JSON, section 5
    status      TEXT NOT NULL DEFAULT 'NEW' CHECK (status IN ('NEW','ACCEPTED','REJECTED')),
    reason      TEXT,                   -- every reason, one a line, when REJECTED
    bracket_id  TEXT,                   -- when ACCEPTED
    created_at  TEXT NOT NULL DEFAULT (strftime('%Y-%m-%dT%H:%M:%fZ','now')),
    handled_at  TEXT
) STRICT
"""

# Written into a new file so that file(1) and a person can tell what it is. Never demanded of a file that a
# producer made from the published DDL: the contract does not mention them.
APPLICATION_ID = 0x6F746F63
USER_VERSION = 1

_TOKEN = re.compile(r"--[^\n]*|/\*.*?\*/|'(?:[^']|'')*'|\"[^\"]*\"|\[[^\]]*\]|`[^`]*`|\w+|\S", re.DOTALL)

# ANALYZE, which `PRAGMA optimize` runs for any producer, leaves these tables; their columns are SQLite's own.
_TOLERATED = {
    "sqlite_stat1": "CREATE TABLE sqlite_stat1(tbl,idx,stat)",
    "sqlite_stat4": "CREATE TABLE sqlite_stat4(tbl,idx,neq,nlt,ndlt,sample)",
}


def tokens_from_sql(sql: str) -> list[str]:
    """The statement's words without comments, spaces, quotes around names or the case of keywords."""
    tokens = []
    for token in _TOKEN.findall(sql):
        if token.startswith(("--", "/*")):
            continue
        if token[0] in '"[`':
            token = token[1:-1]
        tokens.append(token if token[0:1] == "'" else token.lower())
    return tokens


_EXPECTED_TOKENS = tokens_from_sql(DDL)
_TOLERATED_TOKENS = {name: tokens_from_sql(sql) for name, sql in _TOLERATED.items()}


def differences(objects: Iterable[tuple[object, object, object]]) -> list[str]:
    """What sets a schema apart from ours, one line each; empty when it is ours.

    objects: rows (type, name, sql) of `sqlite_schema`, not trusted to be of any type.
    """
    found = []
    has_table = False
    for kind, name, sql in objects:
        if kind == "index" and sql is None and name == f"sqlite_autoindex_{TABLE}_1":
            continue
        tokens = tokens_from_sql(sql) if isinstance(sql, str) else []
        if kind == "table" and isinstance(name, str) and tokens == _TOLERATED_TOKENS.get(name):
            continue
        if kind == "table" and name == TABLE and not has_table:
            has_table = True
            if tokens != _EXPECTED_TOKENS:
                found.append(f"table {TABLE} is not the published one")
            continue
        found.append(f"has a {str(kind)[:20]!r} named {str(name)[:60]!r}")
    if not has_table:
        found.append(f"has no table {TABLE}")
    return found
