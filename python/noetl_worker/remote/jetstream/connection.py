"""The connection to NATS: who we are, how long it may not answer, what happens when the server goes away."""

from __future__ import annotations

import asyncio
import importlib.util
import random
import time
from collections.abc import Callable, Coroutine
from functools import partial
from pathlib import Path
from typing import Any, Final
from urllib.parse import unquote, urlsplit

import nats
import structlog
from nats.aio.client import RawCredentials

from noetl_worker.errors import NatsUnavailable, SettingsError, describe
from noetl_worker.models import backoff
from noetl_worker.observability.outage import Outage
from noetl_worker.remote.jetstream.client import Client, UnusableKey, require_key
from noetl_worker.remote.transport.credential_ends import credential_ends
from noetl_worker.remote.transport.tls import TlsFiles
from noetl_worker.settings.settings import Settings

PING_INTERVAL_S: Final = 10
"""With one outstanding ping a stopped server is found in 20 s; nats-py's default takes 6 min
(protocol/jetstream.md#outages)."""
CONNECT_TIMEOUT_S: Final = 3
RETRY_S: Final = 0.5
"""Before the second of the first attempts, doubling to 5 s."""
ATTEMPTS: Final = 5
"""First attempts of who does not wait."""
CLOSE_S: Final = 2.0
_CREDS: Final = (
    "-----BEGIN NATS USER JWT-----\n{jwt}\n------END NATS USER JWT------\n\n"
    "-----BEGIN USER NKEY SEED-----\n{seed}\n------END USER NKEY SEED------\n"
)
"""What a .creds file has."""
_ENDS: Final = (nats.errors.UnexpectedEOF, nats.errors.StaleConnectionError, OSError)
"""Errors of a connection that is up, after which it is not."""
_SHOWN: Final = ("NATS_CERT", "NOETL_TLS_CLIENT_CERT", "NATS_CREDS", "NATS_JWT")
"""Credentials that NATS is shown and refuses without a reason: "unexpected EOF"."""
_PENDING_BYTES: Final = 8 * 1024 * 1024
_UNREACHABLE_ADVICE: Final = "it is tried again; `noetl-worker doctor` looks at the way to it and at the login"
log = structlog.get_logger("noetl_worker.remote.jetstream")


class Connection:
    """A NATS client plus who wants to know when it comes and goes."""

    def __init__(self, name: str, read_tls: Callable[[], dict[str, Any]] = dict, *, is_beside: bool = False) -> None:
        """`read_tls`: the TLS options as the files say now; `is_beside`: another connection to the same servers has
        the lines of an outage, these are at the level debug."""
        self.name = name
        self.client: Client = Client()
        self.on_disconnected: list[Callable[[], None]] = []
        self.on_reconnected: list[Callable[[], None]] = []
        self.last_error: Exception | None = None
        """The last one nats-py reported: its own first connect ends in "no servers" and keeps the cause from us."""
        self._read_tls = read_tls
        self._is_beside = is_beside
        self._outage, self._troubles = Outage(), Outage()
        self._is_up = False
        self._closing = False

    @property
    def is_connected(self) -> bool:
        return bool(self.client.is_connected)

    async def _disconnected(self) -> None:
        if not self._closing:
            self._renew_tls()
            self._log_outage(self.last_error or "no answer to a ping")
            for notify in self.on_disconnected:
                notify()

    async def _reconnected(self) -> None:
        self.last_error = None
        self._troubles.ends()
        if (line := self._outage.ends()) is not None:
            (log.debug if self._is_beside else log.info)("nats_reconnected", connection=self.name, **line)
        for notify in self.on_reconnected:
            notify()

    async def _failed(self, error: Exception) -> None:
        # nats-py reports every failed attempt here while it reconnects for ever; one line each is enough.
        self.last_error = error
        if self.client.is_connecting or self.client.is_reconnecting:
            self._abandon()
        if self._is_up:
            self._renew_tls()
            if self._outage.is_on or isinstance(error, _ENDS):  # nats_disconnected is the line of it
                log.debug("nats_error", connection=self.name, error=describe(error))
                if self._outage.is_on:
                    self._log_outage(error)
            elif (line := self._troubles.lasts(describe(error))) is not None:
                log.warning("nats_error", connection=self.name, **line)

    def _log_outage(self, error: Exception | str) -> None:
        line = self._outage.lasts(error if isinstance(error, str) else describe(error))
        if line is not None:
            (log.debug if self._is_beside else log.warning)("nats_disconnected", connection=self.name, **line)

    def _renew_tls(self) -> None:
        """Certificates and CA bundles are replaced while we run: the next attempt goes by what is there then."""
        try:
            self.client.options.update(self._read_tls())
        except OSError as error:  # half written, an ssl.SSLError too: the attempt after the next reads it again
            log.warning("tls_files_unreadable", connection=self.name, error=describe(error))

    def _abandon(self) -> None:
        """Close the socket of an attempt that failed.

        When the server refuses CONNECT (or never answers it), nats-py drops the open transport and puts the next
        attempt's in its place: a descriptor each, until the garbage collector happens to come by.
        """
        if self.client._transport is not None:
            self.client._transport.close()  # type: ignore[no-untyped-call]

    async def _open(self, options: dict[str, Any]) -> None:
        """Connect once. With reconnecting allowed, nats-py never gives up its first connect, even if refused."""
        self.client, self.last_error = Client(), None
        try:
            await self.client.connect(**{**options, "allow_reconnect": False, "max_reconnect_attempts": 1})
        except BaseException:  # a cancellation too: a stop while the server has not answered yet
            self._abandon()
            raise
        self.client.options.update(allow_reconnect=True, max_reconnect_attempts=-1)
        self._is_up = True

    async def reopen(self, settings: Settings) -> None:
        """Connect anew after nats-py has closed for good; what does not succeed is closed still, to be tried again."""
        closed = self.client
        try:
            await self._open(_options(settings, self))
        except (OSError, asyncio.TimeoutError, nats.errors.Error) as error:
            self.client = closed  # a client that never connected does not call itself closed
            self._log_outage(self.last_error or error)
        else:
            await self._reconnected()

    def why_closed(self) -> str:
        """nats-py reconnects for ever, but for some errors (a login that has expired, or is refused twice)."""
        error = self.client.last_error or self.last_error  # what the server says last is not reported to us
        return f"NATS closed the connection for good ({describe(error) if error else 'no reason given'})"

    async def close(self) -> None:
        """Flush what is pending (acks!) and close; a server that is gone does not hold us for more than 2 s."""
        self._closing = True
        if self.client.is_closed:
            return
        error = await _close_within(self.client.drain() if self.is_connected else self.client.close(), CLOSE_S)
        if error is not None:
            log.warning("nats_close_failed", connection=self.name, error=describe(error))
            await _close_within(self.client.close(), CLOSE_S / 4)


