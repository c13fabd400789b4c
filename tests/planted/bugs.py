"""Mistakes that somebody could make in the daemon, one at a time, each a small change of its text.

None of them is a mistake of syntax or of types; each is what the line might have been if one sentence of the design had
been forgotten. The simulation must notice every one of BUGS. UNSEEN are real mistakes that no rule of the checker
speaks of: what they spoil is tested elsewhere.
"""

from dataclasses import dataclass

_LEARNING = "otocod/domain/learning.py"
_ENTERING = "otocod/domain/entering.py"
_SURPLUS = "otocod/domain/surplus.py"
_MOVING = "otocod/domain/moving.py"
_PROTECTING = "otocod/domain/protecting.py"
_FINISHING = "otocod/domain/finishing.py"
_ORDERS = "otocod/domain/orders.py"
_TURN = "otocod/domain/turn.py"
_EXECUTOR = "otocod/engine/executor.py"
_MAILBOX = "otocod/engine/mailbox.py"
_RECONCILER = "otocod/engine/reconciler.py"
_SUPERVISOR = "otocod/engine/supervisor.py"
_INTAKE = "otocod/engine/intake.py"


@dataclass(frozen=True)
class Bug:
    name: str
    file: str
    old: str  # in the file exactly once
    new: str
    why: str  # what somebody may have thought, or forgotten
    under: tuple[str, ...] = ()  # classes of fault without which it makes no difference: other seeds are passed over


_SENDING = (
    Bug(
        "timeout-resent-on-a-new-id",
        _LEARNING,
        "    turn.tell(order, OrderEvent.LOSE, unknown_since_us=turn.now_us, absent_listings=0)\n",
        "    turn.tell(order, OrderEvent.GIVE_UP)\n",
        "no answer is taken for no order: the next id goes out at once",
        under=("answer_lost",),
    ),
    Bug(
        "timeout-resent-on-the-same-id",
        _LEARNING,
        "    turn.tell(order, OrderEvent.LOSE, unknown_since_us=turn.now_us, absent_listings=0)\n",
        "    turn.tell(order, OrderEvent.DEFER, retries=order.retries + 1, retry_at_us=turn.now_us)\n",
        "the external identifier is believed to de-duplicate",
    ),
    Bug(
        "crash-resends-what-was-under-way",
        _LEARNING,
        "    turn.tell(order, OrderEvent.LOSE, unknown_since_us=turn.now_us, absent_listings=0, retry_at_us=None)\n",
        "    turn.put(order, state=OrderState.INTENDED, retry_at_us=turn.now_us)\n",
        "after a crash the intent on disk is sent, as if nothing had left before",
    ),
    Bug(
        "crash-forgets-what-was-under-way",
        _LEARNING,
        "    turn.tell(order, OrderEvent.LOSE, unknown_since_us=turn.now_us, absent_listings=0, retry_at_us=None)\n",
        "    turn.put(order, retry_at_us=None)\n",
        "an order in flight at the crash stays in flight: nobody looks for it",
        under=("crashes",),
    ),
    Bug(
        "suspects-forgotten",
        _LEARNING,
        "    turn.set(suspects=(*turn.bracket.suspects, *suspects), staged=(), suspect_since_us=turn.now_us)\n",
        "    turn.set(staged=(), suspect_since_us=turn.now_us)\n",
        "staged ids of a run that crashed are dropped; that one of them may be working is forgotten",
        under=("crashes",),
    ),
    Bug(
        "suspects-not-waited-for",
        _PROTECTING,
        "    if any(order.state is OrderState.UNKNOWN for order in live) or turn.bracket.suspects:\n"
        "        return  # it may be working",
        "    if any(order.state is OrderState.UNKNOWN for order in live):\n        return  # it may be working",
        "after a crash an exit is sent although one of the last run may be working",
        under=("crashes",),
    ),
    Bug(
        "staged-id-kept-after-use",
        _TURN,
        "                self.set(staged=(*self.bracket.staged[:index], *self.bracket.staged[index + 1 :]))\n",
        "",
        "an id is read off the store of spares and left there",
    ),
    Bug(
        "spares-made-twice",
        _TURN,
        "        self.set(staged=(*self.bracket.staged, *new), ids_made=made + count)\n",
        "        self.set(staged=(*self.bracket.staged, *new))\n",
        "the count of ids made is not kept: once the spares are used up, the same are made again",
    ),
    Bug(
        "sent-beside-the-commit-of-its-id",
        _MAILBOX,
        "            if self._must_wait(bracket_id, command):\n",
        "            if command.after_commit and not isinstance(command, SubmitOrder | SubmitComplex):\n",
        "orders never wait for the disk, so some leave on ids that are not there yet",
        under=("crashes",),
    ),
    Bug(
        "entry-sent-beside-its-acceptance",
        _MAILBOX,
        "        self._on_changed(bracket)\n        change = BracketChange(None,",
        "        self._on_changed(bracket)\n"
        "        for command in decision.commands:\n"
        "            self._run_command(bracket, command)\n"
        "        decision = replace(decision, commands=())\n"
        "        change = BracketChange(None,",
        "the entry leaves while its acceptance is being written: faster, and lost by a crash",
    ),
    Bug(
        "answered-before-the-commit",
        _INTAKE,
        "        self._risk.note_accepted(bracket_id, request)\n",
        "        self._risk.note_accepted(bracket_id, request)\n"
        "        self._queue.answer([RequestAnswer(row.request_id, row.client_ref, bracket_id)])\n",
        "the producer is told ACCEPTED before the bracket is on disk",
    ),
    Bug(
        "refused-exit-sent-again-at-once",
        _PROTECTING,
        "    turn.set(stop_refusals=refusals, retry_exits_at_us=turn.now_us + limit_us)\n",
        "    turn.set(stop_refusals=refusals)\n",
        "the pause between two tries of a refused exit is forgotten",
        under=("refusals",),
    ),
    Bug(
        "refused-mode-tried-for-ever",
        _PROTECTING,
        "    turn.set(ladder=bracket.ladder[1:], rearms=0)\n",
        "    turn.set(rearms=0)\n",
        "a refused group does not step down the ladder",
    ),
    Bug(
        "overtaken-exit-is-resent",
        _ENTERING,
        "        elif _is_overtaken(turn, order) or _is_too_late(turn, order):\n",
        "        elif _is_too_late(turn, order):\n",
        "an exit that was not sent goes again, whatever has been closed since",
        under=("not_sent", "both_exits"),
    ),
)

