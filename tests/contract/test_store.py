"""What every Store must do, whatever it is made of."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

import pytest

from otocod.adapters.sqlite.store import SqliteStore
from otocod.domain.brackets import BracketState
from otocod.domain.ids import AccountNumber, BracketId, ExternalIdentifier
from otocod.domain.orders import OrderState
from otocod.domain.specs import Protection, Role
from otocod.ports.store import Alarm, Capability, Delivery, Setting, Store, StoreFailed
from tests.support.model_store import ModelStore
from tests.support.state_file import fresh_state
from tests.support.stored_records import (
    ACCOUNT,
    accepted,
    change,
    changes_of_life,
    closed,
    entry_filled,
    life,
    protected,
)


@pytest.fixture(params=["model", "sqlite"])
async def store(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Store]:
    if request.param == "model":
        yield ModelStore()
        return
    opened = await SqliteStore.open(fresh_state(tmp_path))
    try:
        yield opened
    finally:
        await opened.close()


async def test_an_accepted_bracket_is_open_and_read_back_equal(store: Store) -> None:
    bracket = accepted()
    await store.commit(change(None, bracket))
    assert await store.load_open() == (bracket,)
    assert await store.bracket(bracket.bracket_id) == bracket


async def test_every_stage_of_a_life_is_read_back_equal(store: Store) -> None:
    for step in changes_of_life():
        await store.commit(step)
        assert await store.bracket(step.after.bracket_id) == step.after


async def test_open_brackets_come_oldest_first_and_closed_ones_not_at_all(store: Store) -> None:
    for number in (3, 1, 2):
        await store.commit(change(None, accepted(number)))
    for step in changes_of_life(9):
        await store.commit(step)
    assert [bracket.client_ref for bracket in await store.load_open()] == ["ref-1", "ref-2", "ref-3"]


async def test_a_closed_bracket_that_is_reopened_is_open_again(store: Store) -> None:
    for step in changes_of_life():
        await store.commit(step)
    last = life()[-1]
    reopened = replace(last, state=BracketState.ENTRY_FILLED, outcome=None, attention="a late fill", version=9)
    await store.commit(change(last, reopened))
    assert await store.load_open() == (reopened,)


async def test_changes_handed_over_together_take_place_in_order(store: Store) -> None:
    futures = [store.commit(step) for step in changes_of_life()]
    await asyncio.gather(*futures)
    assert await store.bracket(life()[-1].bracket_id) == life()[-1]


async def test_a_stale_version_is_refused_alone(store: Store) -> None:
    first, neighbour = accepted(1), accepted(2)
    await store.commit(change(None, first))
    good = entry_filled(first)
    futures = [store.commit(c) for c in (change(first, good), change(first, protected(good)), change(None, neighbour))]
    results = await asyncio.gather(*futures, return_exceptions=True)
    assert [type(result) for result in results[::2]] == [type(None)] * 2
    assert isinstance(results[1], StoreFailed)
    assert await store.load_open() == (good, neighbour)


async def test_what_follows_a_refused_change_of_the_same_bracket_is_refused_too(store: Store) -> None:
    first = accepted()
    await store.commit(change(None, first))
    bad = replace(entry_filled(first), state=BracketState.CLOSED, outcome=None)
    results = await asyncio.gather(
        store.commit(change(first, bad)), store.commit(change(bad, protected(bad))), return_exceptions=True
    )
    assert all(isinstance(result, StoreFailed) for result in results)
    assert await store.load_open() == (first,)


async def test_a_client_ref_makes_one_bracket_only(store: Store) -> None:
    first = accepted(1)
    second = replace(accepted(2), client_ref=first.client_ref)
    results = await asyncio.gather(
        store.commit(change(None, first)), store.commit(change(None, second)), return_exceptions=True
    )
    assert results[0] is None
    assert isinstance(results[1], StoreFailed)
    assert await store.bracket_of_ref(first.client_ref) == (first.bracket_id, ACCOUNT, first.request.text)
    assert await store.bracket(second.bracket_id) is None


async def test_an_id_of_another_bracket_is_refused(store: Store) -> None:
    first, second = accepted(1), accepted(2)
    await store.commit(change(None, first))
    thief = replace(second, staged=(*second.staged, first.staged[0]))
    with pytest.raises(StoreFailed):
        await store.commit(change(None, thief))
    assert await store.bracket_of(first.staged[0][1]) == first.bracket_id


async def test_an_id_that_was_used_or_dropped_is_never_staged_again(store: Store) -> None:
    for step in changes_of_life():
        await store.commit(step)
    last = life()[-1]
    for name in (last.orders[1].external_identifier, accepted().staged[0][1]):
        again = replace(
            last,
            orders=tuple(order for order in last.orders if order.external_identifier != name),
            staged=((Role.TARGET, name),),
            version=last.version + 1,
        )
        with pytest.raises(StoreFailed):
            await store.commit(change(last, again))


async def test_a_second_filled_entry_is_refused(store: Store) -> None:
    first = accepted()
    await store.commit(change(None, first))
    filled = entry_filled(first)
    spare = next(name for role, name in filled.staged if role is Role.ENTRY)
    double = replace(filled.orders[0], external_identifier=spare, views=(), state=OrderState.FILLED)
    twice = replace(filled, orders=(*filled.orders, double), staged=())
    with pytest.raises(StoreFailed):
        await store.commit(change(first, twice))
    assert await store.bracket(first.bracket_id) == first


async def test_every_id_ever_made_leads_to_its_bracket(store: Store) -> None:
    for step in changes_of_life():
        await store.commit(step)
    first = accepted()
    made = [first.orders[0].external_identifier, *(name for _, name in first.staged)]
    assert [await store.bracket_of(name) for name in made] == [first.bracket_id] * 12
    assert await store.bracket_of(ExternalIdentifier("not ours")) is None


async def test_staged_ids_keep_their_order_when_more_are_made_and_some_used(store: Store) -> None:
    first = accepted()
    more = ((Role.STOP, ExternalIdentifier("zz-1")), (Role.STOP, ExternalIdentifier("aa-2")))
    second = replace(first, staged=(*first.staged[3:], *more), version=1)
    third = replace(second, staged=(*second.staged[1:], (Role.STOP, ExternalIdentifier("00-3"))), version=2)
    for step in (change(None, first), change(first, second), change(second, third)):
        await store.commit(step)
    assert await store.load_open() == (third,)


async def test_staged_ids_that_became_suspect_are_read_back_as_suspects(store: Store) -> None:
    first = accepted()
    await store.commit(change(None, first))
    suspicious = replace(first, staged=(), suspects=first.staged, suspect_since_us=5, version=1)
    await store.commit(change(first, suspicious))
    assert await store.load_open() == (suspicious,)


async def test_a_dropped_id_that_shows_up_as_an_order_is_taken(store: Store) -> None:
    first = accepted()
    name = first.staged[0][1]
    dropped = replace(first, staged=first.staged[1:], version=1)
    late = replace(first.orders[0], external_identifier=name, state=OrderState.WORKING)
    found = replace(dropped, orders=(*dropped.orders, late), version=2)
    for step in (change(None, first), change(first, dropped), change(dropped, found)):
        await store.commit(step)
    assert await store.load_open() == (found,)


async def test_unknown_brackets_and_keys_are_none(store: Store) -> None:
    assert await store.bracket(BracketId("nothing")) is None
    assert await store.bracket_of_ref("nothing") is None
    assert await store.load_open() == ()


async def test_the_last_value_of_a_setting_wins(store: Store) -> None:
    for name, value in (("halt", "yes"), ("clean", "1"), ("halt", "")):
        await store.commit(Setting(name, value))
    assert await store.settings() == {"halt": "", "clean": "1"}


async def test_a_capability_is_replaced_by_what_was_proved_later(store: Store) -> None:
    old = Capability(ACCOUNT, "spread", Protection.NATIVE_OCO, True, "dry-run", 1)
    new = replace(old, is_accepted=False, evidence="refused", at_us=2)
    other = Capability(AccountNumber("5WT00002"), "spread", Protection.NATIVE_OCO, True, "dry-run", 1)
    for capability in (old, other, new):
        await store.commit(capability)
    assert list(await store.capabilities()) == [new, other]


async def test_an_alarm_about_an_unknown_bracket_is_taken(store: Store) -> None:
    await store.commit(Alarm(1, "store_failed", "could not be written", BracketId("unknown")))


async def test_a_cancelled_future_cancels_nothing(store: Store) -> None:
    bracket = accepted()
    store.commit(change(None, bracket)).cancel()
    await store.commit(Setting("after", "1"))
    assert await store.load_open() == (bracket,)


async def test_a_change_without_journal_entries_is_taken(store: Store) -> None:
    first = accepted()
    await store.commit(change(None, first))
    known = replace(first, attention="look", version=1)
    await store.commit(change(first, known, journal=()))
    assert await store.load_open() == (known,)


async def test_close_commits_what_was_handed_over_and_takes_nothing_after(store: Store) -> None:
    futures = [store.commit(step) for step in changes_of_life()[:3]]
    await store.close()
    assert all(future.done() and future.exception() is None for future in futures)
    with pytest.raises(StoreFailed):
        await store.commit(Setting("late", "1"))
    await store.close()


async def test_a_close_whose_caller_is_cancelled_still_closes(store: Store) -> None:
    future = store.commit(change(None, accepted()))
    closing = asyncio.create_task(store.close())
    await asyncio.sleep(0)
    closing.cancel()
    with suppress(asyncio.CancelledError):
        await closing
    await store.close()
    assert future.exception() is None


async def test_a_bracket_may_close_reopen_and_close_again(store: Store) -> None:
    stages = life()
    again = replace(stages[-1], state=BracketState.EXITS_LIVE, outcome=None, version=4)
    final = replace(closed(stages[2]), version=5, closed_at_us=7)
    for before, after in zip([None, *stages, again], [*stages, again, final], strict=True):
        await store.commit(change(before, after))
    assert await store.bracket(final.bracket_id) == final
    assert await store.load_open() == ()


async def test_what_became_of_an_alarm_may_be_recorded_again_and_again(store: Store) -> None:
    await store.commit(Alarm(1, "frozen", "look"))
    await store.commit(Delivery(1, "webhook", "WAITING", 1, 2, "HTTP 500"))
    await store.commit(Delivery(1, "webhook", "DELIVERED", 2, 3))
