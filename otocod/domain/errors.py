"""Errors of the core.

DomainError
├── UnexpectedEvent     a state machine was told something its table does not know: our bug or a new broker habit
└── InvariantViolated   a record that must not exist: our bug; the decision is dropped, the bracket freezes
"""


class DomainError(Exception):
    pass


class UnexpectedEvent(DomainError):
    def __init__(self, *, state: str, event: str) -> None:
        super().__init__(f"event {event!r} is not expected in state {state}")
        self.state = state
        self.event = event


class InvariantViolated(DomainError):
    def __init__(self, violations: tuple[str, ...]) -> None:
        super().__init__("; ".join(violations))
        self.violations = violations
