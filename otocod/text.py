"""Text from outside, made fit for a terminal or a log.

Broker messages, queue rows and symbols are written by others. A terminal obeys escape sequences, and a bidirectional
override makes a line read as what it does not say, so neither may pass.
"""

import re

_ELLIPSIS = "…"

# Escape sequences go as a whole: without its ESC, "[2J" would stay as litter. Each alternative stops at the next
# introducer, so the work is linear in the length of hostile text.
_ESCAPES = re.compile(
    r"(?:\x1b\[|\x9b)[0-?]*[ -/]*[@-~]"  # CSI: colours, cursor, erase
    # OSC, DCS, SOS, PM, APC with their text
    r"|(?:\x1b[\]PX^_]|[\x90\x98\x9d\x9e\x9f])[^\x07\x1b\x90\x98\x9c-\x9f]*(?:\x07|\x1b\\|\x9c)"
    r"|\x1b[ -/]*[0-~]"  # two and three characters: reset, character sets
)
_BLANKS = re.compile(r"[\t\n\v\f\r\x85\u2028\u2029]+")


def sanitise(text: str, limit: int = 500) -> str:
    """One line of printable text, at most `limit` characters.

    Escape sequences, control, format, bidirectional, surrogate and private-use characters are dropped; line breaks and
    tabs become one space. What was cut ends in an ellipsis. A second pass changes nothing.
    """
    # Nearly all text is fit as it is; isprintable() is false for every class named above.
    if len(text) <= limit and text.isprintable():
        return text
    # Bounds the work on huge text; four times leaves room for what is dropped.
    bound = 4 * limit + 64
    fit = _only_printable(text[:bound])
    if len(text) <= bound and len(fit) <= limit:
        return fit
    return fit[: max(limit - 1, 0)] + _ELLIPSIS if limit > 0 else ""


def sanitise_lines(text: str, limit: int = 20_000) -> str:
    """As `sanitise`, but keeping line breaks: for tracebacks."""
    cut = text[:limit]
    lines = [_only_printable(line) for line in cut.split("\n")]
    return "\n".join(lines) + (_ELLIPSIS if len(text) > limit else "")


def _only_printable(text: str) -> str:
    unescaped = _BLANKS.sub(" ", _ESCAPES.sub("", text))
    # Spaces other than the plain one are not printable to Python, yet they separate words.
    return "".join(c if c.isprintable() else " " if c.isspace() else "" for c in unescaped)
