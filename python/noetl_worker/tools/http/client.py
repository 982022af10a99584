"""HTTP clients of tools. A client is reused for the same server, TLS and proxy options, and never stores cookies.

A command reuses the connections of an earlier command, but no cookies or headers. This module follows redirects itself:
httpx would send an `X-API-Key` to any host that an answer names.
"""

from __future__ import annotations

import asyncio
import functools
import os
import ssl
from collections.abc import AsyncIterator, Collection
from contextlib import ExitStack, asynccontextmanager, suppress
from dataclasses import dataclass
from http.cookiejar import CookieJar, DefaultCookiePolicy
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Final, NamedTuple, TypeAlias
from urllib.parse import urlsplit
from urllib.request import getproxies

import h11
import httpx

from noetl_worker.errors import ConfigurationError
from noetl_worker.process.threads import finished_off_loop
from noetl_worker.remote.transport.connection import MAX_IDLE_S
from noetl_worker.settings.networks import EgressRule
from noetl_worker.tools.contract import ToolSettings
from noetl_worker.tools.fields import excerpt
from noetl_worker.tools.file_roots import opened
from noetl_worker.tools.http import egress
from noetl_worker.tools.http.client_transport import ClientTransport
from noetl_worker.tools.http.egress_backend import guard

MAX_REDIRECTS: Final = 10
HEADERS: Final = {
    "Accept": "*/*",
    "Accept-Encoding": "gzip, deflate",
    "Connection": "keep-alive",
    "User-Agent": "noetl-worker",
}
"""Headers of every request. Accept-Encoding names only the codings that `answer.py` can unpack within its limit."""
_MOST_PEM_BYTES: Final = 4 << 20
_SECRET_WORDS: Final = ("auth", "cookie", "key", "token", "secret", "session", "password")


@dataclass(frozen=True, slots=True)
class ClientOptions:
    """Options of a connection. A client is reused only for requests with equal options."""

    verify: bool = True
    ca_file: str | None = None
    client_cert: str | None = None
    client_key: str | None = None
    proxy: str | None = None
    is_own: bool = False
    """True if the address of the request comes from the worker's own settings, not from a playbook. The operator's
    egress rule, which denies addresses, is not applied to such a request."""


_Key: TypeAlias = tuple[str, ClientOptions, EgressRule | None]
"""Key of an idle client: server, options, and egress rule (the addresses that the operator denies). The rule is None
if the server's address comes from the worker's own settings."""


class _Idle(NamedTuple):
    """An idle client: no command uses it now, and the next command with an equal key gets it."""

    key: _Key
    client: httpx.AsyncClient
    since: float


class Clients:
    """httpx clients, each used by one command at a time.

    One client for all commands would cost more CPU. With a proxy, httpcore checks all connections of a client several
    times per request. With 32 concurrent commands these checks took half of a request's CPU.

    Args:
        transport: replaces the network in tests.
        max_idle: maximum number of idle clients. The most recently used client is reused first.
    """

    def __init__(self, transport: httpx.AsyncBaseTransport | None = None, *, max_idle: int = 50) -> None:
        self._transport = transport
        self._max_idle = max_idle
        self._idle: list[_Idle] = []
        """Idle clients. The client that has been idle longest is first."""
        self._is_closed = False

    @asynccontextmanager
    async def lease(
        self, options: ClientOptions = ClientOptions(), *, to: str, settings: ToolSettings
    ) -> AsyncIterator[httpx.AsyncClient]:
        """Provide a client with these options, for one command alone.

        If the caller's `async with` block raises, the client is closed: over a proxy, httpcore may keep the connection
        of a cancelled request.

        Args:
            to: the address of the command's first request. Only a client of the same server is reused, because that
                client may still have a connection.
            settings: settings with the denied addresses, and with the directories whose files the options may name.

        Raises:
            ConfigurationError: a file or a proxy cannot be used.
        """
        rule = None if options.is_own else settings.egress
        key = (_server_key(to), options, rule)
        client = self._take(key)
        if client is None:
            tls = await _load_tls_context(options, settings)
            client = _new_client(options, tls, rule, self._transport)
        is_reusable = False
        try:
            yield client
            is_reusable = not self._is_closed
        finally:
            if is_reusable:
                self._idle.append(_Idle(key, client, asyncio.get_running_loop().time()))
            else:
                await client.aclose()
            await self._close_surplus()

    def _take(self, key: _Key) -> httpx.AsyncClient | None:
        for at in reversed(range(len(self._idle))):
            if self._idle[at].key == key:
                return self._idle.pop(at).client
        return None

    async def _close_surplus(self) -> None:
        too_old = asyncio.get_running_loop().time() - MAX_IDLE_S
        surplus = []  # removed before the first wait, in which another command could take one of them
        while self._idle and (len(self._idle) > self._max_idle or self._idle[0].since < too_old):
            surplus.append(self._idle.pop(0).client)
        for client in surplus:
            await client.aclose()

    async def aclose(self) -> None:
        """Close idle clients now, and clients in use when their commands end."""
        self._is_closed = True
        idle, self._idle = self._idle, []
        for one in idle:
            await one.client.aclose()


