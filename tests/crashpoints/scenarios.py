"""The stories, by name. Times in seconds: the daemon is ready at 0.4, rows come at 0.6, and the market leaves a crash
and the recovery from it room before its next move.
"""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from otocod.domain.brackets import OnDoubleExit, OnUnprotectable
from tests.crashpoints import acts
from tests.crashpoints.stories import Act, Ending, Fault, Reaction, Story, bracket
from tests.crashpoints.world import CrashWorld
from tests.simulation.scenarios import Scenario

Moves = Sequence[tuple[float, str]]

TARGET, STOP = Ending("TARGET_FILLED"), Ending("STOP_FILLED")
UNFILLED, OPEN = Ending("ENTRY_NOT_FILLED"), Ending("EXITS_LIVE")
BY_OPERATOR = Ending("CLOSED_BY_OPERATOR")
# Released while it is looked for, an entry that never left is nobody's any more.
RELEASED = Ending("RELEASED", unfilled=("RELEASED",))
# Fills as it arrives, later, and what comes then.
AT_ONCE: Moves = ((0.0, "fill"),)
LATE: Moves = ((2.0, "fill"),)
NO_GROUPS = {"native_otoco_spreads": False, "native_oco_spreads": False}


_STEPS = {"start": "mid", "step": "0.01", "every-s": 1}


def _to(level: str, before: Moves = LATE, at_s: float = 6.0) -> Moves:
    return (*before, (at_s, level))


def _fills(world: CrashWorld, order_id: int) -> None:
    world.act(lambda: world.exchange.fill(order_id, now_us=world.now_us))


def _one(name: str, found: Scenario, ending: Ending, *happens: Act, active_s: float = 8.0, **more: Any) -> Story:
    rules = dict(more.pop("rules", {}))
    if found.protection == "unlinked":
        rules.setdefault("reservation", False)  # or the second exit is refused, and it is not unlinked any more
    return Story(name, (found,), (ending,), active_s, acts=happens, rules=rules, **more)


def _endings_by_mode() -> list[Story]:
    stories = []
    for mode in ("native-otoco", "native-oco", "unlinked", "watched", "auto"):
        for level, ending in (("target", TARGET), ("stop", STOP)):
            wanted = OPEN if (mode, level) == ("watched", "target") else ending
            stories.append(_one(f"{mode}-{level}", bracket(protection=mode, moves=_to(level)), wanted))
    return stories


def _shapes() -> list[Story]:
    at_once = _to("target", AT_ONCE, 5.0)
    return [
        _one("at-once-otoco", bracket(protection="native-otoco", moves=at_once), TARGET),
        _one("at-once-oco", bracket(protection="native-oco", moves=at_once), TARGET),
        _one("at-once-unlinked", bracket(protection="unlinked", moves=_to("stop", AT_ONCE, 5.0)), STOP),
        _one("debit-target", bracket("debit vertical", protection="native-oco", moves=_to("target")), TARGET),
        _one("debit-stop", bracket("debit vertical", protection="unlinked", moves=_to("stop")), STOP),
        _one("condor-target", bracket("condor", units=2, moves=_to("target")), TARGET),
        _one("condor-stop", bracket("condor", protection="watched", moves=_to("stop")), STOP),
        _one("ratio-target", bracket("ratio", units=2, protection="native-oco", moves=_to("target")), TARGET),
        _one("long-option-target", bracket("long option", moves=_to("target")), TARGET),
        _one("short-option-stop-market", bracket("short option", market_stop=True, moves=_to("stop")), STOP),
        _one("percent-oco", bracket(protection="native-oco", percent=True, moves=_to("target")), TARGET),
        _one(
            "percent-unlinked", bracket("debit vertical", protection="unlinked", percent=True, moves=_to("stop")), STOP
        ),
        _one("percent-auto", bracket(percent=True, units=3, moves=_to("stop")), STOP),
        _one("stop-only", bracket(only="stop", moves=_to("stop")), STOP),
        _one("target-only", bracket(only="target", moves=_to("target")), TARGET),
        _one(
            "five-units-in-parts",
            bracket(units=5, protection="unlinked", moves=_to("target", LATE, 8.0)),
            TARGET,
            active_s=10.0,
            rules={"max_units_per_fill": 2, "fill_gap_ms": 300},
        ),
    ]


