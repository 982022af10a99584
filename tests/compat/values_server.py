"""The small HTTP server that the recorded value playbooks ask: fixed answers on a free loopback port."""

from __future__ import annotations

import json
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qsl, urlsplit

RECORDED_AT = "127.0.0.1:35601"
"""Where the playbooks look for it, and what the recorded values say."""
HTML = "text/html; charset=utf-8"
FIXED: dict[str, tuple[int, bytes, str]] = {
    "/json": (
        200,
        b'{"name": "ada", "n": 3, "ok": true, "none": null, "list": [1, 2], "deep": {"a": {"b": "c"}}}',
        "application/json",
    ),
    "/text": (200, b"plain words, 12", "text/plain"),
    "/html": (200, b"<p>hi</p>", HTML),
    "/list": (200, b'[{"id": 1}, {"id": 2}]', "application/json"),
    "/null": (200, b"null", "application/json"),
    "/bytes": (200, bytes([0, 255, 254, 65]), "application/octet-stream"),
    "/empty": (200, b"", ""),
    "/nocontent": (204, b"", ""),
}


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    asked: Counter[str]

    def log_message(self, *arguments: Any) -> None:
        pass

    def answer(self) -> None:
        url = urlsplit(self.path)
        query = dict(parse_qsl(url.query, keep_blank_values=True))
        body = self.rfile.read(int(self.headers.get("content-length") or 0))
        if url.path in FIXED:
            self._send(*FIXED[url.path])
        elif url.path == "/echo":
            self._json(200, self._echo(url.query, query, body))
        elif url.path == "/mcp":
            self._mcp(json.loads(body))
        else:
            self._json(*self._computed(url.path, query))

    def _echo(self, raw_query: str, query: dict[str, str], body: bytes) -> dict[str, Any]:
        shown = ("content-type", "authorization", "accept")
        headers = {name.lower(): value for name, value in self.headers.items()}
        return {
            "method": self.command,
            "path": "/echo",
            "query": raw_query,
            "args": query,
            "headers": {name: value for name, value in headers.items() if name.startswith("x-") or name in shown},
            "body": body.decode("utf-8", "replace"),
        }

    def _mcp(self, call: dict[str, Any]) -> None:
        """As little of an MCP server as a worker asks for."""
        given = call.get("params") or {}
        if "id" not in call:
            self._send(202, b"", "")
            return
        said: dict[str, Any] = {"error": {"code": -32601, "message": "no such method"}}
        if call["method"] == "initialize":
            about = {"name": "demo", "version": "1"}
            said = {"result": {"protocolVersion": "2025-03-26", "capabilities": {}, "serverInfo": about}}
        elif call["method"] == "tools/list":
            said = {"result": {"tools": [{"name": "add", "inputSchema": {"type": "object"}}]}}
        elif call["method"] == "tools/call":
            text = json.dumps(given.get("arguments"), sort_keys=True)
            is_error = given.get("name") == "fails"
            said = {"result": {"content": [{"type": "text", "text": f"given {text}"}], "isError": is_error}}
        self._json(200, {"jsonrpc": "2.0", "id": call["id"], **said})

    def _computed(self, path: str, query: dict[str, str]) -> tuple[int, Any]:
        if path == "/pages":
            page, size = int(query.get("page", 1)), int(query.get("size", 10))
            ids = range((page - 1) * size + 1, min(page * size, 25) + 1)
            return 200, {"data": [{"id": one} for one in ids], "paging": {"page": page, "hasMore": page * size < 25}}
        if path.startswith("/status/"):
            code = int(path.rpartition("/")[2])
            return code, {"error": f"code {code}"}
        if path == "/slow":
            time.sleep(float(query.get("s", 3)))
            return 200, {"slept": True}
        if path == "/large":
            count = int(query.get("kb", 150))
            return 200, {"count": count, "rows": [{"id": one, "text": "long " * 200} for one in range(count)]}
        if path == "/flaky":
            key = query.get("key", "")
            self.asked[key] += 1
            tries = self.asked[key]
            return (500, {"try": tries}) if tries <= int(query.get("fails", 1)) else (200, {"try": tries, "ok": True})
        return 404, {"error": "no such path"}

    def _json(self, status: int, value: Any) -> None:
        self._send(status, json.dumps(value, ensure_ascii=False).encode(), "application/json")

    def _send(self, status: int, body: bytes, media: str) -> None:
        self.send_response(status)
        if media:
            self.send_header("content-type", media)
        if status == 429:
            self.send_header("retry-after", "1")
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def __getattr__(self, name: str) -> Callable[[], None]:
        """`do_GET` and all others."""
        if name.startswith("do_"):
            return self.answer
        raise AttributeError(name)


class _Server(ThreadingHTTPServer):
    daemon_threads = True

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A client that has hung up, as one with a timeout does, is no error of this server."""


@contextmanager
def values_server() -> Iterator[str]:
    """`host:port` of a server that runs until the block ends."""
    handler = type("Handler", (_Handler,), {"asked": Counter()})
    server = _Server(("127.0.0.1", 0), handler)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True)
    thread.start()
    try:
        yield f"127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
