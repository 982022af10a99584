"""The check of requests to a server of `noetl-worker dev`. Requests of other users and other sites' pages are refused.

The server listens on 127.0.0.1. Every user of this machine can send requests to the server, so each request needs the
token. Only the user who started the server can read the token. A page of any site can make this machine's browser send
requests too. Such a request names the other site in `Origin`, or in `Host` if the site's name leads to 127.0.0.1.
"""

from __future__ import annotations

import hmac
from collections.abc import Iterable
from pathlib import Path
from typing import Final
from urllib.parse import urlsplit

from starlette.responses import PlainTextResponse
from starlette.types import ASGIApp, Receive, Scope, Send

_PROBES: Final = ("/health", "/api/health")
_DEMO: Final = "/demo/"
"""Path prefix of the routes for the demo playbooks. These routes have no data of a run, so they need no token."""


class OwnAddresses:
    """The URLs of a server of `noetl-worker dev`, to check that a request is addressed to this server."""

    def __init__(self, urls: Iterable[str]) -> None:
        self.urls: Final = sorted({f"{parts.scheme}://{parts.netloc}" for parts in map(urlsplit, urls)})
        self._origins: Final = {_without_usual_port(url) for url in self.urls}
        self._hosts: Final = {origin.partition("://")[2] for origin in self._origins}

    @classmethod
    def on_loopback(cls, port: int, *others: str) -> OwnAddresses:
        """Return the addresses of a server: 127.0.0.1, localhost and [::1] with `port`, and the URLs in `others`."""
        return cls([*(f"http://{name}:{port}" for name in ("127.0.0.1", "localhost", "[::1]")), *others])

    def accepts(self, scope: Scope) -> bool:
        """Return True if a request is addressed to one of `urls` and was not made by a web page of another server.

        Args:
            scope: the request's ASGI scope. The header `Host` has the address, and `Origin` has the page's server.
        """
        hosts, origins = (
            {_without_usual_port(value.decode("latin-1")) for name, value in scope["headers"] if name == wanted}
            for wanted in (b"host", b"origin")
        )
        return bool(hosts) and hosts <= self._hosts and origins <= self._origins


class OwnRequests:
    """Middleware that refuses a request to another address, from another server's page, or without the token."""

    def __init__(self, app: ASGIApp, addresses: OwnAddresses, token: str, token_file: Path) -> None:
        """Wrap the application `app`, so that it gets only the requests that this middleware allows.

        Args:
            addresses: URLs of the server. A request to any other address is refused.
            token: the token that requests need; "": no token is needed.
            token_file: path of the file with the token. The refusal of a request without the token names this file.
        """
        self._app, self._addresses = app, addresses
        self._authorization: Final = f"Bearer {token}".encode() if token else b""
        said = f"refused: send the request to {' or '.join(addresses.urls)}, and from no page of another server"
        self._refusal: Final = PlainTextResponse(said, 403)
        said = f"refused: send the header `Authorization: Bearer TOKEN`; the token is in {token_file}"
        self._login: Final = PlainTextResponse(said, 401, {"www-authenticate": "Bearer"})

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http":
            await self._app_for(scope)(scope, receive, send)

    def _app_for(self, scope: Scope) -> ASGIApp:
        if not self._addresses.accepts(scope):
            return self._refusal
        return self._app if self._is_open(scope["path"]) or self._has_token(scope) else self._login

    def _is_open(self, path: str) -> bool:
        return not self._authorization or path in _PROBES or path.startswith(_DEMO)

    def _has_token(self, scope: Scope) -> bool:
        given = next((value for name, value in scope["headers"] if name == b"authorization"), b"")
        return hmac.compare_digest(given, self._authorization)


def _without_usual_port(address: str) -> str:
    return address.lower().removesuffix(":80")
