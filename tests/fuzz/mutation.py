"""Damage: to bytes, to JSON texts, to trees of JSON. Every function takes its randomness from the caller."""

import json
import re
from random import Random
from typing import Any

Tree = Any

# A marker stands for a token that json.dumps cannot write; `dumped` puts the token in its place.
_MARK = re.compile(r'"\\u0001([^"]*)\\u0001"')


def token(text: str) -> str:
    """A value that `dumped` writes as `text`, without quotes."""
    return f"\x01{text}\x01"


def dumped(tree: Tree, *, indent: int | None = None) -> str:
    return _MARK.sub(lambda found: found[1], json.dumps(tree, indent=indent))


HOSTILE_TEXTS = (
    "",
    " ",
    "\x00",
    "a\x00b",
    "\x1b[2J\x1b[1;1H",
    "\x1b]0;owned\x07",
    "\x9b31m",
    "\u202egnp.exe",
    "\u2066x\u2069",
    "\u2028",
    "\u200b",
    "\ufeff",
    "\ud800",
    "\udfff\ud800",
    "e\u0301",
    "\U0001f600",
    "\U000e0001",
    "\uff21\uff21\uff30\uff2c",
    "\u0131",
    "ß",
    "'; DROP TABLE brackets; --",
    "{}{0}{x!r}%s%n",
    "../../etc/passwd",
    "A" * 70,
    "A" * 2000,
    "0x10",
    "1_000",
    "٣",
    "\uff11",
    "½",
    "true",
    "null",
    "NaN",
    "Infinity",
    "-0",
    "0.0",
    "0.85\n",
    " 0.85",
    "1e400",
    "1e-400",
    "1E+2",
    "85e-2",
    "0.850",
    "00.85",
    "+0.85",
    ".85",
    "1.",
    "0.855",
    "999999",
    "1000000",
    "99999999999999999999999999",
    "9" * 5000,
)
HOSTILE_TOKENS = (
    "NaN",
    "Infinity",
    "-Infinity",
    "1e400",
    "-1e400",
    "1e-400",
    "0",
    "-0",
    "-1",
    "0.0",
    "1.0",
    "1e0",
    "2",
    "0.1",
    "0.855",
    "2147483648",
    "9007199254740993",
    "9223372036854775808",
    "18446744073709551616",
    "9" * 400,
    "9" * 5000,
    "0." + "0" * 300 + "1",
    "1" + "0" * 300,
    "01",
    "+1",
    "1.",
    ".5",
    "0x1",
    "1e",
    "--1",
    "undefined",
    "nul",
    "'a'",
    "[1,]",
    '{"a":1,"a":2}',
    "/**/1",
    '"\\ud800"',
    '"\\u0000"',
    '"\\x41"',
    '"\t"',
)
BRACKETS = ("[", "{", "]", "}", '"', "\\", ",", ":", "\\u", "\x00", "\n", "//", "#")


def hostile_value(rng: Random, words: tuple[str, ...]) -> Tree:
    """Any value that a field might hold: words of the language at hand, hostile texts and numbers, other types."""
    choice = rng.random()
    if choice < 0.35:
        return rng.choice(words)
    if choice < 0.55:
        return rng.choice(HOSTILE_TEXTS)
    if choice < 0.75:
        return token(rng.choice(HOSTILE_TOKENS))
    if choice < 0.85:
        return rng.choice((None, True, False, [], {}, [[]], [None], {"": None}))
    if choice < 0.95:
        return rng.randrange(-5, 100)
    return nested(rng.randrange(1, 40), rng)


def nested(depth: int, rng: Random) -> Tree:
    tree: Tree = rng.choice((1, "x", None))
    for _ in range(depth):
        tree = [tree] if rng.random() < 0.5 else {"a": tree}
    return tree


