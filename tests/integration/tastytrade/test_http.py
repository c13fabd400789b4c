"""One exchange over a real socket: how far the request got, whatever the peer does with the connection."""

import asyncio
import shutil
import socket
import ssl
import subprocess
import threading
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import pytest
import uvloop

from otocod.adapters.tastytrade.errors import MaybeSent, NeverSent
from otocod.adapters.tastytrade.http import Timeouts, Transport
from tests.support.tastytrade import ManualClock

OK = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"


class Peer:
    """Answers each request with the next of `answers`, as bytes; None closes the connection without a word."""

    def __init__(self) -> None:
        self.answers: list[bytes | None] = []
        self.requests: list[bytes] = []
        self.connections = 0
        self.closes_after = 0  # which request; 0: none
        self.arrived = asyncio.Event()
        self.ended = asyncio.Event()  # the client has let go of a connection
        self.go_on = asyncio.Event()
        self.go_on.set()
        self.writers: list[asyncio.StreamWriter] = []
        self._server: asyncio.Server | None = None

    async def __aenter__(self) -> "Peer":
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", 0)
        return self

    @property
    def url(self) -> str:
        assert self._server is not None
        return f"http://127.0.0.1:{self._server.sockets[0].getsockname()[1]}"

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        self.writers.append(writer)
        try:
            while True:
                self.requests.append(await reader.readuntil(b"\r\n\r\n"))
                self.arrived.set()
                await self.go_on.wait()
                answer = self.answers.pop(0)
                if answer is None:
                    return
                for part in answer.split(b"|"):
                    writer.write(part)
                    await writer.drain()
                if len(self.requests) == self.closes_after:
                    return
        except (asyncio.IncompleteReadError, ConnectionError):
            self.ended.set()
        finally:
            writer.close()

    async def __aexit__(self, *_: object) -> None:
        assert self._server is not None
        self._server.close()
        for writer in self.writers:
            writer.close()
        await self._server.wait_closed()


@pytest.fixture
async def peer() -> AsyncIterator[Peer]:
    async with Peer() as made:
        yield made


@pytest.fixture
async def transport(peer: Peer) -> AsyncIterator[Transport]:
    made = Transport(peer.url, ManualClock(), timeouts=Timeouts(connect_s=2.0, answer_s=5.0))
    yield made
    await made.close()


async def get(transport: Transport) -> tuple[int, bytes]:
    answer = await transport.exchange("GET", "/x", bearer="Bearer t")
    return answer.http_status, answer.body


# Answers that are one.


@pytest.mark.parametrize(
    ("answer", "status", "body"),
    [
        (b"HTTP/1.1 200 OK\r\nContent-|Length: 4\r\n\r\nab|cd", 200, b"abcd"),
        (b"HTTP/1.1 201 Created\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nab\r\n|2\r\ncd\r\n0\r\n\r\n", 201, b"abcd"),
        (b"HTTP/1.1 204 No Content\r\n\r\n", 204, b""),
        (b"HTTP/1.1 100 Continue\r\n\r\n|" + OK, 200, b"ok"),
        (b"HTTP/1.1 103 Early Hints\r\nDate: early\r\n\r\n" + OK, 200, b"ok"),
    ],
    ids=["in pieces", "chunked", "empty", "after a 100", "after a 103"],
)
async def test_an_answer_is_read_whole_however_it_comes_and_its_connection_is_used_again(
    peer: Peer, transport: Transport, answer: bytes, status: int, body: bytes
) -> None:
    peer.answers = [answer, OK]
    assert await get(transport) == (status, body)
    assert await get(transport) == (200, b"ok")
    assert peer.connections == 1


async def test_a_connection_that_the_peer_wants_closed_is_not_used_again(peer: Peer, transport: Transport) -> None:
    peer.answers = [OK.replace(b"OK\r\n", b"OK\r\nConnection: close\r\n"), OK]
    assert [await get(transport), await get(transport)] == [(200, b"ok")] * 2
    assert peer.connections == 2