_KNOWING = (
    Bug(
        "last-message-wins",
        _ORDERS,
        "        views[new.broker_order_id] = new if old is None else old.join(new)\n",
        "        views[new.broker_order_id] = new\n",
        "the newest message replaces what was known",
    ),
    Bug(
        "last-status-wins",
        _ORDERS,
        "        ahead, behind = (self, other) if _progress(self) >= _progress(other) else (other, self)\n",
        "        ahead, behind = other, self\n",
        "fills are joined, but the status is the last one said",
        under=("frames_stale",),
    ),
    Bug(
        "terminal-orders-hear-nothing",
        _LEARNING,
        "    learned = order.learn(report)\n",
        "    learned = order if order.state.is_terminal else order.learn(report)\n",
        "what is over is over: a fill after Cancelled is not read",
        under=("late_fills",),
    ),
    Bug(
        "fills-counted-twice",
        _ORDERS,
        "            fills=tuple(fills[fill_id] for fill_id in sorted(fills)),\n",
        "            fills=tuple(sorted((*self.fills, *other.fills), key=lambda fill: fill.fill_id)),\n",
        "fills are collected, not united by their ids",
    ),
    Bug(
        "filled-sized-by-its-fills",
        _ORDERS,
        "                return max(leg.filled_by_fills, leg.quantity - leg.remaining, shown)\n",
        "                return leg.filled_by_fills if shown else "
        "max(leg.filled_by_fills, leg.quantity - leg.remaining)\n",
        "Filled with one leg's fills is taken for one leg filled",
        under=("odd_rules",),
    ),
    Bug(
        "partial-fills-ignored",
        _ORDERS,
        "                return max(leg.filled_by_fills, leg.quantity - leg.remaining, shown)\n",
        "                return shown\n",
        "only Filled counts as filled",
        under=("partial_fills",),
    ),
    Bug(
        "reduction-taken-for-a-fill",
        _ORDERS,
        "        filled = max(self.quantity - self.remaining, other.quantity - other.remaining)\n",
        "        filled = max(self.quantity, other.quantity) - min(self.remaining, other.remaining)\n",
        "the broker takes a group's sibling down, and as much of it is taken for filled",
        under=("partial_fills",),
    ),
    Bug(
        "replaced-orders-do-not-count",
        _ORDERS,
        "        for view in self.views:\n            total += view.filled(symbol)",
        "        for view in self.heads:\n            total += view.filled(symbol)",
        "what an order had filled before it was replaced is forgotten",
        under=("partial_fills", "operator"),
    ),
    Bug(
        "replaced-by-ignored",
        _ORDERS,
        "            and view.replaced_by not in ids\n",
        "            and view.replaced_by in ids\n",
        "an order moved by hand is taken for cancelled",
        under=("hand_edits",),
    ),
    Bug(
        "lost-intent-not-adopted",
        _LEARNING,
        "    role = bracket.role_of_id(external_identifier)\n    if role is None:\n",
        "    role = bracket.role_of_id(external_identifier)\n    if role is None or role is not Role.ENTRY:\n",
        "an exit at the broker that the record does not know is taken for somebody else's",
        under=("crashes",),
    ),
    Bug(
        "absence-after-three-quick-listings",
        _ENTERING,
        "    return listings >= LISTINGS_FOR_ABSENCE and _listed_after(turn, since_us + window_us)\n",
        "    return listings >= LISTINGS_FOR_ABSENCE\n",
        "the listings are counted and the window is forgotten",
        under=("late_acceptance",),
    ),
    Bug(
        "absence-window-of-an-instant",
        "otocod/domain/timing.py",
        "EXIT_WINDOW_US = 10 * SECOND_US\n",
        "EXIT_WINDOW_US = 10_000\n",
        "seconds taken for milliseconds",
        under=("late_acceptance",),
    ),
    Bug(
        "not-listed-is-cancelled",
        _RECONCILER,
        "                    report: OrderReport = await self._broker.read_order(account, broker_order_id)\n",
        '                    report = OrderReport(broker_order_id, BrokerStatus.CANCELLED, "Cancelled")\n',
        "an order that a listing of working orders does not show is taken for cancelled, and not read",
        under=("frames_dropped",),
    ),
    Bug(
        "no-sweep-on-the-clock",
        _RECONCILER,
        "            for account in self.accounts:\n                await self._sweep(account)\n",
        "            pass\n",
        "the stream is believed to be complete",
        under=("frames_dropped",),
    ),
    Bug(
        "news-dropped-while-the-disk-is-busy",
        _MAILBOX,
        "        before = self.brackets.get(bracket_id)\n        if before is None:\n            return None\n",
        "        before = self.brackets.get(bracket_id)\n"
        "        if before is None or bracket_id in self._last_commit:\n"
        "            return None\n",
        "while a commit is under way no event is taken",
        under=("store_slow",),
    ),
    Bug(
        "failed-commit-not-tried-again",
        _MAILBOX,
        "            self._later(bracket_id, _REJECTED_RETRY_S if is_of_change else _COMMIT_RETRY_S)\n",
        "",
        "what the full disk refused is kept in memory and never written",
        under=("store_full",),
    ),
    Bug(
        "late-commands-lost-with-their-commit",
        _MAILBOX,
        "        unsaved.add(number, change.journal, change.steps)\n        unsaved.late.extend(late)\n",
        "        unsaved.add(number, change.journal, change.steps)\n",
        "what waits for a commit that fails is not kept for the one that succeeds",
        under=("store_full",),
    ),
    Bug(
        "disk-never-recovers",
        _SUPERVISOR,
        '        self._disk_alarm = None\n        log.info("store_recovered")\n',
        '        log.info("store_recovered")\n',
        "intake stops at a full disk and is not opened again",
        under=("store_full",),
    ),
    Bug(
        "wall-clock-durations",
        "otocod/adapters/clock.py",
        "        return utc_ns // 1_000\n\n    @property",
        "        return self._wall_ns() // 1_000\n\n    @property",
        "durations are measured by a clock that is set",
        under=("clock_steps",),
    ),
    Bug(
        "deadline-not-set",
        _MAILBOX,
        "            self._set_deadline(bracket_id, after.wake_at_us)\n",
        "",
        "the stored deadline is not given to the timer",
    ),
    Bug(
        "slot-lost-with-a-failed-request",
        "otocod/engine/slots.py",
        "        try:\n            yield\n        finally:\n            self.give_back()\n",
        "        yield\n        self.give_back()\n",
        "a request that raises does not give its place back",
        under=("reads_fail",),
    ),
    Bug(
        "recovery-decides-and-does-nothing",
        _EXECUTOR,
        "        held, self._held = self._held, None\n",
        "        held, self._held = (), None\n",
        "what was decided while the start listed is dropped",
        under=("crashes",),
    ),
    Bug(
        "crash-taken-for-a-clean-stop",
        _SUPERVISOR,
        '        await self.store.commit(Setting(CLEAN_STOP, "no"))\n',
        "",
        "the mark of a clean stop is not taken away: the crash after it counts as clean too",
        under=("clean_stops", "crashes"),
    ),
    Bug(
        "same-request-twice",
        _INTAKE,
        "        if first is not None:\n            self._answer_repeat(row, first)\n            return True\n",
        "",
        "a row that a producer repeats becomes a bracket of its own",
        under=("repeated_rows",),
    ),
)

