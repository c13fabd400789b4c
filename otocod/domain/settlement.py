"""How an option position ends without a trade, in the broker's own words."""

from enum import StrEnum


class Settlement(StrEnum):
    """`transaction-sub-type` of a `Receive Deliver` row of the broker's ledger."""

    EXPIRATION = "Expiration"
    ASSIGNMENT = "Assignment"
    EXERCISE = "Exercise"
    CASH_SETTLED_ASSIGNMENT = "Cash Settled Assignment"
    CASH_SETTLED_EXERCISE = "Cash Settled Exercise"

    @property
    def delivers(self) -> bool:
        """Whether shares, or a future, stand in the account afterwards, or are gone from it."""
        return self in (Settlement.ASSIGNMENT, Settlement.EXERCISE)
