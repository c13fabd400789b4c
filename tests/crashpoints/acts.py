"""What the market and people do in the stories, each as an act that is tried until it can be done."""

import json
from collections.abc import Callable, Coroutine
from typing import Any

from otocod.engine.operator import OperatorService
from otocod.ports.admin import JsonObject
from tests.crashpoints.stories import Act
from tests.crashpoints.world import CrashWorld, Errand

BY = "operator"


def _on_order(
    at_s: float, name: str, number: int, kind: str, do: Callable[[CrashWorld, dict[str, Any]], object]
) -> Act:
    """Something that happens to the newest living order of a kind, once there is one that has reached the market."""

    def perform(world: CrashWorld, errand: Errand) -> bool:
        order = world.living(number, kind)
        if order is None or order["status"] not in ("Live", "Contingent"):
            return _is_over(world, number)
        world.act(lambda: do(world, order))
        return True

    return Act(at_s, f"{name} {kind}", perform)


def _is_over(world: CrashWorld, number: int) -> bool:
    """A crash may have brought the bracket to its end before this could happen."""
    ref = world.scenarios[number].client_ref
    return world.life_count > 1 and any(b.client_ref == ref and b.outcome is not None for b in world.disk.brackets())


def part_fills(at_s: float, kind: str, *, number: int = 0, quantity: int | None = 1, one_leg: bool = False) -> Act:
    def do(world: CrashWorld, order: dict[str, Any]) -> object:
        return world.exchange.fill(order["id"], now_us=world.now_us, quantity=quantity, first_leg_only=one_leg)

    return _on_order(at_s, "a fill of", number, kind, do)


def broker_ends(at_s: float, kind: str, how: str, *, number: int = 0) -> Act:
    """how: "cancel", "reject", "expire" or "remove"."""

    def do(world: CrashWorld, order: dict[str, Any]) -> object:
        exchange, order_id, now_us = world.exchange, order["id"], world.now_us
        match how:
            case "cancel":
                return exchange.cancel_by_hand(order_id, now_us=now_us)
            case "reject":
                return exchange.reject(order_id, now_us=now_us, reason="said no")
            case "expire":
                return exchange.expire(order_id, now_us=now_us)
            case _:
                return exchange.remove(order_id, now_us=now_us)

    return _on_order(at_s, f"the broker's {how} of", number, kind, do)


def person_cancels(at_s: float, kind: str, *, number: int = 0) -> Act:
    def do(world: CrashWorld, order: dict[str, Any]) -> object:
        return world.exchange.cancel(world.accounts[0], order["id"], now_us=world.now_us, by="user")

    return _on_order(at_s, "a person's cancel of", number, kind, do)


def person_moves(at_s: float, kind: str, by: float = 0.05, *, number: int = 0) -> Act:
    def do(world: CrashWorld, order: dict[str, Any]) -> object:
        body = {
            "order-type": order["order-type"],
            "time-in-force": order["time-in-force"],
            "price": f"{float(order['price']) + by:.2f}",
        }
        return world.exchange.replace(world.accounts[0], order["id"], body, now_us=world.now_us, by="user", edit=True)

    return _on_order(at_s, "a person's move of", number, kind, do)


def stream_goes(at_s: float, *, unnoticed_s: float = 0.0) -> Act:
    def perform(world: CrashWorld, errand: Errand) -> bool:
        if world.life is not None:
            world.life.streamer.go_down("reset", unnoticed_s=unnoticed_s)
        return True

    return Act(at_s, "the stream ends", perform)


def quotes_go(at_s: float, *, unnoticed_s: float = 0.0) -> Act:
    def perform(world: CrashWorld, errand: Errand) -> bool:
        if world.life is not None and world.life.quotes is not None:
            world.life.quotes.go_down("reset", unnoticed_s=unnoticed_s)
        return True

    return Act(at_s, "the quotes end", perform)


