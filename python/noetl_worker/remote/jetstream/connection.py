"""Connection to NATS: login, timeouts, and the reaction to a server that goes away."""

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
from noetl_worker.remote.transport.credential_ends import credential_expiries
from noetl_worker.remote.transport.tls import TlsFiles
from noetl_worker.settings.settings import Settings

PING_INTERVAL_S: Final = 10
"""Seconds between pings. One unanswered ping ends the connection, so a stopped server is noticed within 20 s. With
nats-py's default this takes 6 minutes (protocol/jetstream.md#outages)."""
CONNECT_TIMEOUT_S: Final = 3
RETRY_S: Final = 0.5
"""Seconds to wait after the first failed attempt to connect. The wait doubles up to 5 s."""
ATTEMPTS: Final = 5
"""Largest number of attempts to connect, for a caller that does not wait until the server is up."""
CLOSE_S: Final = 2.0
_CREDS: Final = (
    "-----BEGIN NATS USER JWT-----\n{jwt}\n------END NATS USER JWT------\n\n"
    "-----BEGIN USER NKEY SEED-----\n{seed}\n------END USER NKEY SEED------\n"
)
"""Template of a .creds file. The login's JWT and seed are filled in."""
_ENDS: Final = (nats.errors.UnexpectedEOF, nats.errors.StaleConnectionError, OSError)
"""Errors with which nats-py reports that an open connection ended. They are logged at level debug only, because the
line `nats_disconnected` reports the outage."""
_SHOWN: Final = ("NATS_CERT", "NOETL_TLS_CLIENT_CERT", "NATS_CREDS", "NATS_JWT")
"""Settings whose credentials are checked for expiry if a connect fails. NATS refuses expired credentials without a
reason: the client sees only "unexpected EOF"."""
_PENDING_BYTES: Final = 8 * 1024 * 1024
_UNREACHABLE_ADVICE: Final = (
    "run `noetl-worker doctor`, which checks the way to the server and the login; the worker tries again"
)
_DISCONNECTED_ADVICE: Final = (
    "if this lasts, check that NATS is up and can be reached: the worker connects again by itself"
)
_LOST_ACKS: Final = "do nothing: JetStream delivers a message again whose ack did not arrive"
_ERROR_ADVICE: Final = (
    "run `noetl-worker doctor`, which tries each permission: a violation in `error` names its subject"
)
log = structlog.get_logger("noetl_worker.remote.jetstream")


class Connection:
    """A NATS client, with callbacks for the loss and the return of its connection."""

    def __init__(self, name: str, read_tls: Callable[[], dict[str, Any]] = dict, *, is_beside: bool = False) -> None:
        """Create a closed connection.

        Args:
            read_tls: returns nats-py's TLS options from the current files.
            is_beside: log outages only at level debug. Another connection to the same servers logs the same outages.
        """
        self.name = name
        self.client: Client = Client()
        self.on_disconnected: list[Callable[[], None]] = []
        self.on_reconnected: list[Callable[[], None]] = []
        self.last_error: Exception | None = None
        """Last error that nats-py reported. After a failed first connect nats-py itself raises only "no servers", and
        the cause is here."""
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
        self._troubles.note_success()
        if (line := self._outage.note_success()) is not None:
            (log.debug if self._is_beside else log.info)("nats_reconnected", connection=self.name, **line)
        for notify in self.on_reconnected:
            notify()

    async def _failed(self, error: Exception) -> None:
        # nats-py reconnects for ever and reports every failed attempt here; not each of them is logged.
        self.last_error = error
        if self.client.is_connecting or self.client.is_reconnecting:
            self._abandon()
        if self._is_up:
            self._renew_tls()
            if self._outage.is_on or isinstance(error, _ENDS):  # nats_disconnected reports it
                log.debug("nats_error", connection=self.name, error=describe(error))
                if self._outage.is_on:
                    self._log_outage(error)
            elif (line := self._troubles.note_failure(describe(error))) is not None:
                log.warning("nats_error", connection=self.name, **line, advice=_ERROR_ADVICE)

    def _log_outage(self, error: Exception | str) -> None:
        line = self._outage.note_failure(error if isinstance(error, str) else describe(error))
        if line is not None:
            (log.debug if self._is_beside else log.warning)(
                "nats_disconnected", connection=self.name, **line, advice=_DISCONNECTED_ADVICE
            )

    def _renew_tls(self) -> None:
        """Read the TLS files again before the next attempt to connect, since certificates can be replaced while the
        worker runs."""
        try:
            self.client.options.update(self._read_tls())
        except OSError as error:  # also ssl.SSLError: a file is half written, and a later attempt reads it
            advice = "check the files of NATS_CA, NATS_CERT and NATS_KEY; the worker reads them again at each attempt"
            log.warning("tls_files_unreadable", connection=self.name, error=describe(error), advice=advice)

    def _abandon(self) -> None:
        """Close the socket of a failed attempt to connect.

        After a refused or unanswered CONNECT, nats-py opens another transport without closing the earlier transport.
        Each such transport would hold a file descriptor until a garbage collection.
        """
        if self.client._transport is not None:
            self.client._transport.close()  # type: ignore[no-untyped-call]

    async def _open(self, options: dict[str, Any]) -> None:
        """Connect with a single attempt, and allow reconnecting afterwards. With reconnecting allowed from the start,
        nats-py would repeat its first connect for ever, even after a refusal."""
        self.client, self.last_error = Client(), None
        try:
            await self.client.connect(**{**options, "allow_reconnect": False, "max_reconnect_attempts": 1})
        except BaseException:  # a cancellation too: the worker stops before the server answers
            self._abandon()
            raise
        self.client.options.update(allow_reconnect=True, max_reconnect_attempts=-1)
        self._is_up = True

    async def reopen(self, settings: Settings) -> None:
        """Connect again after nats-py has closed the connection for good. If the attempt fails, the connection stays
        closed."""
        closed = self.client
        try:
            await self._open(_options(settings, self))
        except (OSError, asyncio.TimeoutError, nats.errors.Error) as error:
            self.client = closed  # a client that never connected does not call itself closed
            self._log_outage(self.last_error or error)
        else:
            await self._reconnected()

    def why_closed(self) -> str:
        """Return why nats-py stopped reconnecting, for example because a login expired or was refused twice."""
        error = self.client.last_error or self.last_error  # nats-py does not report the server's last error
        return f"NATS closed the connection for good ({describe(error) if error else 'no reason given'})"

    async def close(self) -> None:
        """Flush pending data, such as acks, and close the connection. Without a server this takes 2.5 s at most."""
        self._closing = True
        if self.client.is_closed:
            return
        error = await _close_within(self.client.drain() if self.is_connected else self.client.close(), CLOSE_S)
        if error is not None:
            log.warning("nats_close_failed", connection=self.name, error=describe(error), advice=_LOST_ACKS)
            await _close_within(self.client.close(), CLOSE_S / 4)