def deep_text(rng: Random) -> str:
    """Nesting far beyond what any reader's stack takes, closed or not."""
    depth = rng.choice((50, 500, 1_000, 5_000, 20_000, 30_000))
    opener, closer = rng.choice((("[", "]"), ('{"a":', "}"), ('[{"a":', "}]"), ("[[],", "]")))
    return opener * depth + rng.choice(("1", "")) + (closer * depth if rng.random() < 0.7 else "")


def mutate_tree(rng: Random, tree: Tree, paths: list[tuple[str | int, ...]], words: tuple[str, ...]) -> None:
    """One change in place, at one of `paths`; a path that an earlier change took away is left alone."""
    path = paths[rng.randrange(len(paths))]
    node, key = tree, path[-1]
    try:
        for step in path[:-1]:
            node = node[step]
        _mutate_at(rng, node, key, words)
    except (KeyError, IndexError, TypeError, ValueError, AttributeError):
        return


def _mutate_at(rng: Random, node: Tree, key: str | int, words: tuple[str, ...]) -> None:
    choice = rng.random()
    if choice < 0.50:
        node[key] = hostile_value(rng, words)
    elif choice < 0.62:
        del node[key]
    elif choice < 0.70:
        value = node[key]
        node[key] = token(value) if isinstance(value, str) else str(value)
    elif choice < 0.76:
        node[key] = [node[key]]
    elif choice < 0.84 and isinstance(node, dict):
        node[_misspelt(rng, str(key))] = node.pop(key) if rng.random() < 0.5 else node[key]
    elif choice < 0.92 and isinstance(node, dict):
        other = rng.choice(list(node))
        node[key], node[other] = node[other], node[key]
    elif isinstance(node, list):
        node.insert(rng.randrange(len(node) + 1), node[int(key)])
    else:
        node[rng.choice(words)] = hostile_value(rng, words)


def _misspelt(rng: Random, key: str) -> str:
    if not key:
        return "x"
    at = rng.randrange(len(key))
    return rng.choice(
        (key[:at] + key[at + 1 :], key[:at] + "_" + key[at:], key.upper(), key.replace("-", "_"), key + " ")
    )


def mutate_text(rng: Random, text: str) -> str:
    """Damage to the text itself, such as no tree can have: doubled keys, stray brackets, cuts."""
    at = rng.randrange(len(text) + 1)
    to = min(len(text), at + rng.choice((1, 1, 2, 8, 40)))
    choice = rng.random()
    if choice < 0.25:
        return text[:at] + text[to:]
    if choice < 0.40:
        return text[:to] + text[at:to] + text[to:]
    if choice < 0.65:
        return text[:at] + rng.choice(BRACKETS) + text[at:]
    if choice < 0.80:
        return text[:at] + rng.choice(HOSTILE_TOKENS) + text[at:]
    if choice < 0.90:
        return text[:at]
    return text + rng.choice(("}", "]", " x", "\x00", text[:40], "\ufeff"))


def mutate_bytes(rng: Random, content: bytes) -> bytes:
    """Damage below the text: flipped bits, broken UTF-8."""
    changed = bytearray(content)
    for _ in range(rng.choice((1, 1, 2, 5))):
        at = rng.randrange(len(changed) + 1)
        choice = rng.random()
        if choice < 0.4 and at < len(changed):
            changed[at] ^= 1 << rng.randrange(8)
        elif choice < 0.6 and at < len(changed):
            changed[at] = rng.choice((0, 0x1B, 0x7F, 0x80, 0x9B, 0xC0, 0xED, 0xFF))
        elif choice < 0.8:
            changed[at:at] = rng.choice(
                (b"\xff\xfe", b"\xed\xa0\x80", b"\xc0\x80", b"\xf4\x90\x80\x80", b"\x00", b"\xef\xbb\xbf")
            )
        else:
            del changed[at : at + rng.choice((1, 4, 30))]
    return bytes(changed)


def noise(rng: Random, longest: int = 200) -> bytes:
    return rng.randbytes(rng.randrange(longest))
