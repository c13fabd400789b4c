"""What the faults make of one request, one listing or one frame: a plan, decided before anything is done.

`plan_request` draws the request's fate once, in a fixed order; the first fault that strikes decides, so at most one
fate is drawn, while slowness and the order of answer and stream combine with it. `plan_frame` does the same for a
streamer message, where several faults may combine. The plans are values; the shell carries them out.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Literal

from otocod.paper.answers import Json
from otocod.paper.fault_catalogue import Setting
from otocod.paper.faults import Faults, Subject

Answer = Literal["normal", "silence", "reset", "error", "truncated", "html", "empty", "wrong_echo"]
Ordering = Literal["natural", "stream_first", "stream_last"]


@dataclass(frozen=True, slots=True)
class RequestPlan:
    """How one request is treated."""

    fault: str | None = None  # the one that decided, for the truth log
    carry_out: bool = True
    twice: bool = False
    show_second: bool = False  # of a replayed request, whose answer is shown
    before_ms: int = 0  # wait before carrying out
    detached: bool = False  # the carrying out does not hold up the answer
    after_ms: int = 0  # wait between carrying out and answering
    answer: Answer = "normal"
    status: int = 500  # of an error answer
    html: bool = False
    code: str = "internal_server_error"
    hold_ms: int = 0  # how long a silent answer keeps the connection
    ordering: Ordering = "natural"
    ordering_ms: int = 0
    kill_tokens: bool = False


UNDISTURBED = RequestPlan()


def subject_of_request(method: str, path: str, body: object) -> Subject:
    """What `match` can see of a request; a complex order shows its trigger, else its first member."""
    order = body if isinstance(body, Mapping) else {}
    if "legs" not in order:
        members = order.get("orders")
        order = order.get("trigger-order") or (members[0] if isinstance(members, list) and members else order)
    subject = {"method": method, "path": path}
    if isinstance(order, Mapping):
        subject |= subject_of_order(order)
    return subject


def subject_of_order(order: Mapping[str, object]) -> dict[str, str]:
    legs = order.get("legs")
    actions = (
        {str(leg.get("action", "")) for leg in legs if isinstance(leg, Mapping)} if isinstance(legs, list) else set()
    )
    effects = {action.rpartition(" ")[2].lower() for action in actions}
    return {
        "order_type": str(order.get("order-type", "")),
        "effect": effects.pop() if len(effects) == 1 else ("mixed" if effects else ""),
        "external_identifier": str(order.get("external-identifier", "")),
        "status": str(order.get("status", "")),
    }


def plan_request(faults: Faults, subject: Subject) -> RequestPlan:
    if not faults.armed:
        return UNDISTURBED
    plan = _fate(faults, subject)
    slow = faults.strike("slow", subject)
    if slow:
        delay_ms = int(slow["delay_ms"])
        if slow["where"] == "before":
            plan = replace(plan, before_ms=max(plan.before_ms, delay_ms), fault=plan.fault or "slow")
        else:
            plan = replace(plan, after_ms=delay_ms, fault=plan.fault or "slow")
    for ordering in ("stream_first", "stream_last"):
        held = faults.strike(ordering, subject)
        if held:
            plan = replace(plan, ordering=ordering, ordering_ms=int(held["delay_ms"]), fault=plan.fault or ordering)
            break
    return plan


def _fate(faults: Faults, subject: Subject) -> RequestPlan:
    for name in _FATES:
        settings = faults.strike(name, subject)
        if settings is not None:
            return _plan_of(name, settings)
    return UNDISTURBED


def _plan_of(name: str, settings: Mapping[str, Setting]) -> RequestPlan:
    fixed = _FATES[name]
    plan = replace(
        fixed,
        fault=name,
        status=int(settings.get("status", fixed.status)),
        html=bool(settings.get("html", fixed.html)),
        hold_ms=int(settings.get("hold_ms", 0)),
    )
    if name == "late_acceptance":
        plan = replace(plan, before_ms=int(settings["delay_ms"]))
        if settings["answer"] == "502":
            plan = replace(plan, answer="error", status=502, html=True)
    if name == "duplicated":
        plan = replace(plan, show_second=settings["answer"] == "second")
    return plan


_FATES: Mapping[str, RequestPlan] = {
    "token_death": RequestPlan(carry_out=False, answer="error", status=401, code="unauthorized", kill_tokens=True),
    "unauthorized": RequestPlan(carry_out=False, answer="error", status=401, code="unauthorized"),
    "request_reset": RequestPlan(carry_out=False, answer="reset"),
    "request_lost": RequestPlan(carry_out=False, answer="silence"),
    "too_many_requests": RequestPlan(carry_out=False, answer="error", status=429, code="too_many_requests"),
    "unavailable": RequestPlan(carry_out=False, answer="error", status=503, code="service_unavailable"),
    "error_before": RequestPlan(carry_out=False, answer="error"),
    "late_acceptance": RequestPlan(detached=True, answer="silence"),
    "duplicated": RequestPlan(twice=True),
    "answer_lost": RequestPlan(answer="silence"),
    "answer_reset": RequestPlan(answer="reset"),
    "error_after": RequestPlan(answer="error"),
    "body_truncated": RequestPlan(answer="truncated"),
    "body_html": RequestPlan(answer="html"),
    "body_empty": RequestPlan(answer="empty"),
    "wrong_echo": RequestPlan(answer="wrong_echo"),
}


def wrong_echo(data: Json) -> Json:
    """The same answer about some other order. Works on an order, and on the nested answers to submissions."""
    shown = copy.deepcopy(data)
    for order in _orders_in(shown):
        if isinstance(order.get("id"), int):
            order["id"] = int(str(order["id"])) + 1_000_000
        if "external-identifier" in order:
            order["external-identifier"] = "00000000-0000-4000-8000-000000000000"
    return shown


def _orders_in(data: Json) -> list[Json]:
    found = [data] if "legs" in data else []
    for key in ("order", "complex-order", "trigger-order"):
        inner = data.get(key)
        if isinstance(inner, dict):
            found += [inner, *_orders_in(inner)] if "legs" not in inner else [inner]
    members = data.get("orders")
    if isinstance(members, list):
        found += [member for member in members if isinstance(member, dict)]
    return found


@dataclass(frozen=True, slots=True)
class FramePlan:
    """How one streamer message is treated."""

    faults: tuple[str, ...] = ()
    copies: int = 1
    delay_ms: int = 0
    behind_next: bool = False  # sent after the next message, `delay_ms` later at the latest
    wrapped: bool = False
    unknown_before: bool = False
    garbage_before: bool = False
    stale_after: bool = False
    status: str | None = None
    without_fills: bool = False


PLAIN_FRAME = FramePlan()
_FRAME_FAULTS: Mapping[str, Mapping[str, object]] = {
    "frame_doubled": {"copies": 2},
    "frame_wrapped": {"wrapped": True},
    "frame_unknown_type": {"unknown_before": True},
    "frame_garbage": {"garbage_before": True},
    "frame_stale": {"stale_after": True},
    "frame_fills_missing": {"without_fills": True},
}


def plan_frame(faults: Faults, kind: str, account: str, data: Mapping[str, object]) -> FramePlan:
    if not faults.armed:
        return PLAIN_FRAME
    subject = {"type": kind, "account": account, **subject_of_order(data)}
    if faults.strike("frame_lost", subject) is not None:
        return FramePlan(faults=("frame_lost",), copies=0)
    names: list[str] = []
    changes: dict[str, object] = {}
    for name, change in _FRAME_FAULTS.items():
        if faults.strike(name, subject) is not None:
            names.append(name)
            changes |= change
    unknown = faults.strike("frame_unknown_status", subject) if kind == "Order" else None
    if unknown:
        names.append("frame_unknown_status")
        changes["status"] = str(unknown["value"])
    for name in ("frame_delayed", "frame_reordered"):
        late = faults.strike(name, subject)
        if late:
            names.append(name)
            changes |= {"delay_ms": int(late["delay_ms"]), "behind_next": name == "frame_reordered"}
            break
    return replace(PLAIN_FRAME, faults=tuple(names), **changes) if names else PLAIN_FRAME  # type: ignore[arg-type]


def disfigured(data: Mapping[str, object], plan: FramePlan) -> Mapping[str, object]:
    """The message's data as the plan wants it shown."""
    if plan.status is None and not plan.without_fills:
        return data
    shown = dict(data)
    if plan.status is not None:
        shown["status"] = plan.status
    legs = shown.get("legs")
    if plan.without_fills and isinstance(legs, list):
        shown["legs"] = [{**leg, "fills": []} for leg in legs]
    return shown