def outage(at_s: float, seconds: float) -> Act:
    def over(world: CrashWorld) -> None:
        world.is_outage = False

    def perform(world: CrashWorld, errand: Errand) -> bool:
        world.is_outage = True
        if world.life is not None:
            world.life.streamer.go_down("outage")
        world.later(seconds, over, world)
        return True

    return Act(at_s, f"an outage of {seconds} s", perform)


def disk_is_full(at_s: float, seconds: float) -> Act:
    def over(world: CrashWorld) -> None:
        world.is_disk_full = False

    def perform(world: CrashWorld, errand: Errand) -> bool:
        world.is_disk_full = True
        world.later(seconds, over, world)
        return True

    return Act(at_s, f"a full disk for {seconds} s", perform)


def stops_in_order(at_s: float, down_s: float = 1.0) -> Act:
    def perform(world: CrashWorld, errand: Errand) -> bool:
        world.stop_in_order(down_s)
        return True

    return Act(at_s, "an orderly stop", perform)


def clock_steps(at_s: float, by_s: float) -> Act:
    def perform(world: CrashWorld, errand: Errand) -> bool:
        world.step_clock(by_s)
        return True

    return Act(at_s, f"the clock steps by {by_s} s", perform)


def rule(at_s: float, **rules: Any) -> Act:
    def perform(world: CrashWorld, errand: Errand) -> bool:
        world.act(lambda: world.rules.patch(rules))
        return True

    return Act(at_s, f"the rules become {rules}", perform)


def row(at_s: float, client_ref: str, text: str, account: str | None = None) -> Act:
    def perform(world: CrashWorld, errand: Errand) -> bool:
        world.insert(client_ref, text, **({} if account is None else {"account": account}))
        return True

    return Act(at_s, f"a row of {client_ref}", perform)


def row_again(at_s: float, *, number: int = 0, **changes: Any) -> Act:
    """The row of a bracket once more, or another request with its key."""

    def perform(world: CrashWorld, errand: Errand) -> bool:
        scenario = world.scenarios[number]
        world.insert_row(scenario, json.dumps({**scenario.request, **changes}))
        return True

    return Act(at_s, "a row again", perform)


def _operator(
    at_s: float, name: str, ask: Callable[[OperatorService, str], Coroutine[Any, Any, JsonObject]], number: int = 0
) -> Act:
    def perform(world: CrashWorld, errand: Errand) -> bool:
        ref = world.scenarios[number].client_ref
        world.ask_operator(errand, name, lambda service: ask(service, ref))
        return errand.is_done

    return Act(at_s, f"operator: {name}", perform)


def closes(at_s: float, at: str = "natural", *, number: int = 0) -> Act:
    return _operator(at_s, "close", lambda service, ref: service.close(ref, at=at, by=BY), number)


def cancels(at_s: float, *, number: int = 0) -> Act:
    return _operator(at_s, "cancel", lambda service, ref: service.cancel(ref, by=BY), number)


def releases(at_s: float, *, number: int = 0) -> Act:
    return _operator(at_s, "release", lambda service, ref: service.release(ref, by=BY), number)


def changes(at_s: float, *, target: str | None = None, stop: tuple[str, str] | None = None, number: int = 0) -> Act:
    return _operator(at_s, "change", lambda service, ref: service.change(ref, target=target, stop=stop, by=BY), number)


def acknowledges(at_s: float, *, number: int = 0) -> Act:
    return _operator(at_s, "ack", lambda service, ref: service.ack(ref, by=BY), number)


def unfreezes(at_s: float, *, number: int = 0) -> Act:
    return _operator(at_s, "unfreeze", lambda service, ref: service.unfreeze(ref, by=BY), number)


def halts(at_s: float) -> Act:
    return _operator(at_s, "halt", lambda service, _: service.halt(reason="lunch", by=BY))


def resumes(at_s: float) -> Act:
    return _operator(at_s, "resume", lambda service, _: service.resume(by=BY))


def reconciles(at_s: float) -> Act:
    return _operator(at_s, "reconcile", lambda service, _: service.reconcile(dry_run=False, by=BY))