async def _close_within(closing: Coroutine[Any, Any, None], most_s: float) -> BaseException | None:
    """Wait at most `most_s` seconds for `closing`. Return the error of `closing`, or None if `closing` succeeded.

    `asyncio.wait_for` would wait longer: after the cancellation, nats-py still flushes for up to 10 s.
    """
    task = asyncio.ensure_future(closing)
    done, _ = await asyncio.wait({task}, timeout=most_s)
    if done:
        return asyncio.CancelledError() if task.cancelled() else task.exception()
    task.cancel()
    task.add_done_callback(lambda late: late.cancelled() or late.exception())  # nobody awaits it any more
    return asyncio.TimeoutError()


async def connect(
    settings: Settings,
    name: str,
    *,
    attempts: int | None = ATTEMPTS,
    is_beside: bool = False,
    on_wait: Callable[[str], None] = lambda _: None,
) -> Connection:
    """Connect to NATS. Once open, the connection reconnects for ever, with jitter.

    Args:
        name: name of the connection in `nats server report connections`.
        attempts: largest number of attempts to connect, or None to try until a server accepts the login.
        is_beside: log outages only at level debug. Another connection to the same servers logs the same outages.
        on_wait: called before each wait with the reason for the wait.
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
            if (line := outage.note_failure(reason)) is not None and not is_beside:
                log.warning("nats_unreachable", **line, advice=_UNREACHABLE_ADVICE)
        else:
            if (line := outage.note_success()) is not None and not is_beside:
                log.info("nats_reached", connection=name, **line)
            return connection
        await asyncio.sleep(backoff.delay_s(tried, RETRY_S, 5.0, jitter=0.5))


def _require_files(settings: Settings) -> None:
    """Raise SettingsError for a login or TLS file that no server could accept."""
    tls = settings.nats_tls
    try:
        require_key(nats_login(settings))
    except (OSError, UnusableKey) as error:
        raise SettingsError(*_key_setting(settings), str(error)) from error
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
    ended = [
        name for name, ends_at in credential_expiries(settings).items() if ends_at < time.time() and name in _SHOWN
    ]
    if ended:
        return f"{', '.join(ended)} has expired, and NATS at {where} refuses it ({describe(error)}): renew it"
    return f"no NATS at {where} ({describe(error)}): check NATS_URL, and that the server is up"


def _options(settings: Settings, connection: Connection) -> dict[str, Any]:
    return {
        "servers": settings.nats_servers,
        "name": connection.name,
        "connect_timeout": CONNECT_TIMEOUT_S,
        "ping_interval": PING_INTERVAL_S,
        "max_outstanding_pings": 1,
        # Random for each process, so that the whole pool does not connect to a restarted server at one instant.
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
        return {}  # a server that requires TLS at nats:// still gets it, with the system's CAs
    return {"tls": TlsFiles(paths).context()}


def nats_login(settings: Settings) -> dict[str, Any]:
    """Return the login as arguments of nats-py's `connect`. The first of these settings is used: NATS_CREDS, an NKEY
    seed (with a JWT), user and password, the user-info of NATS_URL (percent-decoded), the token.

    NoETL's published Rust worker has the same order (protocol/notification.md#login).
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


def _key_setting(settings: Settings) -> tuple[str, str]:
    """Return the name of the setting that holds the login's key, and its value for an error text. A seed is shown as
    `***`."""
    named = {"NATS_CREDS": settings.nats_creds, "NATS_NKEY": settings.nats_nkey}
    return next(((name, path) for name, path in named.items() if path), ("NATS_SEED", "***"))


def _login_by_key(settings: Settings) -> dict[str, Any]:
    if importlib.util.find_spec("nkeys") is None:
        lacks = "the package nkeys, which reads it, is missing: pip install 'noetl-worker[nkeys]'"
        raise SettingsError(*_key_setting(settings), lacks)
    if settings.nats_creds:
        return {"user_credentials": settings.nats_creds}
    if not settings.nats_jwt:
        by_text = {"nkeys_seed_str": settings.nats_seed.reveal()}
        return by_text if settings.nats_seed else {"nkeys_seed": settings.nats_nkey}
    seed = settings.nats_seed.reveal() or Path(settings.nats_nkey).read_text(encoding="ascii", errors="replace").strip()
    return {"user_credentials": RawCredentials(_CREDS.format(jwt=settings.nats_jwt.reveal(), seed=seed))}