def _server_key(address: str) -> str:
    try:
        parts = urlsplit(address)
    except ValueError:  # the request to this address reports it
        return ""
    return f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}"


def check_options(options: ClientOptions) -> None:
    """Check the options of a connection as far as possible without reading a file. Raises ConfigurationError."""
    if options.client_key is not None and options.client_cert is None:
        raise ConfigurationError(
            "'client_key' needs 'client_cert', the certificate of this key; give both", field="client_key", tool="http"
        )
    if options.proxy is not None:
        try:
            is_socks = httpx.Proxy(options.proxy).url.scheme.startswith("socks")
            if is_socks and find_spec("socksio") is None:
                raise ValueError("SOCKS needs the package socksio on the worker; or give the address of an HTTP proxy")
        except (ValueError, httpx.InvalidURL) as error:
            raise _bad_proxy(options.proxy, error) from error


def _bad_proxy(proxy: str | None, error: Exception) -> ConfigurationError:
    what = f"'proxy' {shown_text(proxy)!r}" if proxy else "the proxy of the worker's environment"
    return ConfigurationError(f"{what} cannot be used: {error}", field="proxy", tool="http")


class _Client(httpx.AsyncClient):
    """An httpx client that passes a streamed request directly to its transport.

    httpx would first run its authentication, cookies, hooks and log. Tools do not need these steps, and they cost a
    third of a request's CPU.
    """

    direct: httpx.AsyncBaseTransport | None = None
    """The transport for streamed requests; None if there are proxies, because then httpx must choose the proxy."""

    async def send(self, request: httpx.Request, *, stream: bool = False, **options: Any) -> httpx.Response:
        try:
            if self.direct is None or self.is_closed or not stream or request.url.userinfo:
                return await super().send(request, stream=stream, **options)
            response = await self.direct.handle_async_request(request)
            response.request = request
            if response.has_redirect_location:
                try:
                    response.next_request = self._build_redirect_request(request, response)
                except BaseException:
                    await response.aclose()
                    raise
            return response
        except httpx.RequestError as error:
            error.request = request
            raise
        except httpx.InvalidURL as error:  # httpx converts only some of these errors to a RequestError
            text = f"the answer redirects to an address that cannot be requested: {error}"
            raise httpx.UnsupportedProtocol(text, request=request) from error
        except h11.LocalProtocolError as error:  # over a proxy httpcore converts this error of a head, not of a body
            raise httpx.LocalProtocolError(str(error), request=request) from error


def _has_proxies(options: ClientOptions) -> bool:
    return options.proxy is not None or not getproxies().keys().isdisjoint(("http", "https", "all"))


def _new_client(
    options: ClientOptions,
    verify: ssl.SSLContext,
    rule: EgressRule | None,
    transport: httpx.AsyncBaseTransport | None,
) -> httpx.AsyncClient:
    if transport is None and not _has_proxies(options):
        transport = ClientTransport(verify, rule)
    try:
        client = _Client(
            verify=verify,
            timeout=None,  # the exchange has one deadline instead, which a trickling body cannot extend
            transport=transport,
            proxy=options.proxy,
            headers=HEADERS,
            cookies=CookieJar(DefaultCookiePolicy(allowed_domains=[])),
            event_hooks=None if rule is None else {"request": [functools.partial(egress.check_literal, rule)]},
        )
    except (ValueError, httpx.InvalidURL, ImportError) as error:  # ImportError: the package for SOCKS
        raise _bad_proxy(options.proxy, error) from error
    client.direct = transport
    if rule is not None:
        guard(client, rule, proxies=options.proxy is not None)
    return client


@functools.lru_cache(maxsize=1)
def _public_tls_context() -> ssl.SSLContext:
    """Return a TLS context with the public certificate authorities (or SSL_CERT_FILE). Reading the certificates takes
    0.1 s, so the context is cached."""
    return httpx.create_ssl_context()


async def _load_tls_context(options: ClientOptions, settings: ToolSettings) -> ssl.SSLContext:
    if options.ca_file or options.client_cert or not options.verify:
        return await finished_off_loop(functools.partial(_tls_context, options, settings))
    return _public_tls_context()