async def test_a_connection_that_was_idle_for_too_long_is_not_used_again(
    peer: Peer, transport: Transport, monkeypatch: pytest.MonkeyPatch
) -> None:
    peer.answers = [OK, OK]
    await get(transport)
    monkeypatch.setattr("otocod.adapters.tastytrade.http._KEEP_ALIVE_S", -1.0)
    await get(transport)
    assert peer.connections == 2
    await asyncio.wait_for(peer.ended.wait(), 5)


async def test_a_connection_that_the_peer_closes_while_idle_is_replaced(peer: Peer, transport: Transport) -> None:
    peer.answers = [OK, OK]
    await get(transport)
    peer.writers[0].write_eof()
    await asyncio.wait_for(peer.ended.wait(), 5)
    assert await get(transport) == (200, b"ok")
    assert peer.connections == 2


# Answers that are none.


@pytest.mark.covers("F9", "F19")
@pytest.mark.parametrize(
    "answer",
    [
        None,
        b"HTTP/1.1 200 OK\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nab",
        b"HTTP/1.1 200 OK\r\n\r\nwhoever knows where this ends",
        b"SSH-2.0-OpenSSH_9.2\r\n",
        b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: x\r\nConnection: upgrade\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nContent-Length: 3\r\n\r\nabc",
        OK + b"HTTP/1.1 500 Oops\r\nContent-Length: 0\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: 40000000\r\n\r\n" + b"x" * (32 * 1024 * 1024 + 1),
    ],
    ids=[
        "nothing",
        "half a head",
        "cut short",
        "no length",
        "no HTTP",
        "another protocol",
        "two framings",
        "two lengths",
        "two answers",
        "too large",
    ],
)
async def test_what_cannot_be_told_from_another_answer_is_none(
    peer: Peer, transport: Transport, answer: bytes | None
) -> None:
    peer.answers = [answer, OK]
    peer.closes_after = 1
    with pytest.raises(MaybeSent):
        await asyncio.wait_for(get(transport), 5)
    assert await get(transport) == (200, b"ok")
    assert peer.connections == 2


@pytest.mark.covers("F19")
async def test_bytes_that_nobody_asked_for_are_not_the_next_answer(peer: Peer, transport: Transport) -> None:
    peer.answers = [OK, OK.replace(b"ok", b"no")]
    await get(transport)
    peer.writers[0].write(OK)
    await asyncio.wait_for(peer.ended.wait(), 5)
    assert await get(transport) == (200, b"no")
    assert peer.connections == 2


async def test_no_answer_in_time_ends_the_connection(peer: Peer) -> None:
    transport = Transport(peer.url, ManualClock(), timeouts=Timeouts(connect_s=2.0, answer_s=0.05))
    peer.go_on.clear()
    with pytest.raises(MaybeSent, match="timed out"):
        await get(transport)
    peer.answers = [OK, OK]
    peer.go_on.set()
    assert await get(transport) == (200, b"ok")
    assert peer.connections == 2
    await transport.close()


# How many, and who waits.


async def test_more_exchanges_than_connections_wait_their_turn(peer: Peer, transport: Transport) -> None:
    peer.go_on.clear()
    peer.answers = [OK] * 25
    asked = [transport.ask("GET", "/x", bearer=None) for _ in range(25)]
    while len(peer.requests) < 20:
        peer.arrived.clear()
        await asyncio.wait_for(peer.arrived.wait(), 5)
    peer.go_on.set()
    answers = await asyncio.wait_for(asyncio.gather(*asked), 5)
    assert [answer.body for answer in answers] == [b"ok"] * 25
    assert peer.connections == 20