_ENTRY = (
    Bug(
        "exits-while-the-entry-works",
        _ENTERING,
        "    elif not entry.is_terminal:\n        _entry_working(turn, entry)\n",
        "    elif not entry.has_any_fill:\n        _entry_working(turn, entry)\n",
        "the first fill of the entry lets the exits go",
        under=("partial_fills",),
    ),
    Bug(
        "grace-never-ends",
        _ENTERING,
        "        else:\n            wants_cancel = True\n",
        "",
        "the rest of a part-filled entry is left working, and the filled part without exits",
        under=("partial_fills",),
    ),
    Bug(
        "exits-for-all-that-was-asked",
        _PROTECTING,
        "    open_units = bracket.open_units\n    if open_units <= 0 or _waits_to_retry(turn):\n",
        "    open_units = bracket.size\n    if open_units <= 0 or _waits_to_retry(turn):\n",
        "exits are sized by the request, not by the fills",
        under=("partial_fills",),
    ),
    Bug(
        "units-by-the-fullest-leg",
        "otocod/domain/spreads.py",
        "    return min(filled_by_symbol.get(leg.symbol, 0) // leg.quantity for leg in ratio_legs(legs))\n",
        "    return max(filled_by_symbol.get(leg.symbol, 0) // leg.quantity for leg in ratio_legs(legs))\n",
        "legs filled unequally count as whole spreads",
        under=("partial_fills",),
    ),
    Bug(
        "part-filled-group-trusted",
        _PROTECTING,
        "    return bracket.entry_units < bracket.size\n",
        "    return False\n",
        "the children of an OTOCO whose trigger filled in part are waited for; they never act",
        under=("partial_fills",),
    ),
    Bug(
        "late-entry-fill-stays-closed",
        _FINISHING,
        "    if is_open and bracket.outcome is Outcome.ENTRY_NOT_FILLED:\n        _reopen(turn)\n    elif",
        "    if",
        "the entry that was given up has filled, and nobody protects it",
        under=("late_fills",),
    ),
)