def _entries() -> list[Story]:
    return [
        _one(
            "entry-in-two-parts",
            bracket(units=3, protection="native-oco", moves=((3.0, "fill"), (7.0, "target"))),
            TARGET,
            acts.part_fills(2.0, "entry"),
            active_s=9.0,
        ),
        _one(
            "entry-part-filled-unlinked",
            bracket(units=3, protection="unlinked", moves=((9.0, "stop"),)),
            STOP,
            acts.part_fills(2.0, "entry", quantity=2),
            active_s=11.0,
        ),
        _one(
            "entry-part-filled-oco",
            bracket(units=3, protection="native-oco", moves=((9.0, "target"),)),
            TARGET,
            acts.part_fills(2.0, "entry"),
            active_s=11.0,
        ),
        _one(
            "entry-part-filled-otoco",
            bracket(units=3, protection="native-otoco", moves=((11.0, "target"),)),
            TARGET,
            acts.part_fills(2.0, "entry"),
            active_s=13.0,
        ),
        _one(
            "entry-part-filled-and-filled-in-its-cancel",
            bracket(units=3, protection="unlinked"),
            OPEN,
            acts.part_fills(2.0, "entry"),
            reactions=(Reaction("entry", "Cancel Requested", _fills),),
        ),
        _one("entry-never-fills", bracket(), UNFILLED, acts.broker_ends(4.0, "entry", "expire"), active_s=5.0),
        _one("entry-rests", bracket(protection="native-oco", tif="GTC"), Ending("PENDING_ENTRY"), active_s=5.0),
        _one(
            "entry-rejected",
            bracket(protection="unlinked"),
            UNFILLED,
            acts.broker_ends(2.0, "entry", "reject"),
            active_s=4.0,
        ),
        _one(
            "entry-refused",
            bracket(protection="native-oco"),
            UNFILLED,
            active_s=4.0,
            rules={"account_state": "closing-only"},
        ),
        _one(
            "entry-expires-part-filled",
            bracket(units=3, grace_s=30, protection="native-oco"),
            OPEN,
            acts.part_fills(2.0, "entry"),
            acts.broker_ends(4.0, "entry", "expire"),
        ),
        _one(
            "entry-one-leg-first",
            bracket(protection="unlinked", moves=_to("target")),
            TARGET,
            rules={"leg_gap_ms": 700},
        ),
        _one("operator-cancels-entry", bracket(), UNFILLED, acts.cancels(2.0), active_s=5.0),
        _one(
            "operator-cancels-otoco-entry",
            bracket(protection="native-otoco"),
            UNFILLED,
            acts.cancels(2.0),
            active_s=5.0,
        ),
        _one(
            "operator-cancels-part-filled-entry",
            bracket(units=3, grace_s=30, protection="unlinked"),
            OPEN,
            acts.part_fills(2.0, "entry"),
            acts.cancels(4.0),
        ),
        _one(
            "operator-cancels-entry-that-fills",
            bracket(protection="native-oco"),
            Ending("EXITS_LIVE"),
            acts.cancels(2.0),
            reactions=(Reaction("entry", "Cancel Requested", _fills),),
        ),
    ]


