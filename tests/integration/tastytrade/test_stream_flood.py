import asyncio
import json

import pytest

from otocod.ports.broker import StreamEvent, StreamOrder, StreamUp
from tests.integration.tastytrade.test_streamer import streaming
from tests.support.tastytrade import payload

MESSAGES = 5_000


@pytest.mark.covers("F29")
async def test_flood_is_taken_at_the_readers_pace_in_order_and_whole_and_the_loop_goes_on() -> None:
    """There is no queue of ours to overflow: what is not read yet waits in the socket, and so with the sender."""
    seen: list[int] = []
    is_up, is_over = asyncio.Event(), asyncio.Event()

    def take(event: StreamEvent) -> None:
        if isinstance(event, StreamUp):
            is_up.set()
        elif isinstance(event, StreamOrder):
            seen.append(int(event.report.broker_order_id))
            if len(seen) == MESSAGES:
                is_over.set()

    async with streaming(on_event=take) as rig:
        peer = await rig.peer()
        await peer.accept()
        await asyncio.wait_for(is_up.wait(), 5)
        message = payload("stream_order_partial_fill")
        turns = 0

        async def breathe() -> None:
            nonlocal turns
            while not is_over.is_set():
                await asyncio.sleep(0)
                turns += 1

        breathing = asyncio.create_task(breathe())
        for number in range(1, MESSAGES + 1):
            await peer.connection.send(json.dumps(message | {"data": message["data"] | {"id": number}}))
        await asyncio.wait_for(is_over.wait(), 30)
        await breathing
    assert seen == list(range(1, MESSAGES + 1))
    assert turns > 10, "nothing else had its turn"
