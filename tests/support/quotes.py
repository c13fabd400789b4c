"""A spread's quotes without legs: prices as they pass the gate, and the watch of a stop."""

from decimal import Decimal

from otocod.domain.quotes import SECOND_US, QuoteFault, QuoteReason, SeenLeg, SpreadQuote

START_US = 1_000 * SECOND_US


def at_s(seconds: float) -> int:
    """Microseconds, so many seconds after the start."""
    return START_US + round(seconds * SECOND_US)


def quote(
    natural: str | Decimal, at_us: int, *sequences: int, width: str = "0.10", ages_us: tuple[int, ...] = ()
) -> SpreadQuote:
    """`sequences`: one a leg, of the quote that went in; `ages_us`: how long each has stood, 0 by default."""
    price = Decimal(natural)
    ages = ages_us or (0,) * len(sequences)
    legs = tuple(
        SeenLeg(f"LEG{index}", sequence, at_us - age_us)
        for index, (sequence, age_us) in enumerate(zip(sequences, ages, strict=True))
    )
    far = price - Decimal(width)
    return SpreadQuote(natural=price, far=far, mark=(price + far) / 2, at_us=at_us, generation=1, legs=legs)


def fault(reason: QuoteReason) -> QuoteFault:
    return QuoteFault(reason, reason.value)