def _exits() -> list[Story]:
    return [
        _one(
            "target-in-parts-unlinked",
            bracket(units=3, protection="unlinked", moves=((2.0, "fill"), (9.0, "target"))),
            TARGET,
            acts.part_fills(6.0, "limit"),
            active_s=11.0,
        ),
        _one(
            "target-in-parts-oco",
            bracket(units=3, protection="native-oco", moves=((2.0, "fill"), (9.0, "target"))),
            TARGET,
            acts.part_fills(6.0, "limit"),
            active_s=11.0,
        ),
        _one(
            "gap-then-operator-closes",
            bracket(protection="watched", moves=_to("gap")),
            BY_OPERATOR,
            acts.closes(9.0),
            active_s=12.0,
        ),
        _one(
            "gap-then-operator-closes-oco",
            bracket(protection="native-oco", moves=_to("gap")),
            BY_OPERATOR,
            acts.closes(9.0),
            active_s=12.0,
        ),
        _one("gap-and-back", bracket(protection="unlinked", moves=(*_to("gap"), (9.0, "stop"))), STOP, active_s=11.0),
        _one(
            "stop-fills-in-its-cancel",
            bracket(protection="unlinked", moves=_to("target", LATE, 15.0)),
            Ending("DOUBLE_EXIT"),
            reactions=(Reaction("stop", "Cancel Requested", _fills),),
            both_may_fill=True,
            active_s=17.0,
        ),
        _one(
            "stop-fills-in-its-cancel-flatten",
            bracket(protection="unlinked", moves=_to("target", LATE, 15.0)),
            Ending("DOUBLE_EXIT"),
            reactions=(Reaction("stop", "Cancel Requested", _fills),),
            both_may_fill=True,
            active_s=17.0,
            settings={"on_double_exit": OnDoubleExit.FLATTEN},
        ),
        _one(
            "day-exits-expire",
            bracket(protection="unlinked", exit_tif="Day", moves=_to("target", LATE, 11.0)),
            TARGET,
            acts.broker_ends(5.0, "limit", "expire"),
            acts.broker_ends(5.5, "stop", "expire"),
            active_s=13.0,
        ),
        _one(
            "broker-cancels-stop",
            bracket(protection="watched", moves=_to("stop", LATE, 9.0)),
            STOP,
            acts.broker_ends(5.0, "stop", "cancel"),
            active_s=11.0,
        ),
        _one(
            "broker-cancels-member",
            bracket(protection="native-oco", moves=_to("stop", LATE, 12.0)),
            STOP,
            acts.broker_ends(5.0, "limit", "cancel"),
            active_s=14.0,
        ),
        _one(
            "broker-removes-member-and-sibling",
            bracket(protection="native-oco", moves=LATE),
            OPEN,
            acts.broker_ends(5.0, "limit", "remove"),
            rules={"member_end": "cancel-sibling"},
            active_s=10.0,
        ),
        _one(
            "sibling-cancelled-late",
            bracket(protection="native-oco", moves=_to("target")),
            TARGET,
            rules={"oco_cancel_delay_ms": 1500},
        ),
        _one(
            "position-record-lags",
            bracket(protection="native-oco", moves=_to("stop", LATE, 9.0)),
            STOP,
            rules={"position_lag_ms": 1500},
            active_s=11.0,
        ),
    ]


def _operators() -> list[Story]:
    return [
        *(
            _one(f"operator-closes-{mode}", bracket(protection=mode, moves=LATE), BY_OPERATOR, acts.closes(5.0))
            for mode in ("native-otoco", "native-oco", "unlinked", "watched")
        ),
        _one(
            "operator-closes-at-price",
            bracket(protection="native-oco", moves=LATE),
            BY_OPERATOR,
            acts.closes(5.0, "0.95"),
            active_s=9.0,
        ),
        _one(
            "operator-closes-at-price-not-met",
            bracket(protection="unlinked", moves=LATE),
            OPEN,
            acts.closes(5.0, "0.45"),
            active_s=75.0,
        ),
        _one("operator-closes-pending", bracket(protection="native-oco"), UNFILLED, acts.closes(2.0), active_s=5.0),
        _one(
            "target-fills-while-cancelled-for-close",
            bracket(protection="unlinked", moves=LATE),
            TARGET,
            acts.closes(16.0),
            reactions=(Reaction("limit", "Cancel Requested", _fills),),
            active_s=18.0,
        ),
        _one(
            "stop-fills-while-cancelled-for-close",
            bracket(protection="watched", moves=LATE),
            STOP,
            acts.closes(16.0),
            reactions=(Reaction("stop", "Cancel Requested", _fills),),
            active_s=18.0,
        ),
        _one("operator-releases-oco", bracket(protection="native-oco", moves=LATE), RELEASED, acts.releases(5.0)),
        _one("operator-releases-unlinked", bracket(protection="unlinked", moves=LATE), RELEASED, acts.releases(5.0)),
        _one(
            "operator-changes-target",
            bracket(protection="unlinked", moves=_to("target", LATE, 9.0)),
            TARGET,
            acts.changes(5.0, target="0.45"),
            active_s=11.0,
        ),
        _one(
            "operator-changes-both-in-group",
            bracket(protection="native-oco", moves=_to("stop", LATE, 9.0)),
            STOP,
            acts.changes(5.0, target="0.45", stop=("1.75", "1.95")),
            active_s=11.0,
        ),
        _one(
            "operator-changes-stop",
            bracket(protection="watched", moves=_to("stop", LATE, 9.0)),
            STOP,
            acts.changes(5.0, stop=("1.75", "1.95")),
            active_s=11.0,
        ),
        _one(
            "operator-halts-and-resumes",
            bracket(protection="native-oco", at_s=3.0, moves=_to("target", AT_ONCE, 9.0)),
            TARGET,
            acts.halts(1.0),
            acts.resumes(5.0),
            active_s=11.0,
        ),
        _one(
            "operator-reconciles", bracket(protection="unlinked", moves=LATE), OPEN, acts.reconciles(5.0), active_s=7.0
        ),
    ]


