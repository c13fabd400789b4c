"""Every wait of the core, in microseconds, with its reason. None of them is a setting."""

SECOND_US = 1_000_000

# Absence of an order of unknown outcome. An entry may be waited for long, since no position is safe; an exit may not.
ENTRY_WINDOW_US = 120 * SECOND_US
EXIT_WINDOW_US = 10 * SECOND_US
LISTINGS_FOR_ABSENCE = 3
# Without a healthy stream a late order has one way less to be noticed.
STREAMLESS_WINDOW_US = 20 * SECOND_US
STREAMLESS_LISTINGS = 5
# Where the stream has lost a fill only a listing shows it, so none is put off for longer than this.
LONGEST_LISTING_GAP_US = 5 * SECOND_US
# A listing reaches back this far before the acceptance, since two clocks are compared.
LISTING_MARGIN_US = 600 * SECOND_US

# The first message of a fill carries one leg's fills; the rest follow at once.
FILLS_READ_AFTER_US = 300_000
FILLS_GIVEN_UP_AFTER_US = 1 * SECOND_US
# For the record's net prices they are looked for longer, once a second.
FILLS_SOUGHT_FOR_US = 10 * SECOND_US
# Legs out of ratio may be a fill half told: the entry is read, and read again, before a person is.
RATIO_JUDGED_AFTER_US = 3 * SECOND_US

# A native group cancels the sibling by itself; after this we ask.
NATIVE_SIBLING_US = 1 * SECOND_US
# `Contingent` after the trigger's fill is believed after a read of the container, and read again once.
VERIFY_RETRY_US = 1 * SECOND_US
VERIFY_AGAIN_US = 30 * SECOND_US
# In the hands of the broker but not yet acknowledged by the exchange: longer than this it is being held for a session.
RECEIVED_IS_HELD_US = 5 * SECOND_US

# What the broker holds over night: read once a minute after the open, and by then long at the exchange.
NIGHT_CHECK_AFTER_US = 60 * SECOND_US
HELD_AFTER_OPEN_US = 90 * SECOND_US
# An exit that is refused with the market closed goes again this long before the open.
BEFORE_OPEN_US = 60 * SECOND_US
# The next session is told at the close of the one before; hours older than this say nothing.
HOURS_TOLD_LATE_US = 3_600 * SECOND_US
# Before trading stops for good.
LAST_HOUR_US = 3_600 * SECOND_US

# An order that somebody moved, until the one in its place has been seen.
HEIR_ASKED_AGAIN_US = 5 * SECOND_US

CANCEL_REPEAT_US = 2 * SECOND_US
CANCEL_REPEAT_MAX_US = 30 * SECOND_US
CANCEL_TRIES_BEFORE_ALARM = 5

RETRY_FIRST_US = 250_000
RETRY_MAX_US = 5 * SECOND_US

# A watched target has this long to fill in the stop's place; then the stop is put back, and the next try waits.
SWAP_PATIENCE_US = 10 * SECOND_US
SWAP_PAUSE_US = 30 * SECOND_US
SWAP_PAUSE_MAX_US = 600 * SECOND_US
# A watched stop without usable quotes is no stop.
BLIND_STOP_US = 5 * SECOND_US
BLIND_ALARM_US = 60 * SECOND_US

CLOSE_STEP_US = 5 * SECOND_US  # a close at the natural price is priced anew after this
# A close at a price of a person's choice: the stop is away while it works, so it is taken back after this.
CLOSE_PATIENCE_US = 60 * SECOND_US
QUOTE_RETRY_US = 1 * SECOND_US
MOVE_RETRY_MAX_US = 60 * SECOND_US  # a move that is refused again and again
MOVES_BEFORE_CANCEL = 2  # refused for one working close: it is cancelled and sent anew
CLOSE_TRIES_BEFORE_ALARM = 12
CLOSE_RETRY_MAX_US = 60 * SECOND_US  # a close that is refused again and again: most often there is nothing to close

REARMS_BEFORE_LADDER = 2
REARM_PAUSE_US = 1 * SECOND_US  # before the second of them; the first goes at once
# Refused for want of a position that has only just been filled: the broker's own books lag.
POSITION_LAG_US = 1 * SECOND_US
POSITION_DOUBTS_BEFORE_LADDER = 3
# An exit that is taken and ended again seconds later has protected nothing: refusals are forgotten only after this.
FORCE_PROVED_US = 60 * SECOND_US
LIMITS_BEFORE_CLOSE = 3


def backoff_us(tries: int, first_us: int, longest_us: int) -> int:
    """`first_us` doubled for each try after the first, at most `longest_us`."""
    return min(longest_us, first_us << min(max(tries - 1, 0), 20))