async def _close_within(closing: Coroutine[Any, Any, None], most_s: float) -> BaseException | None:
    """Wait for its end, and raise nothing: how the connection ends is not how the worker did.

    Not with wait_for: that waits for what nats-py does about a cancellation too, which is to flush for 10 s.
    """
    task = asyncio.ensure_future(closing)
    done, _ = await asyncio.wait({task}, timeout=most_s)
    if done:
        return asyncio.CancelledError() if task.cancelled() else task.exception()
    task.cancel()
    task.add_done_callback(lambda late: late.cancelled() or late.exception())  # nobody is there to hear of it
    return asyncio.TimeoutError()


async def connect(
    settings: Settings,
    name: str,
    *,
    attempts: int | None = ATTEMPTS,
    is_beside: bool = False,
    on_wait: Callable[[str], None] = lambda _: None,
) -> Connection:
    """Connect, and once connected reconnect for ever with jitter.

    Args:
        name: shown by `nats server report connections`.
        attempts: first attempts before giving up; None: wait for a server that takes the login.
        is_beside: another connection to the same servers has the lines of an outage.
        on_wait: called with the reason before each wait.

    Raises:
        SettingsError: a file of the login or of TLS is not what its setting says.
        NatsUnavailable: the server refused the login, or `attempts` are used up; the text says what to set.
    """
    _require_files(settings)
    connection = Connection(name, partial(_tls, settings), is_beside=is_beside)
    tried, outage = 0, Outage()
    while True:
        tried += 1
        try:
            await connection._open(_options(settings, connection))
        except (OSError, asyncio.TimeoutError, nats.errors.Error) as raised:
            error = connection.last_error or raised
            reason = _unavailable(settings, error)
            if attempts is not None and (tried >= attempts or _refuses_login(error) or isinstance(error, UnusableKey)):
                raise NatsUnavailable(reason) from raised
            on_wait(reason)
            if (line := outage.lasts(reason)) is not None and not is_beside:
                log.warning("nats_unreachable", **line, advice=_UNREACHABLE_ADVICE)
        else:
            if (line := outage.ends()) is not None and not is_beside:
                log.info("nats_reached", connection=name, **line)
            return connection
        await asyncio.sleep(backoff.delay_s(tried, RETRY_S, 5.0, jitter=0.5))


