"""A web server on this machine that gives the answers set by a test and records the requests."""

from __future__ import annotations

import json
import threading
from collections.abc import Mapping
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, Final
from urllib.parse import parse_qsl, urlsplit

__all__ = ["HttpStub", "Received"]

_METHODS: Final = ("GET", "POST", "PUT", "PATCH", "DELETE", "HEAD", "OPTIONS")
_POLL_S: Final = 0.02


@dataclass(frozen=True, slots=True)
class Received:
    """A request that the stub received."""

    method: str
    path: str
    """Path of the URL, without the query."""
    query: Mapping[str, str]
    headers: Mapping[str, str]
    """Headers of the request, with names in lower case."""
    body: bytes

    @property
    def json(self) -> Any:
        """The body as JSON. Raises ValueError if it is not JSON."""
        return json.loads(self.body)


@dataclass
class _Answer:
    status: int
    body: bytes
    headers: dict[str, str]
    delay_s: float
    left: int | None
    """Number of times the answer may still be given; None: always."""


class HttpStub:
    """A web server for tests: `with HttpStub() as server:`, then `server.url` and `server.requests`.

    It is a real server on a free port of the loopback address, so that the tool's own client, its timeouts and its
    connection errors are tested. After the block nothing listens on the port any more and connections are refused.
    """

    def __init__(self) -> None:
        self._server = _StubServer()
        self.url: Final = f"http://127.0.0.1:{self._server.server_address[1]}"

    def answer(
        self,
        request: str,
        *,
        status: int = 200,
        json: Any = None,
        text: str | bytes = "",
        headers: Mapping[str, str] | None = None,
        delay_s: float = 0.0,
        times: int | None = None,
    ) -> None:
        """Set the answer to a request. Answers to the same request are given in the order in which they were set.

        Args:
            request: method and path, "POST /hooks"; the query does not count.
            status: the HTTP status.
            json: the body, to be written as JSON; None: `text` is the body.
            text: the body as it is.
            headers: further headers; they replace the Content-Type that fits the body.
            delay_s: seconds to wait before the answer, to let the tool's timeout expire.
            times: number of times the answer is given before the next answer follows. None: always.

        Raises:
            ValueError: `request` is not a method and a path.
        """
        method, _, path = request.partition(" ")
        if method not in _METHODS or not path.startswith("/"):
            raise ValueError(f"answer({request!r}): write a method and a path, for example 'POST /hooks'")
        body = _encoded(json) if json is not None else text.encode() if isinstance(text, str) else text
        kind = "application/json" if json is not None else "text/plain; charset=utf-8"
        answer = _Answer(status, body, {"Content-Type": kind, **(headers or {})}, delay_s, times)
        with self._server.lock:
            self._server.answers.setdefault(request, []).append(answer)

    @property
    def requests(self) -> list[Received]:
        """The requests received so far, in order."""
        with self._server.lock:
            return list(self._server.received)

    def __enter__(self) -> HttpStub:
        self._thread = threading.Thread(
            target=self._server.serve_forever, args=(_POLL_S,), name="http-stub", daemon=True
        )
        self._thread.start()
        return self

    def __exit__(self, *error: object) -> None:
        self._server.over.set()
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()


def _encoded(value: Any) -> bytes:
    return json.dumps(value).encode()


class _StubServer(ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 128

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.answers: dict[str, list[_Answer]] = {}
        self.received: list[Received] = []
        self.lock: Final = threading.Lock()
        self.over: Final = threading.Event()

    def take(self, request: Received) -> _Answer:
        with self.lock:
            self.received.append(request)
            for answer in self.answers.get(f"{request.method} {request.path}", ()):
                if answer.left is None or answer.left > 0:
                    answer.left = None if answer.left is None else answer.left - 1
                    return answer
        known = ", ".join(sorted(self.answers)) or "none"
        wanted = f"{request.method} {request.path}"
        text = f"HttpStub has no answer left to {wanted}; set one with answer({wanted!r}). Answers set: {known}\n"
        return _Answer(404, text.encode(), {"Content-Type": "text/plain"}, 0.0, None)

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Ignore a client that closes its connection early: tests of timeouts do that on purpose."""


class _Handler(BaseHTTPRequestHandler):
    server: _StubServer
    protocol_version = "HTTP/1.1"
    timeout = 10.0

    def _serve(self) -> None:
        address = urlsplit(self.path)
        request = Received(
            method=self.command,
            path=address.path,
            query=dict(parse_qsl(address.query, keep_blank_values=True)),
            headers={name.lower(): value for name, value in self.headers.items()},
            body=self.rfile.read(int(self.headers.get("Content-Length") or 0)),
        )
        answer = self.server.take(request)
        if answer.delay_s:
            self.server.over.wait(answer.delay_s)
        self.send_response(answer.status)
        for name, value in answer.headers.items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(answer.body)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(answer.body)

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002 - the base class names it so
        """Log nothing. The base class would write each request to the test's stderr."""


for _method in _METHODS:
    setattr(_Handler, f"do_{_method}", _Handler._serve)
