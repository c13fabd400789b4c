"""The outside that alerts are to reach: a web server and a mail server in threads, to be away, slow or broken."""

import json
import socketserver
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from email import message_from_bytes
from email.message import Message
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

Json = dict[str, Any]


class Web:
    """Takes posts of JSON and pings. `answers` is used up first: a status, or a function that blocks and gives one."""

    def __init__(self) -> None:
        self.posts: list[Json] = []
        self.headers: list[dict[str, str]] = []
        self.refused = 0
        self.pings = 0
        self.answers: list[int | Callable[[], int]] = []
        self.port = 0
        self._server: ThreadingHTTPServer | None = None

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    @property
    def codes(self) -> list[str]:
        return [alert["code"] for post in self.posts for alert in post["alerts"]]

    @property
    def ids(self) -> list[str]:
        return [alert["id"] for post in self.posts for alert in post["alerts"]]

    def start(self) -> None:
        """On the port it had before, if it had one."""
        web = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
                web._settle(self, lambda: web._take(body, dict(self.headers)))

            def do_GET(self) -> None:
                web._settle(self, lambda: setattr(web, "pings", web.pings + 1))

            def log_message(self, format: str, *args: Any) -> None:
                return

        self._server = _Server(("127.0.0.1", self.port), Handler)
        self.port = self._server.server_port
        threading.Thread(target=self._server.serve_forever, args=(0.02,), daemon=True).start()

    def _take(self, body: Json, headers: dict[str, str]) -> None:
        self.posts.append(body)
        self.headers.append(headers)

    def _settle(self, handler: BaseHTTPRequestHandler, take: Callable[[], object]) -> None:
        answer = self.answers.pop(0) if self.answers else 204
        status = answer() if callable(answer) else answer
        if 200 <= status < 300:
            take()
        else:
            self.refused += 1
        try:
            handler.send_response(status)
            handler.send_header("Content-Length", "0")
            handler.end_headers()
        except OSError:
            return  # whoever asked has given up

    def stop(self) -> None:
        if self._server is not None:
            self._server.shutdown()
            self._server.server_close()
            self._server = None


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    allow_reuse_address = True


class MailServer:
    """As much of SMTP as a client needs. `answers` to DATA is used up first: a reply line."""

    def __init__(self) -> None:
        self.mails: list[Message] = []
        self.refused = 0
        self.answers: list[str] = []
        self.said: list[str] = []  # commands of clients
        self.port = 0
        self._server: socketserver.ThreadingTCPServer | None = None

    @property
    def subjects(self) -> list[str]:
        # A long header is folded into lines.
        return [" ".join(str(mail["Subject"]).split()) for mail in self.mails]

    @property
    def text(self) -> str:
        return "\n".join(bytes(mail.get_payload(decode=True)).decode() for mail in self.mails)

    def start(self) -> None:
        mail_server = self

        class Handler(socketserver.StreamRequestHandler):
            def handle(self) -> None:
                mail_server._talk(self)

        class Server(socketserver.ThreadingTCPServer):
            daemon_threads = True
            allow_reuse_address = True

        self._server = Server(("127.0.0.1", self.port), Handler)
        self.port = self._server.server_address[1]
        threading.Thread(target=self._server.serve_forever, args=(0.02,), daemon=True).start()

    def _talk(self, handler: socketserver.StreamRequestHandler) -> None:
        def say(line: str) -> None:
            handler.wfile.write(f"{line}\r\n".encode())

        say("220 test")
        for raw in handler.rfile:
            line = raw.decode().strip()
            self.said.append(line)
            verb = line.split(" ", 1)[0].upper()
            if verb == "DATA":
                say("354 go on")
                body = b"".join(iter(handler.rfile.readline, b".\r\n"))
                answer = self.answers.pop(0) if self.answers else "250 taken"
                if answer.startswith("2"):
                    self.mails.append(message_from_bytes(body))
                else:
                    self.refused += 1
                say(answer)
            elif verb == "QUIT":
                say("221 bye")
                return
            elif verb == "AUTH":
                say("235 welcome")
            elif verb == "EHLO":
                say("250-test")
                say("250 AUTH PLAIN LOGIN")
            else:
                say("250 ok")

    def stop(self) -> None:
        if self._server is not None:
            self._server.shutdown()
            self._server.server_close()
            self._server = None


@contextmanager
def outside() -> Iterator[tuple[Web, MailServer]]:
    """Both, started."""
    web, mail = Web(), MailServer()
    web.start()
    mail.start()
    try:
        yield web, mail
    finally:
        web.stop()
        mail.stop()