@pytest.mark.covers("F83")
async def test_an_exchange_that_never_gets_its_turn_was_never_sent(peer: Peer) -> None:
    transport = Transport(peer.url, ManualClock(), timeouts=Timeouts(connect_s=0.2, answer_s=5.0))
    peer.go_on.clear()
    peer.answers = [OK] * 20
    asked = [transport.ask("GET", "/x", bearer=None) for _ in range(20)]
    with pytest.raises(NeverSent, match="timed out"):
        await get(transport)
    peer.go_on.set()
    await asyncio.wait_for(asyncio.gather(*asked), 5)
    await transport.close()


async def test_whoever_stops_waiting_for_an_answer_does_not_give_it_to_the_next(
    peer: Peer, transport: Transport
) -> None:
    peer.go_on.clear()
    peer.answers = [OK.replace(b"ok", b"no"), OK]
    asked = transport.ask("GET", "/x", bearer=None)
    await asyncio.wait_for(peer.arrived.wait(), 5)
    asked.cancel()
    peer.go_on.set()
    assert await get(transport) == (200, b"ok")


async def test_closing_tells_whoever_waits(peer: Peer) -> None:
    transport = Transport(peer.url, ManualClock(), timeouts=Timeouts())
    peer.go_on.clear()
    sent = transport.ask("GET", "/x", bearer=None)
    await asyncio.wait_for(peer.arrived.wait(), 5)
    connecting = transport.ask("GET", "/x", bearer=None)
    await transport.close()
    with pytest.raises(MaybeSent):
        await sent
    with pytest.raises(NeverSent):
        await connecting
    peer.answers = [None]
    peer.go_on.set()


# At once.


def _certificate(directory: Path) -> ssl.SSLContext:
    """A server's side for `localhost`, whose certificate this process is to trust."""
    key, certificate = directory / "key.pem", directory / "certificate.pem"
    asked = "openssl req -x509 -newkey rsa:2048 -nodes -days 1 -subj /CN=localhost -addext subjectAltName=DNS:localhost"
    subprocess.run([*asked.split(), "-keyout", key, "-out", certificate], check=True, capture_output=True)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate, key)
    return context


def _left_at_once(run: Callable[..., object], tls: ssl.SSLContext | None) -> bytes:
    """What a blocking peer has received when `ask` returns, before the loop has had another turn."""
    listener = socket.create_server(("127.0.0.1", 0))
    received: list[bytes] = []
    accepted: list[socket.socket] = []

    def answer_first() -> None:
        peer, _ = listener.accept()
        peer.settimeout(5)
        accepted.append(peer if tls is None else tls.wrap_socket(peer, server_side=True))
        accepted[0].recv(65536)
        accepted[0].sendall(OK)

    async def main() -> None:
        host = "http://127.0.0.1" if tls is None else "https://localhost"
        transport = Transport(f"{host}:{listener.getsockname()[1]}", ManualClock(), timeouts=Timeouts())
        serving = threading.Thread(target=answer_first)
        serving.start()
        await transport.exchange("GET", "/first", bearer=None)
        serving.join()
        asked = transport.ask("POST", "/second", bearer="Bearer t", body=b"{}")
        received.append(accepted[0].recv(65536))
        accepted[0].sendall(OK)
        await asked
        await transport.close()
        accepted[0].close()

    run(main())
    listener.close()
    return received[0]


@pytest.mark.parametrize("run", [asyncio.run, uvloop.run], ids=["asyncio", "uvloop"])
@pytest.mark.parametrize("is_secured", [False, True], ids=["plain", "tls"])
@pytest.mark.skipif(shutil.which("openssl") is None, reason="makes a certificate with openssl")
def test_a_request_has_left_when_ask_returns(
    run: Callable[..., object], is_secured: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SSL_CERT_FILE", str(tmp_path / "certificate.pem"))
    head, _, body = _left_at_once(run, _certificate(tmp_path) if is_secured else None).partition(b"\r\n\r\n")
    assert head.startswith(b"POST /second HTTP/1.1\r\n")
    assert b"\r\nAuthorization: Bearer t\r\nContent-Length: 2" in head
    assert body == b"{}"
