"""The requests that a server of `dev` accepts: to its own address, from no other site's page, with its token.

It listens on 127.0.0.1, where every user of this machine reaches it: the token tells who started it from the others. A
browser here sends what any page wants, with that page's server in `Origin`, or to a name whose owner lets it lead to
127.0.0.1; no page can add the header with the token.
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
"""Prefix of routes for examples; they show nothing of a run and need no token."""


class OwnAddresses:
    def __init__(self, urls: Iterable[str]) -> None:
        self.urls: Final = sorted({f"{parts.scheme}://{parts.netloc}" for parts in map(urlsplit, urls)})
        self._origins: Final = {_without_usual_port(url) for url in self.urls}
        self._hosts: Final = {origin.partition("://")[2] for origin in self._origins}

    @classmethod
    def on_loopback(cls, port: int, *others: str) -> OwnAddresses:
        """Make the loopback addresses, by number and by name, and add the other given addresses."""
        return cls([*(f"http://{name}:{port}" for name in ("127.0.0.1", "localhost", "[::1]")), *others])

    def has_sent(self, scope: Scope) -> bool:
        """Return True if the request is to one of these addresses, and from no page of another origin."""
        hosts, origins = (
            {_without_usual_port(value.decode("latin-1")) for name, value in scope["headers"] if name == wanted}
            for wanted in (b"host", b"origin")
        )
        return bool(hosts) and hosts <= self._hosts and origins <= self._origins


class OwnRequests:
    """Middleware that lets only accepted requests reach the application."""

    def __init__(self, app: ASGIApp, addresses: OwnAddresses, token: str, token_file: Path) -> None:
        """Wrap the application. No token is asked for if `token` is ""; otherwise the user finds it in `token_file`."""
        self._app, self._addresses = app, addresses
        self._authorization: Final = f"Bearer {token}".encode() if token else b""
        said = f"refused: only requests to {', '.join(addresses.urls)} are answered, and of no other server's page"
        self._refusal: Final = PlainTextResponse(said, 403)
        said = f"refused: send the header `Authorization: Bearer TOKEN`; `dev` has its token in {token_file}"
        self._login: Final = PlainTextResponse(said, 401, {"www-authenticate": "Bearer"})

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http":
            await self._app_for(scope)(scope, receive, send)

    def _app_for(self, scope: Scope) -> ASGIApp:
        if not self._addresses.has_sent(scope):
            return self._refusal
        return self._app if self._is_open(scope["path"]) or self._has_token(scope) else self._login

    def _is_open(self, path: str) -> bool:
        return not self._authorization or path in _PROBES or path.startswith(_DEMO)

    def _has_token(self, scope: Scope) -> bool:
        given = next((value for name, value in scope["headers"] if name == b"authorization"), b"")
        return hmac.compare_digest(given, self._authorization)


def _without_usual_port(address: str) -> str:
    return address.lower().removesuffix(":80")
