"""The domain is told everything and touches nothing: proved over the source of every module below otocod/domain."""

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

DOMAIN = Path(__file__).resolve().parents[3] / "otocod" / "domain"
MODULES = sorted(DOMAIN.rglob("*.py"))

ALLOWED_MODULES = frozenset(
    {
        *("abc", "bisect", "collections", "dataclasses", "datetime", "decimal", "difflib", "enum", "fractions"),
        *("functools", "hashlib", "heapq", "itertools", "json", "math", "operator", "re", "string", "types"),
        *("typing", "unicodedata", "uuid"),
    }
)
ONLY_IN_MACHINE = "transitions"
# Names that read a clock, make randomness or touch the outside, however they were imported.
IMPURE_CALLS = frozenset(
    {
        *("now", "utcnow", "today", "fromtimestamp", "time", "time_ns", "monotonic", "monotonic_ns", "perf_counter"),
        *("sleep", "random", "randint", "choice", "shuffle", "urandom", "getrandbits", "uuid1", "uuid4"),
        *("open", "print", "input", "exec", "eval", "__import__", "getenv", "system", "float"),
    }
)


def violations(source: str, name: str = "module.py") -> list[str]:
    return [text for node in ast.walk(ast.parse(source)) for text in _violations_of(node, name)]


def _violations_of(node: ast.AST, name: str) -> Iterator[str]:
    if isinstance(node, ast.Import):
        yield from (f"imports {alias.name}" for alias in node.names if not _is_allowed(alias.name, name))
    elif isinstance(node, ast.ImportFrom):
        module = node.module or ""
        if node.level or not _is_allowed(module, name):
            yield f"imports {'.' * node.level}{module}"
    elif isinstance(node, ast.Constant) and isinstance(node.value, float | complex):
        yield f"float literal {node.value}"
    elif isinstance(node, ast.Call):
        called = _called_name(node.func)
        if called in IMPURE_CALLS:
            yield f"calls {called}"
    elif isinstance(node, ast.Global):
        yield "global state"


def _is_allowed(module: str, name: str) -> bool:
    top = module.split(".")[0]
    if top == ONLY_IN_MACHINE:
        return name == "machine.py"
    return top in ALLOWED_MODULES or module == "otocod.domain" or module.startswith("otocod.domain.")


def _called_name(function: ast.expr) -> str | None:
    if isinstance(function, ast.Name):
        return function.id
    return function.attr if isinstance(function, ast.Attribute) else None


@pytest.mark.parametrize("path", MODULES, ids=lambda path: path.name)
def test_module_is_pure(path: Path) -> None:
    assert violations(path.read_text(), path.name) == []


def test_modules_were_found() -> None:
    assert {"specs.py", "prices.py", "request.py", "exits.py"} <= {path.name for path in MODULES}


@pytest.mark.parametrize(
    "source",
    [
        "import time",
        "import os.path",
        "from random import choice",
        "from . import specs",
        "from otocod import engine",
        "from otocod.engine import mailbox",
        "import transitions",
        "x = 0.5",
        "x = 1e3",
        "x = float('1')",
        "from datetime import datetime\nx = datetime.now()",
        "from datetime import date\nx = date.today()",
        "import uuid\nx = uuid.uuid4()",
        "print(1)",
        "open('x')",
        "def f():\n    global x\n    x = 1",
    ],
)
def test_impure_source_is_noticed(source: str) -> None:
    assert violations(source)


def test_pure_source_is_not_blamed() -> None:
    source = (
        "from otocod.domain.specs import Leg\nfrom decimal import Decimal\nx = Decimal('0.5')\ndef f(now): return now"
    )
    assert violations(source) == []
    assert violations("import transitions", "machine.py") == []
