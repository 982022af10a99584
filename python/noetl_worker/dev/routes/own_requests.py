"""Which requests a server of `dev` answers: those to an address of its own, and from no page of another server.

It listens on 127.0.0.1 and asks nobody who they are. But a browser here sends it what any page wants, with that page's
server in `Origin`, or to a name whose owner lets it lead to 127.0.0.1.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final
from urllib.parse import urlsplit

from starlette.responses import PlainTextResponse
from starlette.types import ASGIApp, Receive, Scope, Send


class OwnAddresses:
    """The addresses of one server."""

    def __init__(self, urls: Iterable[str]) -> None:
        self.urls: Final = sorted({f"{parts.scheme}://{parts.netloc}" for parts in map(urlsplit, urls)})
        self._origins: Final = {_without_usual_port(url) for url in self.urls}
        self._hosts: Final = {origin.partition("://")[2] for origin in self._origins}

    @classmethod
    def on_loopback(cls, port: int, *others: str) -> OwnAddresses:
        """By number and by name, and those that are named besides."""
        return cls([*(f"http://{name}:{port}" for name in ("127.0.0.1", "localhost", "[::1]")), *others])

    def has_sent(self, scope: Scope) -> bool:
        """Whether this request is to one of them, and of a page of one of them if it is of a page."""
        hosts, origins = (
            {_without_usual_port(value.decode("latin-1")) for name, value in scope["headers"] if name == wanted}
            for wanted in (b"host", b"origin")
        )
        return bool(hosts) and hosts <= self._hosts and origins <= self._origins


class OwnRequests:
    """An application that sees no other request."""

    def __init__(self, app: ASGIApp, addresses: OwnAddresses) -> None:
        self._app, self._addresses = app, addresses
        said = f"refused: only requests to {', '.join(addresses.urls)} are answered, and of no other server's page"
        self._refusal: Final = PlainTextResponse(said, 403)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http":
            app = self._app if self._addresses.has_sent(scope) else self._refusal
            await app(scope, receive, send)


def _without_usual_port(address: str) -> str:
    return address.lower().removesuffix(":80")