_EXITS = (
    Bug(
        "strict-flag-forgotten",
        "otocod/domain/exits.py",
        "        automated_source=request.entry.automated_source,\n        strict=True,\n    )\n\n\ndef _target_price",
        "        automated_source=request.entry.automated_source,\n    )\n\n\ndef _target_price",
        "a target may open a position if there is none to close",
    ),
    Bug(
        "sibling-forgotten",
        _FINISHING,
        "            request_cancel(turn, order)\n"
        "        else:\n            turn.wake(flat_since_us + NATIVE_SIBLING_US)\n",
        "            pass\n        else:\n            turn.wake(flat_since_us + NATIVE_SIBLING_US)\n",
        "one exit has filled, the other keeps resting",
    ),
    Bug(
        "cancel-sent-once",
        _ENTERING,
        "            due_us = sent_us + backoff_us(order.cancel_tries, CANCEL_REPEAT_US, CANCEL_REPEAT_MAX_US)\n",
        "            continue\n",
        "a cancel that got lost is not sent again",
        under=("request_lost",),
    ),
    Bug(
        "cancel-not-chased-after-the-end",
        _FINISHING,
        '                "order_resurfaced", f"an order given up has turned up at '
        'the broker ({order.role}): cancelling it"\n'
        "            )\n            request_cancel(turn, order)\n",
        '                "order_resurfaced", f"an order given up has turned up at '
        'the broker ({order.role}): cancelling it"\n'
        "            )\n",
        "an order that was given up turns up, is reported and left working",
        under=("late_entries",),
    ),
    Bug(
        "close-before-the-exits-are-gone",
        _FINISHING,
        "    if _resting(turn.bracket):\n        return\n",
        "",
        "the close leaves with the cancels of the exits, not after their end",
        under=("operator",),
    ),
    Bug(
        "closed-with-an-unknown-order",
        _FINISHING,
        "    if any(not order.is_terminal for order in bracket.orders):\n        _drop_orphans(turn)\n",
        "    if any(not order.is_terminal and order.state is not OrderState.UNKNOWN for order in bracket.orders):\n"
        "        _drop_orphans(turn)\n",
        "an order that may never have existed does not hold up the end",
    ),
    Bug(
        "closed-while-a-cancel-is-under-way",
        _FINISHING,
        "    if any(not order.is_terminal for order in bracket.orders):\n        _drop_orphans(turn)\n",
        "    if any(not order.is_terminal and order.cancel_sent_us is None for order in bracket.orders):\n"
        "        _drop_orphans(turn)\n",
        "a cancel that was sent counts as one that has succeeded",
    ),
    Bug(
        "any-exit-fill-is-the-end",
        _FINISHING,
        "    return has_fill and is_entry_over and all(quantity <= 0 for quantity in bracket.open_by_leg.values())\n",
        "    return has_fill and is_entry_over and any(order.has_any_fill for order in bracket.exits)\n",
        "a part-filled exit counts as a filled one",
        under=("partial_fills",),
    ),
    Bug(
        "double-exit-in-silence",
        _SURPLUS,
        "    return {symbol: -quantity for symbol, quantity in bracket.open_by_leg.items() if quantity < 0}\n",
        "    return {}\n",
        "that more was closed than opened is not looked at",
        under=("both_exits",),
    ),
    Bug(
        "sibling-not-shrunk",
        _PROTECTING,
        "    if covered > open_units:\n        _shrink(turn, live, covered - open_units)\n        return\n",
        "    if covered > open_units:\n        return\n",
        "after a part fill of one exit the other stays as large as it was",
        under=("partial_fills",),
    ),
    Bug(
        "rest-protected-in-full",
        _PROTECTING,
        '    missing = changed(spec, {"legs": scaled_legs(spec.legs, open_units - covered)})\n',
        '    missing = changed(spec, {"legs": scaled_legs(spec.legs, open_units)})\n',
        "what already rests is not taken off what is sent",
        under=("partial_fills",),
    ),
    Bug(
        "target-first",
        _PROTECTING,
        "    return tuple(role for role in asked if role is resting)\n",
        "    return tuple(role for role in asked if role is not resting) or asked\n",
        "where only one exit can rest it is the profit",
    ),
    Bug(
        "doubles-left-alone",
        _ENTERING,
        "        surplus = working if any(view.status.is_terminal for view in filled) else working[1:]\n",
        "        surplus = working[:0]\n",
        "of two orders with one identifier both are left working",
        under=("doubled",),
    ),
    Bug(
        "wrong-container",
        _ENTERING,
        "            order.complex_order_id, tuple(mate.external_identifier for mate in sent_mates),"
        " after_commit=after_commit\n",
        "            turn.bracket.orders[0].complex_order_id or order.complex_order_id,\n"
        "            tuple(mate.external_identifier for mate in sent_mates),\n"
        "            after_commit=after_commit,\n",
        "the cancel of a group goes to the container that the bracket began with",
        under=("partial_fills",),
    ),
    Bug(
        "member-cancelled-without-its-group",
        _ENTERING,
        "                groups.add(order.group)\n                _cancel_group(turn, order)\n            continue\n",
        "                groups.add(order.group)\n",
        "the members of a group are cancelled one by one, as if they were single orders",
    ),
    Bug(
        "move-counted-as-more",
        _MOVING,
        "    if order.replaces is None or order.is_terminal:\n        return False\n",
        "    if order.replaces is None or order.is_terminal or order.role is Role.TARGET:\n        return False\n",
        "a replacement on its way counts beside the order that it replaces",
        under=("exits_moved",),
    ),
    Bug(
        "half-a-group-trusted",
        _PROTECTING,
        '        _leave_group(turn, live, "one exit of the native group ended without a fill")\n',
        "        return\n",
        "one exit of a group has ended without a fill, and the other is left alone for good",
        under=("broker_ends",),
    ),
)