def _tls_context(options: ClientOptions, settings: ToolSettings) -> ssl.SSLContext:
    with ExitStack() as files:
        ca, cert, key = (_opened(options, name, files, settings) for name in ("ca_file", "client_cert", "client_key"))
        try:
            context = ssl.create_default_context(cafile=ca) if ca else httpx.create_ssl_context()
        except (OSError, ssl.SSLError) as error:
            raise ConfigurationError(f"http: 'ca_file' {options.ca_file!r} cannot be used: {error}") from error
        if not options.verify:
            context.check_hostname = False
            context.verify_mode = ssl.CERT_NONE
        if cert:
            try:
                context.load_cert_chain(cert, key, password="")  # without a password OpenSSL asks at the terminal
            except (OSError, ssl.SSLError) as error:
                text = f"http: 'client_cert' {options.client_cert!r} cannot be used: {error}"
                raise ConfigurationError(text) from error
    return context


def _opened(options: ClientOptions, name: str, files: ExitStack, settings: ToolSettings) -> str | None:
    """Check and open the file that the option `name` gives. Return `/dev/fd/<number>` of the open file, because OpenSSL
    accepts only paths."""
    given = getattr(options, name)
    if not given:
        return None
    file = files.enter_context(opened(f"http: {name!r}", given, Path(given), settings))
    if os.fstat(file.fileno()).st_size > _MOST_PEM_BYTES:  # OpenSSL keeps all of it
        raise ConfigurationError(f"http: {name!r}: {given!r} is over {_MOST_PEM_BYTES >> 20} MiB")
    return str(Path("/dev/fd", str(file.fileno())))


def http_address(text: str, field: str, tool: str) -> httpx.URL:
    """Return the URL that a config field contains. Raise ConfigurationError if the text is no URL with http:// or
    https:// and a host."""
    problem = "an address starts with http:// or https:// and a host"
    try:
        address = httpx.URL(text)
        if address.scheme in ("http", "https") and address.host:
            return address
    except (httpx.InvalidURL, TypeError) as error:
        problem = str(error)
    raise ConfigurationError(f"{field} {shown_text(text)!r} is no address: {problem}", field=field, tool=tool)


def shown_text(address: str) -> str:
    """Return an address for messages, without user, password and query. The text need not be a valid URL."""
    with suppress(httpx.InvalidURL, TypeError, ValueError):
        if (url := httpx.URL(address)).host:
            return shown(url)
    before, _, after = address.partition("?")
    return "..." if "@" in after else excerpt(before.rpartition("@")[2], 200)  # the ? may be part of a password


def shown(url: httpx.URL) -> str:
    """Return a URL as text for messages, without user, password, query and fragment: a query may contain API keys."""
    return str(url.copy_with(username=None, password=None, query=None, fragment=None))


def without_user(address: str) -> str:
    """Return an address as text for a tool's result: without user and password, but with the query."""
    return str(httpx.URL(address).copy_with(username=None, password=None)) if "@" in address else address


async def send(
    client: httpx.AsyncClient, request: httpx.Request, *, follow_redirects: bool, secret_headers: Collection[str] = ()
) -> httpx.Response:
    """Send a request, following at most 10 redirects. Return the answer with its body unread.

    If a redirect leads to another scheme, host or port, secret headers are removed: Authorization, Cookie,
    `secret_headers`, and headers with a name like `X-API-Key` (`is_secret`).

    Raises:
        ConfigurationError: the request has both Transfer-Encoding and Content-Length.
    """
    if "Transfer-Encoding" in request.headers and "Content-Length" in request.headers:
        raise ConfigurationError(  # a proxy and its server could disagree where the body ends: request smuggling
            "http: a request cannot have both Transfer-Encoding and Content-Length; leave Transfer-Encoding out"
        )
    for _ in range(MAX_REDIRECTS + 1):
        response = await client.send(request, stream=True, follow_redirects=False)
        following = response.next_request
        if not follow_redirects or following is None:
            return response
        await response.aclose()
        if not _same_place(request.url, following.url):
            for name in list(following.headers):
                if is_secret(name, secret_headers):
                    del following.headers[name]
        request = following
    raise httpx.TooManyRedirects(f"more than {MAX_REDIRECTS} redirects", request=request)


def _same_place(here: httpx.URL, there: httpx.URL) -> bool:
    return (here.scheme, here.host, here.port) == (there.scheme, there.host, there.port)


def is_secret(name: str, given: Collection[str]) -> bool:
    """Return True if a header may be secret: its name is in `given` (names of headers known to be secret), or contains
    a word such as `key` or `token`. Such a header must not be sent to another server, as after a redirect."""
    lower = name.lower()
    return any(word in lower for word in _SECRET_WORDS) or lower in {secret.lower() for secret in given}