def _people() -> list[Story]:
    return [
        _one(
            "person-cancels-stop-hold",
            bracket(protection="unlinked", outside="hold", moves=LATE),
            Ending("ENTRY_FILLED", filled=("EXITS_LIVE",)),
            acts.person_cancels(5.0, "stop"),
            active_s=10.0,
        ),
        _one(
            "person-cancels-stop-restore",
            bracket(protection="unlinked", outside="restore", moves=LATE),
            OPEN,
            acts.person_cancels(5.0, "stop"),
            active_s=10.0,
        ),
        _one(
            "person-cancels-stop-release",
            bracket(protection="unlinked", outside="release", moves=LATE),
            RELEASED,
            acts.person_cancels(5.0, "stop"),
            active_s=10.0,
        ),
        _one(
            "person-cancels-stop-flatten",
            bracket(protection="unlinked", outside="flatten", moves=LATE),
            Ending("CLOSED_OUTSIDE"),
            acts.person_cancels(5.0, "stop"),
            active_s=10.0,
        ),
        _one(
            "person-cancels-entry",
            bracket(protection="native-otoco"),
            UNFILLED,
            acts.person_cancels(2.0, "entry"),
            active_s=5.0,
            rules={"member_cancel": "both"},
        ),
        _one(
            "person-moves-target",
            bracket(protection="unlinked", moves=_to("target", LATE, 9.0)),
            TARGET,
            acts.person_moves(5.0, "limit"),
            active_s=11.0,
        ),
        _one(
            "person-moves-stop",
            bracket(protection="watched", moves=_to("stop", LATE, 9.0)),
            STOP,
            acts.person_moves(5.0, "stop"),
            active_s=11.0,
        ),
    ]


def _rungs() -> list[Story]:
    no_otoco = {"native_otoco_spreads": False}
    return [
        _one("otoco-refused", bracket(protection="native-otoco", moves=_to("target")), TARGET, rules=no_otoco),
        _one("groups-refused", bracket(protection="native-otoco", moves=_to("stop")), STOP, rules=NO_GROUPS),
        _one("auto-groups-refused", bracket(moves=_to("stop")), STOP, rules=NO_GROUPS),
        _one("oco-refused", bracket(protection="native-oco", moves=_to("stop")), STOP, rules=NO_GROUPS),
        _one("strict-children-refused", bracket(moves=_to("target")), TARGET, rules={"strict_on_children": False}),
        _one("unlinked-refused", bracket(protection="unlinked", moves=_to("stop")), STOP, rules={"reservation": True}),
        _one(
            "stop-refused-beyond-trigger",
            bracket(protection="watched", moves=((2.0, "fill"), (2.005, "stop"))),
            Ending("STOP_FILLED"),
            rules={"stop_through_market": "refuse"},
            active_s=30.0,
        ),
        _one(
            "stop-refused-and-alert",
            bracket(protection="watched", moves=((2.0, "fill"), (2.005, "stop"))),
            STOP,
            acts.rule(20.0, stop_through_market="accept"),
            rules={"stop_through_market": "refuse"},
            settings={"on_unprotectable": OnUnprotectable.ALERT},
            active_s=30.0,
        ),
        _one(
            "stops-cancelled-after-routing",
            bracket(protection="watched", moves=_to("stop", LATE, 20.0)),
            STOP,
            acts.rule(10.0, spread_stop_cancel_ms=0),
            rules={"spread_stop_cancel_ms": 300},
            active_s=22.0,
        ),
    ]