def _require_files(settings: Settings) -> None:
    """Raises SettingsError for a file that no server could make right."""
    tls = settings.nats_tls
    login = next((name for name in ("NATS_CREDS", "NATS_NKEY") if getattr(settings, name.lower())), "NATS_SEED")
    try:
        require_key(nats_login(settings))
    except (OSError, UnusableKey) as error:
        shown = settings.nats_creds or settings.nats_nkey or "***"
        raise SettingsError(login, shown, str(error)) from error
    try:
        _tls(settings)
    except OSError as error:  # ssl.SSLError too
        name, path = ("NATS_CERT", tls.cert) if tls.cert else ("NATS_CA", tls.ca)
        raise SettingsError(name, path, f"PEM files that belong together ({describe(error)})") from error


def _refuses_login(error: BaseException) -> bool:
    return isinstance(error, nats.errors.AuthorizationError) or "authorization" in str(error).lower()


def _unavailable(settings: Settings, error: BaseException) -> str:
    where = ", ".join(settings.nats_servers)
    if _refuses_login(error):
        return (
            f"NATS at {where} refuses the login: set NATS_USER and NATS_PASSWORD, NATS_TOKEN, "
            "NATS_CREDS, NATS_SEED or NATS_NKEY (with NATS_JWT), or user-info in NATS_URL"
        )
    if isinstance(error, UnusableKey):
        return str(error)
    ended = [name for name, ends_at in credential_ends(settings).items() if ends_at < time.time() and name in _SHOWN]
    if ended:
        return f"{', '.join(ended)} has ended, and NATS at {where} does not take it ({describe(error)}): renew it"
    return f"no NATS at {where} ({describe(error)}): is NATS_URL right and the server up?"


def _options(settings: Settings, connection: Connection) -> dict[str, Any]:
    return {
        "servers": settings.nats_servers,
        "name": connection.name,
        "connect_timeout": CONNECT_TIMEOUT_S,
        "ping_interval": PING_INTERVAL_S,
        "max_outstanding_pings": 1,
        # Jittered per process, so that a restarted server is not met by the whole pool at one instant.
        "reconnect_time_wait": random.uniform(0.2, 1.0),
        "pending_size": _PENDING_BYTES,
        "disconnected_cb": connection._disconnected,
        "reconnected_cb": connection._reconnected,
        "error_cb": connection._failed,
        **_tls(settings),
        **nats_login(settings),
    }


def _tls(settings: Settings) -> dict[str, Any]:
    named = any(server.startswith(("tls://", "wss://")) for server in settings.nats_servers)
    paths = settings.nats_tls
    if not named and not paths.ca and not paths.cert:
        return {}  # a server that asks for TLS behind nats:// gets it all the same, with the system's CAs
    return {"tls": TlsFiles(paths).context()}


def nats_login(settings: Settings) -> dict[str, Any]:
    """NATS_CREDS, else an NKEY seed (with a JWT), else user and password, else the URL's user-info, else the token.

    The precedence is the Rust worker's (protocol/notification.md#login); percent-encoding in the URL is undone.
    """
    if settings.nats_creds or settings.nats_nkey or settings.nats_seed:
        return _login_by_key(settings)
    if settings.nats_user:
        return {"user": settings.nats_user, "password": settings.nats_password.reveal()}
    parts = urlsplit(settings.nats_url.reveal().split(",")[0])
    if parts.username and parts.password is None:
        return {"token": unquote(parts.username)}
    if parts.username:
        return {"user": unquote(parts.username), "password": unquote(parts.password or "")}
    if settings.nats_token:
        return {"token": settings.nats_token.reveal()}
    return {}


def _login_by_key(settings: Settings) -> dict[str, Any]:
    if importlib.util.find_spec("nkeys") is None:
        named = {"NATS_CREDS": settings.nats_creds, "NATS_NKEY": settings.nats_nkey}
        variable, shown = next(((name, path) for name, path in named.items() if path), ("NATS_SEED", "***"))
        lacks = "it is read with the package nkeys: pip install 'noetl-worker[nkeys]'"
        raise SettingsError(variable, shown, lacks)
    if settings.nats_creds:
        return {"user_credentials": settings.nats_creds}
    if not settings.nats_jwt:
        by_text = {"nkeys_seed_str": settings.nats_seed.reveal()}
        return by_text if settings.nats_seed else {"nkeys_seed": settings.nats_nkey}
    seed = settings.nats_seed.reveal() or Path(settings.nats_nkey).read_text(encoding="ascii", errors="replace").strip()
    return {"user_credentials": RawCredentials(_CREDS.format(jwt=settings.nats_jwt.reveal(), seed=seed))}