BUGS: tuple[Bug, ...] = (*_SENDING, *_KNOWING, *_ENTRY, *_EXITS)

UNSEEN: tuple[Bug, ...] = (
    Bug(
        "rate-limit-taken-for-a-refusal",
        _LEARNING,
        "    turn.tell(order, OrderEvent.DEFER, retries=retries, retry_at_us=retry_at_us)\n",
        "    turn.tell(order, OrderEvent.REFUSE, refusal=Refusal(429, (), why))\n",
        "429, and every connection that failed, takes a rung of the ladder or gives up the entry",
    ),
    Bug(
        "retries-without-a-pause",
        _LEARNING,
        "    retry_at_us = turn.now_us + backoff_us(retries, RETRY_FIRST_US, RETRY_MAX_US)\n",
        "    retry_at_us = turn.now_us\n",
        "what could not be sent is tried again at once, for as long as it takes",
    ),
    Bug(
        "no-listing-after-a-reconnect",
        _SUPERVISOR,
        "                self.reconciler.ask_all()\n",
        "                pass\n",
        "what was said while the stream was down is left to the sweep",
    ),
    Bug(
        "cancel-before-the-commit",
        _ENTERING,
        "        order.role is not Role.ENTRY and turn.bracket.first_fill_us is not "
        "None and turn.bracket.flat_since_us is None\n",
        "        False\n",
        "an exit is taken away before the reason is on disk",
    ),
    Bug(
        "entry-sent-again-after-its-absence",
        _ENTERING,
        "    keep_forerunner(turn, order)\n    if is_entry and order.role is Role.ENTRY:\n",
        "    keep_forerunner(turn, order)\n    if is_entry and order.role is Role.ENTRY:\n        send_entry(turn)\n",
        "an entry that was given up goes again",
    ),
    Bug(
        "stale-entry-sent",
        _ENTERING,
        "        is_stale = turn.now_us >= bracket.request.not_after_us\n",
        "        is_stale = False\n",
        "an entry that waited for its connection goes however late it is",
    ),
    Bug(
        "contingent-believed",
        _PROTECTING,
        "        case OrderState.CONTINGENT:\n            return _is_verified(turn.bracket, order)\n",
        "        case OrderState.CONTINGENT:\n            return True\n",
        "a child that waits for its trigger is taken for one that is armed",
    ),
    Bug(
        "person-fought",
        _PROTECTING,
        "    return None if head is None or head.status is not BrokerStatus.CANCELLED else head.cancelled_by\n",
        "    return None\n",
        "an exit that a person took away is put back, whatever the request says",
    ),
    Bug(
        "held-is-not-held",
        _PROTECTING,
        "    if turn.bracket.is_held or turn.bracket.close is not None:\n        return\n",
        "    if turn.bracket.close is not None:\n        return\n",
        "a bracket that waits for a person sends exits",
    ),
    Bug(
        "released-is-looked-after",
        _FINISHING,
        "    if bracket.outcome is Outcome.RELEASED:\n        return\n",
        "",
        "the orders of a bracket that was released are cancelled",
    ),
    Bug(
        "alarms-not-raised",
        _EXECUTOR,
        "                self._notifier.alarm(Alarm(self._clock.now_us(), "
        "command.code, command.text, bracket.bracket_id))\n",
        "                pass\n",
        "what a person must know stays in the record",
    ),
    Bug(
        "no-ceiling",
        "otocod/engine/gate.py",
        "        return len(self._sent_us) + promised + min(wanted, ceiling) <= ceiling\n",
        "        return True\n",
        "entries are not held back by orders_per_minute",
    ),
    Bug(
        "operator-change-forgotten",
        _LEARNING,
        "            turn.set(moved=tuple(moved.items()))\n            turn.note",
        "            turn.note",
        "an operator's new price is noted and not kept",
    ),
    Bug(
        "stop-on-the-wrong-side",
        "otocod/domain/exits.py",
        "    raw = _cleaned(-entry_net_price + abs(entry_net_price) * stop.loss_percent / 100)\n",
        "    raw = _cleaned(-entry_net_price - abs(entry_net_price) * stop.loss_percent / 100)\n",
        "the sign of a loss is turned round",
    ),
)
