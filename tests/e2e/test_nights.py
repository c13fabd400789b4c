"""Exits over a closed market, over the real wire: Day exits expire, are sent again, wait, and work in the morning."""

from pathlib import Path

import pytest

from tests.support.processes import TARGET, running

pytestmark = [pytest.mark.slow, pytest.mark.timeout(120)]


@pytest.mark.covers("F56", "F61")
def test_day_exits_expire_wait_as_received_and_work_when_the_market_opens(tmp_path: Path) -> None:
    day = {"time-in-force": "Day"}
    with running(tmp_path) as pair:
        spread = pair.open_bracket(
            "night",
            protection="watched",
            target={"price": "0.40", "price-effect": "Debit"} | day,
            stop={"trigger": "1.70", "price": "1.90", "price-effect": "Debit"} | day,
        )
        (first,) = pair.paper.working(spread)
        assert first["time-in-force"] == "Day"
        pair.paper.rule(sessions="closed")
        pair.paper.act(first, "expire")
        (again,) = pair.paper.working(spread, "Received")
        assert again["external-identifier"] != first["external-identifier"]
        held = pair.daemon.until_bracket(
            "night",
            lambda found: found["state"] == "EXITS_LIVE" and len(found["orders"]) == 3,
            "protected by what is held",
        )
        assert held["attention"] is None
        pair.daemon.audit()
        # Over a night with a restart in it.
        pair.daemon.stop()
        pair.daemon.restart()
        assert pair.daemon.until_state("night", "EXITS_LIVE")["attention"] is None
        pair.paper.rule(sessions="always-open")
        pair.paper.working(spread)
        pair.paper.quote(spread, TARGET)
        assert pair.daemon.until_closed("night")["outcome"] == "TARGET_FILLED"
        pair.check_end()
