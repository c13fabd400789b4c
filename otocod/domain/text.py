"""Text from outside, made fit for a terminal, a log and a stored reason."""

import unicodedata

_SHOWN_MAX_CHARACTERS = 60
# Bidirectional controls reorder what a terminal shows, so that a line reads differently from what it says.
_BIDI_CONTROLS = frozenset("\u061c\u200e\u200f\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069")
# Control characters, lone surrogates (no UTF-8 form), line and paragraph separators.
_UNSAFE_CATEGORIES = frozenset({"Cc", "Cs", "Zl", "Zp"})


def unsafe_character(text: str) -> str | None:
    """The first character that must not be stored (control, lone surrogate, line separator, bidi control), or None."""
    if text.isprintable():
        return None  # nearly all text; it is false of every character named above
    for character in text:
        if character in _BIDI_CONTROLS or unicodedata.category(character) in _UNSAFE_CATEGORIES:
            return character
    return None


def shown(text: str, limit: int = _SHOWN_MAX_CHARACTERS) -> str:
    """`text` in double quotes, unprintable characters escaped, cut after `limit` characters."""
    cut = text[:limit]
    escaped = "".join(_escaped(character) for character in cut)
    return f'"{escaped}…"' if len(text) > limit else f'"{escaped}"'


def _escaped(character: str) -> str:
    if character in '"\\':
        return "\\" + character
    return character if character.isprintable() else f"\\u{ord(character):04x}"