def _wires() -> list[Story]:
    """Faults on the way, so that a crash meets an outcome that is not known, or a send that waits."""

    def faulty(name: str, mode: str, fault: Fault, level: str = "target", at_s: float = 6.0, **more: Any) -> Story:
        ending = more.pop("ending", TARGET if level == "target" else STOP)
        return _one(
            name,
            bracket(protection=mode, moves=_to(level, LATE, at_s)),
            ending,
            faults=(fault,),
            active_s=at_s + 2.0,
            **more,
        )

    return [
        faulty("entry-answer-lost", "unlinked", Fault("answer_lost", "^submit entry"), at_s=16.0),
        faulty("entry-502-late", "native-oco", Fault("late_502", "^submit entry"), at_s=9.0),
        faulty(
            "entry-500-not-accepted",
            "native-oco",
            Fault("error_before", "^submit entry"),
            at_s=10.0,
            ending=Ending("ENTRY_NOT_FILLED", filled=("TARGET_FILLED",)),
        ),
        faulty("entry-500-accepted", "native-oco", Fault("error_after", "^submit entry")),
        faulty("otoco-answer-lost", "native-otoco", Fault("answer_lost", "^submit_complex entry"), at_s=16.0),
        faulty("otoco-garbage", "native-otoco", Fault("garbage", "^submit_complex entry")),
        faulty("entry-429-twice", "native-oco", Fault("rate_limited", "^submit entry", times=2)),
        faulty("entry-no-connection", "unlinked", Fault("not_sent", "^submit entry"), "stop"),
        faulty("oco-answer-lost", "native-oco", Fault("answer_lost", "^submit_complex target stop"), at_s=16.0),
        faulty("oco-late-502", "native-oco", Fault("late_502", "^submit_complex target stop"), at_s=16.0),
        faulty("oco-late-timeout", "native-oco", Fault("late_timeout", "^submit_complex target stop"), at_s=18.0),
        faulty("oco-request-lost", "native-oco", Fault("request_lost", "^submit_complex target stop"), at_s=32.0),
        faulty("oco-429-twice", "native-oco", Fault("rate_limited", "^submit_complex target stop", times=2)),
        faulty("stop-request-lost", "unlinked", Fault("request_lost", "^submit stop"), "stop", at_s=32.0),
        faulty("stop-500-accepted", "unlinked", Fault("error_after", "^submit stop"), "stop", at_s=16.0),
        faulty("stop-late-502", "watched", Fault("late_502", "^submit stop"), "stop", at_s=16.0),
        faulty(
            "stop-doubled", "watched", Fault("doubled", "^submit stop"), "stop", at_s=16.0, rules={"reservation": False}
        ),
        faulty("entry-doubled", "unlinked", Fault("doubled", "^submit entry"), at_s=9.0),
        faulty("target-no-connection", "unlinked", Fault("not_sent", "^submit target", times=2)),
        faulty("sibling-cancel-lost", "unlinked", Fault("request_lost", "^cancel stop"), at_s=6.0),
        faulty("sibling-cancel-late", "unlinked", Fault("late_502", "^cancel stop")),
        faulty("first-listing-fails", "native-oco", Fault("reads_fail", "read search", times=2)),
        faulty(
            "fill-frame-lost",
            "native-oco",
            Fault("frames_dropped", "frame Order entry", times=9),
            at_s=16.0,
            settings={"reconcile_interval_s": 3.0},
        ),
        faulty(
            "exit-frames-lost",
            "unlinked",
            Fault("frames_dropped", "frame Order limit Filled", times=2),
            settings={"reconcile_interval_s": 3.0},
        ),
        faulty("slow-disk", "native-oco", Fault("store_slow", "commit", times=4)),
        faulty("disk-fails-for-good", "unlinked", Fault("store_dies", "commit .*EntryFilled"), at_s=16.0),
    ]


