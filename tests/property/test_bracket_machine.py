import pytest
from hypothesis import Phase, settings
from hypothesis.stateful import run_state_machine_as_test

from otocod.domain import learning
from otocod.domain.machine import OrderEvent
from otocod.domain.orders import Order
from otocod.domain.turn import Turn
from tests.property.bracket_machine import BracketMachine, examples


@pytest.mark.covers("F1", "F2", "F13", "F22", "F23", "F37", "F41", "F47", "F49", "F51", "F54", "F82", "F90", "F123")
def test_bracket_keeps_its_rules_whatever_happens() -> None:
    run_state_machine_as_test(BracketMachine, settings=examples(60, 40))


def test_machine_finds_a_bracket_that_sends_again_after_a_timeout(monkeypatch: pytest.MonkeyPatch) -> None:
    def lost(turn: Turn, order: Order, why: str) -> None:
        if not order.is_known_at_broker and not order.is_terminal:
            turn.tell(order, OrderEvent.DEFER, retries=1, retry_at_us=turn.now_us + 1)

    monkeypatch.setattr(learning, "_lost", lost)
    # That it is found is enough; the smallest such life is not asked for.
    found = settings(examples(300, 40), phases=[Phase.generate], report_multiple_bugs=False, derandomize=True)
    with pytest.raises(AssertionError, match="S2: an identifier is posted twice"):
        run_state_machine_as_test(BracketMachine, settings=found)
