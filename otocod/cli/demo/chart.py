"""Net prices over time as text: braille dots for the price, lines for entry, target and stop."""

from collections.abc import Sequence

_BRAILLE = 0x2800
# Bits of the dots of a braille cell, [column][row from the top].
_DOTS = ((0x01, 0x02, 0x04, 0x40), (0x08, 0x10, 0x20, 0x80))
_COLUMNS, _ROWS = 2, 4
_LEVEL = "┈"


def chart(prices: Sequence[float], levels: Sequence[tuple[str, float]], *, width: int, height: int) -> list[str]:
    """`height` lines of `width` characters. prices: in order, evenly spaced; the newest is at the right.

    levels: (label of one character, price); each level's line begins with its label and ends with its price.
    """
    named = [price for _, price in levels]
    low, high = min([*named, *prices]), max([*named, *prices])
    span = (high - low) or 1.0
    margin = span * 0.06
    low, span = low - margin, span + 2 * margin
    tag_width = max(len(f"{price:.2f}") for price in named) + 1
    inner = max(width - 2 - tag_width, 4)

    def row_of(price: float) -> int:
        """In dots, 0 at the top."""
        return min(height * _ROWS - 1, max(0, int((high + margin - price) / span * height * _ROWS)))

    dots = [[0] * inner for _ in range(height)]
    before: int | None = None
    for x, price in enumerate(_sampled(prices, inner * _COLUMNS)):
        row = row_of(price)
        # Joined to the point before, so that a jump is a stroke and not a gap.
        first, last = sorted((row, row if before is None else before))
        for y in range(first, last + 1):
            dots[y // _ROWS][x // _COLUMNS] |= _DOTS[x % _COLUMNS][y % _ROWS]
        before = row
    labels: dict[int, list[tuple[str, float]]] = {}
    for label, price in levels:
        labels.setdefault(row_of(price) // _ROWS, []).append((label, price))
    return [_line(cells, labels.get(y, ()), tag_width) for y, cells in enumerate(dots)]


def _line(cells: Sequence[int], labels: Sequence[tuple[str, float]], tag_width: int) -> str:
    label = labels[0][0] if labels else " "
    tag = f"{labels[0][1]:.2f}" if labels else ""
    blank = _LEVEL if labels else " "
    drawn = "".join(chr(_BRAILLE + cell) if cell else blank for cell in cells)
    return f"{label} {drawn}{tag:>{tag_width}}"


def _sampled(prices: Sequence[float], points: int) -> list[float]:
    """At most `points` prices; more are thinned out evenly, the last always kept."""
    if len(prices) <= points:
        return list(prices)
    step = (len(prices) - 1) / (points - 1)
    return [prices[round(index * step)] for index in range(points)]


def gauge(price: float | None, *, entry: float, target: float, stop: float, width: int) -> str:
    """One line from target (left) to stop (right): `T┈┈┈┈●┈┈E┈┈┈┈┈┈┈┈S`."""
    low, high = (target, stop) if target < stop else (-target, -stop)
    sign = 1 if target < stop else -1
    span = (high - low) or 1.0

    def column(value: float) -> int:
        return min(width - 1, max(0, round((value * sign - low) / span * (width - 1))))

    cells = [_LEVEL] * width
    cells[0], cells[-1] = "T", "S"
    cells[column(entry)] = "E"
    if price is not None:
        cells[column(price)] = "●"
    return "".join(cells)