def _surroundings() -> list[Story]:
    return [
        _one(
            "stream-drops-before-fill",
            bracket(protection="native-oco", moves=_to("target", ((2.1, "fill"),), 9.0)),
            TARGET,
            acts.stream_goes(2.0),
            active_s=11.0,
        ),
        _one(
            "stream-drops-before-exit",
            bracket(protection="unlinked", moves=_to("target", LATE, 6.1)),
            TARGET,
            acts.stream_goes(6.0),
            active_s=10.0,
        ),
        _one(
            "stream-silent",
            bracket(protection="unlinked", moves=_to("stop", ((2.1, "fill"),), 16.0)),
            STOP,
            acts.stream_goes(2.0, unnoticed_s=6.0),
            active_s=18.0,
            settings={"reconcile_interval_s": 5.0},
        ),
        _one(
            "outage-around-fill",
            bracket(protection="native-oco", moves=_to("target", ((2.1, "fill"),), 16.0)),
            TARGET,
            acts.outage(2.0, 5.0),
            active_s=18.0,
        ),
        _one(
            "outage-around-exit",
            bracket(protection="unlinked", moves=_to("stop", LATE, 6.1)),
            STOP,
            acts.outage(6.0, 5.0),
            active_s=16.0,
        ),
        _one(
            "outage-before-row",
            bracket(protection="native-oco", at_s=1.5, moves=_to("target", AT_ONCE, 16.0)),
            TARGET,
            acts.outage(1.0, 4.0),
            active_s=18.0,
        ),
        _one(
            "disk-full-around-fill",
            bracket(protection="native-oco", moves=_to("target", ((2.1, "fill"),), 9.0)),
            TARGET,
            acts.disk_is_full(2.0, 3.0),
            active_s=11.0,
        ),
        _one(
            "disk-full-around-row",
            bracket(protection="unlinked", at_s=1.5, moves=_to("target", AT_ONCE, 9.0)),
            TARGET,
            acts.disk_is_full(1.0, 2.5),
            active_s=11.0,
        ),
        _one(
            "orderly-stop-pending",
            bracket(protection="native-oco", moves=_to("target", ((3.0, "fill"),), 9.0)),
            TARGET,
            acts.stops_in_order(2.0, 2.0),
            active_s=11.0,
        ),
        _one(
            "orderly-stop-live",
            bracket(protection="unlinked", moves=_to("target", LATE, 6.0)),
            TARGET,
            acts.stops_in_order(5.0, 2.0),
            active_s=11.0,
        ),
        _one(
            "orderly-stop-just-filled",
            bracket(protection="unlinked", moves=_to("stop", LATE, 16.0)),
            STOP,
            acts.stops_in_order(2.005, 1.0),
            active_s=18.0,
        ),
        _one(
            "clock-back-an-hour",
            bracket(protection="unlinked", moves=_to("target", LATE, 7.0)),
            TARGET,
            acts.clock_steps(4.0, -3600.0),
            active_s=9.0,
        ),
        _one(
            "listings-lag",
            bracket(protection="native-oco", moves=_to("target", LATE, 16.0)),
            TARGET,
            rules={"read_lag_ms": 600},
            active_s=18.0,
        ),
    ]


