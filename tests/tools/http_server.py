"""A loopback HTTP server that misbehaves on demand: flaky, slow, rate-limited, huge, redirecting, malformed.

    with ToolServer() as server:
        run_tool("http", {"url": server.url("/flaky?fail=2")})
        assert [seen.path for seen in server.requests] == [...]

Answers are written by hand where a library would correct them. `server.requests` has every request in order.
"""

from __future__ import annotations

import gzip
import json
import ssl
import threading
import zlib
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

ITEMS = 35
"""What /pages, /offset and /cursor have between them: the fixtures' number."""


@dataclass(frozen=True)
class Seen:
    """One request as it arrived."""

    method: str
    path: str
    query: dict[str, list[str]]
    headers: dict[str, str]
    body: bytes
    client_port: int = 0
    """The other end of the connection: requests with the same one shared it."""

    def param(self, name: str, default: str = "") -> str:
        return self.query.get(name, [default])[0]


@dataclass
class Answer:
    status: int = 200
    body: bytes = b""
    headers: dict[str, str] = field(default_factory=dict)


def as_json(value: Any, status: int = 200, **headers: str) -> Answer:
    return Answer(status, json.dumps(value).encode(), {"Content-Type": "application/json", **headers})


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    owner: ToolServer

    def handle_any(self) -> None:
        parts = urlsplit(self.path)
        size = int(self.headers.get("Content-Length") or 0)
        body = self._counted(size) if parts.path == "/sink" else self.rfile.read(size) if size else self._chunked()
        headers = {name.lower(): value for name, value in self.headers.items()}
        query = parse_qs(parts.query, keep_blank_values=True)
        seen = Seen(self.command, parts.path, query, headers, body, self.client_address[1])
        with self.owner.lock:
            self.owner.requests.append(seen)
        route = self.owner.routes.get(parts.path) or getattr(
            self, "on_" + parts.path.strip("/").partition("/")[0], None
        )
        answer = route(seen) if route is not None else as_json({"detail": "no such endpoint"}, 404)
        if answer is not None:
            self.send(answer)

    def __getattr__(self, name: str) -> Callable[[], None]:
        if name.startswith("do_"):
            return self.handle_any
        raise AttributeError(name)

    def send(self, answer: Answer) -> None:
        self.send_response(answer.status)
        for name, value in {"Content-Length": str(len(answer.body)), **answer.headers}.items():
            self.send_header(name, value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(answer.body)

    def _counted(self, size: int) -> bytes:
        """How many bytes came, none of them kept."""
        left = size
        while left > 0 and (piece := self.rfile.read(min(left, 65_536))):
            left -= len(piece)
        return str(size - left).encode()

    def _chunked(self) -> bytes:
        data = b""
        while self.headers.get("Transfer-Encoding") == "chunked":
            size = int(self.rfile.readline(), 16)
            data += self.rfile.read(size)
            self.rfile.readline()
            if size == 0:
                break
        return data

    def raw(self, data: bytes) -> None:
        """Bytes as they are, then the end of the connection."""
        self.wfile.write(data)
        self.close_connection = True

    def log_message(self, *args: Any) -> None:
        """Nothing: the test output is not the place."""

    # ── endpoints: `on_<first part of the path>` ──

    def on_echo(self, seen: Seen) -> Answer:
        told = {
            "method": seen.method,
            "query": seen.query,
            "headers": seen.headers,
            "body": seen.body.decode("latin-1"),
        }
        return as_json(told)

    def on_sink(self, seen: Seen) -> Answer:
        """Takes a body of any size and tells its length."""
        return as_json({"received": int(seen.body)})

    def on_status(self, seen: Seen) -> Answer:
        status = int(seen.path.rpartition("/")[2])
        return Answer(status) if status in (204, 304) else as_json({"asked_for": status}, status)

    def on_flaky(self, seen: Seen) -> Answer:
        """Fails the first `fail` times for each `key`; with `status` (503) and, when asked, `retry_after`."""
        if self.owner.count(seen.path + seen.param("key") + seen.param("page")) > int(seen.param("fail", "1")):
            return as_json({"ok": True})
        after = {"Retry-After": seen.param("retry_after")} if seen.param("retry_after") else {}
        return as_json({"ok": False}, int(seen.param("status", "503")), **after)

    def on_silent(self, seen: Seen) -> None:
        """Takes the request and never answers."""
        self.owner.closing.wait()
        self.close_connection = True

    def on_trickle(self, seen: Seen) -> None:
        """Headers at once, then a byte now and then until somebody has enough."""
        self.wfile.write(b"HTTP/1.1 200 OK\r\nContent-Length: 1000000\r\n\r\n")
        try:
            while not self.owner.closing.wait(0.02):
                self.wfile.write(b"x")
        except OSError:
            pass
        self.close_connection = True

    def on_huge(self, seen: Seen) -> None:
        """`mb` MiB, in chunks when `chunked` is given; stops when the client has gone."""
        count = int(seen.param("mb", "100"))
        chunked = "chunked" in seen.query
        head = b"Transfer-Encoding: chunked" if chunked else f"Content-Length: {count << 20}".encode()
        self.wfile.write(b"HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\n" + head + b"\r\n\r\n")
        block = b"0123456789abcdef" * 65_536
        try:
            for _ in range(count):
                self.wfile.write(b"100000\r\n" + block + b"\r\n" if chunked else block)
            self.wfile.write(b"0\r\n\r\n" if chunked else b"")
        except OSError:
            pass
        self.close_connection = True

    def on_bomb(self, seen: Seen) -> Answer:
        """Small on the wire, `mb` MiB when unpacked."""
        packer = zlib.compressobj(1, wbits=zlib.MAX_WBITS | 16)
        packed = b"".join(packer.compress(b"\0" * (1 << 20)) for _ in range(int(seen.param("mb", "100"))))
        return Answer(200, packed + packer.flush(), {"Content-Encoding": "gzip", "Content-Type": "text/plain"})

    def on_gzip(self, seen: Seen) -> Answer:
        return Answer(200, gzip.compress(b'{"packed": true}'), {"Content-Encoding": "gzip"})

    def on_badgzip(self, seen: Seen) -> Answer:
        return Answer(200, b"this is not gzip", {"Content-Encoding": "gzip"})

    def on_redirect(self, seen: Seen) -> Answer:
        return Answer(int(seen.param("status", "302")), b"", {"Location": seen.param("to")})

    def on_loop(self, seen: Seen) -> Answer:
        return Answer(302, b"", {"Location": "/loop"})

    def on_drop(self, seen: Seen) -> None:
        self.close_connection = True

    def on_short(self, seen: Seen) -> None:
        self.raw(b"HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\nonly this")

    def on_malformed(self, seen: Seen) -> None:
        self.raw(b"HTTP/1.1 200 OK\r\nContent-Length: many\r\n\r\n")

    def on_garbage(self, seen: Seen) -> None:
        self.raw(b"220 mail.example.org ESMTP ready\r\n\r\n")

    def on_bytes(self, seen: Seen) -> Answer:
        """The bytes of `hex`, with `type` as the content type."""
        return Answer(200, bytes.fromhex(seen.param("hex")), {"Content-Type": seen.param("type", "text/plain")})

    def on_cookie(self, seen: Seen) -> Answer:
        return as_json({"cookie": seen.headers.get("cookie")}, **{"Set-Cookie": "session=1; Path=/"})

    def on_pages(self, seen: Seen) -> Answer:
        """`page`, `pageSize`: {"data": [...], "paging": {"hasMore", "page", "pageSize"}}; `fail_on` fails once."""
        page, size = int(seen.param("page", "1")), int(seen.param("pageSize", "10"))
        if seen.param("fail_on") == str(page) and self.owner.count(f"page {page}") == 1:
            return as_json({"detail": "once"}, 500)
        found = [{"id": number + 1} for number in range((page - 1) * size, min(page * size, ITEMS))]
        return as_json({"data": found, "paging": {"hasMore": page * size < ITEMS, "page": page, "pageSize": size}})

    def on_cursor(self, seen: Seen) -> Answer:
        """`cursor`, `limit`: {"events": [...], "next_cursor": text or null}."""
        start, limit = int(seen.param("cursor", "0") or 0), int(seen.param("limit", "10"))
        end = min(start + limit, ITEMS)
        following = str(end) if end < ITEMS else None
        return as_json({"events": [{"id": number + 1} for number in range(start, end)], "next_cursor": following})

    def on_token(self, seen: Seen) -> Answer:
        """An OAuth2 token endpoint: token-1, token-2, ...; `expires_in` from the query."""
        number = self.owner.count("token")
        lifetime = int(seen.param("expires_in", "3600"))
        return as_json({"access_token": f"token-{number}", "token_type": "Bearer", "expires_in": lifetime})


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 128


class ToolServer:
    """The server in a thread of its own. `routes` adds endpoints by exact path; `tls` is (certificate, key)."""

    def __init__(self, *, tls: tuple[Path, Path] | None = None, client_ca: Path | None = None) -> None:
        self.requests: list[Seen] = []
        self.routes: dict[str, Callable[[Seen], Answer | None]] = {}
        self.lock = threading.Lock()
        self.closing = threading.Event()
        self._counts: Counter[str] = Counter()
        self._scheme = "http" if tls is None else "https"
        self._server = _Server(("127.0.0.1", 0), type("Handler", (_Handler,), {"owner": self}))
        self._server.handle_error = lambda request, address: None  # type: ignore[method-assign]
        if tls is not None:
            context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            context.load_cert_chain(*tls)
            if client_ca is not None:
                context.verify_mode = ssl.CERT_REQUIRED
                context.load_verify_locations(client_ca)
            self._server.socket = context.wrap_socket(self._server.socket, server_side=True)
        self._thread = threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)

    def names_asked_for(self) -> list[str]:
        """Of those that ask over TLS from now on."""
        names: list[str] = []
        self._server.socket.context.sni_callback = lambda _, name, __: names.append(name)  # type: ignore[attr-defined]
        return names

    @property
    def port(self) -> int:
        return int(self._server.server_address[1])

    def url(self, path: str, *, host: str = "127.0.0.1") -> str:
        return f"{self._scheme}://{host}:{self.port}{path}"

    def count(self, name: str) -> int:
        """How often this was asked, this time included."""
        with self.lock:
            self._counts[name] += 1
            return self._counts[name]

    def __enter__(self) -> ToolServer:
        self._thread.start()
        return self

    def __exit__(self, *error: object) -> None:
        self.closing.set()
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()
