"""otocod: OTOCO brackets for option spreads at tastytrade, as a daemon."""

__version__ = "0.1.0"