def _watched() -> list[Story]:
    """With quotes: the exit that does not rest is watched, and sent when its price is there."""
    found = [
        _one("quotes-target", bracket(protection="watched", moves=_to("target")), TARGET),
        _one("quotes-stop", bracket(protection="watched", moves=_to("stop")), STOP),
        _one("quotes-rest-target-stop", bracket(protection="watched", rest="target", moves=_to("stop")), STOP),
        _one("quotes-rest-target-target", bracket(protection="watched", rest="target", moves=_to("target")), TARGET),
        _one(
            "quotes-target-gone-again",
            bracket(protection="watched", moves=(*_to("target"), (6.04, "neutral"))),
            Ending("EXITS_LIVE", filled=("TARGET_FILLED",)),
            active_s=20.0,
        ),
        _one(
            "quotes-stop-fills-in-its-cancel",
            bracket(protection="watched", moves=_to("target", LATE, 16.0)),
            STOP,
            reactions=(Reaction("stop", "Cancel Requested", _fills),),
            active_s=18.0,
        ),
        _one(
            "quotes-groups-refused",
            bracket(protection="native-otoco", units=2, moves=_to("target")),
            TARGET,
            rules=NO_GROUPS,
        ),
        _one(
            "quotes-drop",
            bracket(protection="watched", moves=_to("target", LATE, 14.0)),
            TARGET,
            acts.quotes_go(5.0),
            active_s=16.0,
        ),
        _one(
            "quotes-drop-while-stop-is-watched",
            bracket(protection="watched", rest="target", moves=_to("stop", LATE, 20.0)),
            STOP,
            acts.quotes_go(5.0),
            active_s=22.0,
        ),
        _one(
            "quotes-operator-closes",
            bracket(protection="watched", rest="target", moves=LATE),
            BY_OPERATOR,
            acts.closes(5.0),
        ),
        _one(
            "quotes-watched-target-lost",
            bracket(protection="watched", moves=_to("target")),
            TARGET,
            faults=(Fault("answer_lost", "^submit target"),),
        ),
        _one(
            "quotes-watched-target-502-late",
            bracket(protection="watched", moves=_to("target")),
            TARGET,
            faults=(Fault("late_502", "^submit target"),),
        ),
        _one("quotes-condor", bracket("condor", protection="watched", percent=True, moves=_to("target")), TARGET),
    ]
    found += [
        _one(
            f"quotes-jumped-{mode}",
            bracket(protection=mode, moves=_to("gap"), walk={"stop": _STEPS | {"cap-offset": "1.00"}}),
            STOP,
            active_s=14.0,
        )
        for mode in ("watched", "native-oco", "unlinked")
    ]
    found += [
        _one(
            "quotes-target-walks",
            bracket(protection="watched", moves=_to("target"), walk={"target": _STEPS | {"replaces": 5}}),
            TARGET,
            active_s=12.0,
        )
    ]
    return [replace(story, has_feed=True) for story in found]


def _several() -> list[Story]:
    first = bracket(protection="native-oco", moves=_to("target", LATE, 7.0))
    bad = '{"version": 1, "entry": {'
    return [
        Story(
            "two-brackets",
            (
                bracket(number=0, protection="native-oco", moves=_to("target")),
                bracket("debit vertical", number=1, protection="unlinked", at_s=0.7, moves=_to("stop", LATE, 7.0)),
            ),
            (TARGET, STOP),
            9.0,
            rules={"reservation": False},
        ),
        Story(
            "two-brackets-on-one-symbol",
            (
                first,
                bracket(number=1, protection="unlinked", at_s=3.5, strikes_from=0),
            ),
            (TARGET, Ending("REJECTED")),
            9.0,
            rows={"ref-0": ("accepted",), "ref-1": ("rejected",)},
        ),
        Story(
            "same-row-twice",
            (first,),
            (TARGET,),
            9.0,
            acts=(acts.row_again(0.605), acts.row_again(3.0)),
            rows={"ref-0": ("accepted",) * 3},
        ),
        Story(
            "same-key-other-request",
            (first,),
            (TARGET,),
            9.0,
            acts=(acts.row_again(0.605, protection="unlinked"), acts.row_again(3.0, tags={"x": "y"})),
            rows={"ref-0": ("accepted", "rejected", "rejected")},
        ),
        Story(
            "bad-rows",
            (first,),
            (TARGET,),
            9.0,
            acts=(
                acts.row(0.55, "bad-json", bad),
                acts.row(0.6, "bad-key", '{"version": 1, "entri": {}}'),
                acts.row(0.62, "bad-account", "{}", "5WT99999"),
            ),
            rows={"bad-json": ("rejected",), "bad-key": ("rejected",), "bad-account": ("rejected",)},
        ),
    ]


def _all() -> dict[str, Story]:
    parts = (
        _endings_by_mode(),
        _shapes(),
        _entries(),
        _exits(),
        _operators(),
        _people(),
        _rungs(),
        _wires(),
        _surroundings(),
        _watched(),
        _several(),
    )
    stories = [story for part in parts for story in part]
    found = {story.name: story for story in stories}
    assert len(found) == len(stories), "two stories of one name"
    return found


STORIES = _all()

# Whose second crashes are enumerated as well.
PAIRED = (
    "native-otoco-target",
    "native-oco-target",
    "unlinked-target",
    "watched-stop",
    "entry-part-filled-unlinked",
    "entry-answer-lost",
    "oco-late-502",
    "stop-fills-in-its-cancel",
    "operator-closes-native-oco",
    "operator-changes-target",
    "groups-refused",
    "orderly-stop-live",
)
