"""What must hold of one bracket's record, whatever happened: checked before every write.

The same rules in their full form, held against the broker's own record, are the audit's; that one shares no code with
this.
"""

from otocod.domain.brackets import Bracket, BracketState, Outcome
from otocod.domain.orders import OrderState
from otocod.domain.specs import Role


def violations_of(bracket: Bracket) -> tuple[str, ...]:
    """Empty, or each violation named by its rule."""
    found: list[str] = []
    names = [order.external_identifier for order in bracket.orders]
    if len(set(names)) != len(names):
        found.append("S2: an external identifier is used by two orders")
    staged = {name for _, name in (*bracket.staged, *bracket.suspects)}
    if staged.intersection(names):
        found.append("S2: a used external identifier is staged to be used again")
    for order in bracket.orders:
        if order.role is not Role.ENTRY and not order.spec.strict:
            found.append(f"S7: the {order.role} {order.external_identifier} is not strict")
        if order.role is not Role.ENTRY and any(leg.action.is_opening for leg in order.spec.legs):
            found.append(f"S7: the {order.role} {order.external_identifier} opens")
    if sum(1 for order in bracket.entries if order.has_any_fill) > 1:
        found.append("S3: two entries of one bracket have filled")
    found.extend(_exit_before_entry(bracket))
    found.extend(_closed_too_early(bracket))
    return tuple(found)


def _exit_before_entry(bracket: Bracket) -> list[str]:
    if any(order.has_any_fill for order in bracket.entries):
        return []
    groups = {order.group for order in bracket.entries if order.group is not None}
    return [
        f"S4: the {order.role} {order.external_identifier} was sent before any entry had filled"
        for order in bracket.exits
        # One that the broker has shown may be an earlier run's, and its word may come before that of the fill.
        if not order.views and (order.group is None or order.group not in groups)
    ]


def _closed_too_early(bracket: Bracket) -> list[str]:
    if bracket.state is not BracketState.CLOSED or bracket.outcome in (None, Outcome.RELEASED):
        return []
    if bracket.closed_at_us is None:
        return ["S8: closed without a time"]
    if any(order.state is OrderState.UNKNOWN for order in bracket.orders):
        return ["S8: closed with an unknown outcome"]
    return []
