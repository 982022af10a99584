"""NATS connections of the tools `nats` and `subscription`. Commands with the same server and login share a connection.
Closing the tool closes all its connections.

Tools never use the worker's own connection. A playbook's messages must not delay deliveries and acks. Only the
playbook's credential decides what the playbook may do.
"""

from __future__ import annotations

import asyncio
import importlib.util
from collections import deque
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from typing import Any, ClassVar, Final
from urllib.parse import urlsplit

import anyio

from noetl_worker.errors import ConfigurationError, CredentialError, ResourceShortage, ToolError
from noetl_worker.models.wire import JsonValue
from noetl_worker.process.lookups import TOOLS
from noetl_worker.tools.contract import ToolContext
from noetl_worker.tools.credential import credential_data, first_given, written_data
from noetl_worker.tools.ending import ended
from noetl_worker.tools.kinds.nats.nats_fields import NatsLogin
from noetl_worker.tools.payload import MAX_RESULT_BYTES
from noetl_worker.tools.process.shortage import before_any_effect, is_shortage

CONNECT_TIMEOUT_S: Final = 5.0
COMMAND_BYTES: Final = 2 * MAX_RESULT_BYTES
"""Maximum bytes that a NATS server may send while one command runs. The limit is twice the maximum result size,
because the server may encode a result in base64, and may add JSON fields."""
_IDLE_BYTES: Final = 64 * 1024
"""Maximum bytes that a server may send while no command runs: pings and late answers."""
_RESETS: Final = 3
"""Number of retries if the server resets a new connection, before the tool reports the error."""
_CREDENTIAL_FIELDS: Final[Mapping[str, tuple[str, ...]]] = {
    "url": ("url", "nats_url", "servers", "nats_servers"),
    "user": ("user", "username", "nats_user", "nats_username"),
    "password": ("password", "nats_password"),
    "token": ("token", "nats_token"),
    "creds": ("creds", "nats_creds", "credentials"),
    "nkey": ("nkey", "nkey_seed", "nats_nkey", "seed"),
}
_NO_CONNECTION: Final = "a connection requires 'url', or 'auth' with the alias of a credential"
_CREDS_MARKS: Final = ("BEGIN NATS USER JWT", "BEGIN USER NKEY SEED")


@dataclass(frozen=True, slots=True)
class Address:
    """Server addresses and login of a connection. Commands with equal addresses share one connection."""

    servers: tuple[str, ...]
    user: str | None = field(default=None, repr=False)
    password: str | None = field(default=None, repr=False)
    token: str | None = field(default=None, repr=False)
    creds: str | None = field(default=None, repr=False)
    nkey: str | None = field(default=None, repr=False)

    @property
    def shown(self) -> str:
        """Return the server addresses without logins, for messages: `nats://host:4222` for
        `nats://user:password@host:4222`."""
        return ", ".join(_without_login(server) for server in self.servers)


def check_login(kind: str, fields: NatsLogin) -> None:
    """Check the NATS server addresses in a config's `url` and `auth`, before any credential is fetched.

    Raises:
        ConfigurationError: an address in `url` is malformed, or neither `url` nor `auth` can give an address.
    """
    written = written_data(fields.auth)
    url = fields.url or first_given(written or {}, _CREDENTIAL_FIELDS["url"])
    if not _servers(kind, url) and written is not None:
        raise ConfigurationError(f"{kind}: {_NO_CONNECTION}")


async def resolve_address(kind: str, fields: NatsLogin, context: ToolContext) -> Address:
    """Return the address and login. The tool's own fields win over the fields of the credential that `auth` names.

    Raises:
        ConfigurationError: there is no `auth`, and the tool's fields have no address, or an address is malformed.
        CredentialError: the alias is not known, the credential has no address, or its creds text is malformed.
    """
    with before_any_effect("to fetch the credential"):
        found = await credential_data(kind, fields.auth, context)
    own: dict[str, Any] = {name: getattr(fields, name) for name in ("url", "user", "password", "token")}
    values = {name: own.get(name) or first_given(found, names) for name, names in _CREDENTIAL_FIELDS.items()}
    servers = _servers(kind, values.pop("url"))
    if not servers:
        if fields.auth is None:
            raise ConfigurationError(f"{kind}: {_NO_CONNECTION}")
        raise CredentialError(f"{kind}: the credential has no 'url'; register it again with one, or give 'url'")
    for server in servers:
        if password := urlsplit(server).password:
            context.secrets.keep(password)
    creds = values["creds"]
    if creds is not None and not all(mark in str(creds) for mark in _CREDS_MARKS):
        # in a text without these marks nats-py would search them for ever
        raise CredentialError(f"{kind}: 'creds' must be the whole text of a .creds file: a user JWT and an nkey seed")
    return Address(servers, **{name: None if value is None else str(value) for name, value in values.items()})


def _servers(kind: str, url: JsonValue) -> tuple[str, ...]:
    """Return the server addresses in `url`. Raises ConfigurationError for a malformed address."""
    entries = url if isinstance(url, list) else str(url or "").split(",")
    servers = tuple(str(entry).strip() for entry in entries if str(entry).strip())
    for server in servers:
        try:
            parts = urlsplit(server if "://" in server else f"nats://{server}")
            is_one = bool(parts.hostname) and parts.port != 0
        except ValueError:
            is_one = False
        if not is_one:
            raise ConfigurationError(f"{kind}: url {_without_login(server)!r} is no address: write nats://host:4222")
    return servers


def _without_login(server: str) -> str:
    scheme, mark, rest = server.rpartition("://")
    return f"{scheme}{mark}{rest.rpartition('@')[2]}"


class _Entry:
    """Connection to one address. `client` is None until the connection is open; `users` counts the commands that use
    the connection."""

    def __init__(self) -> None:
        self.loop = asyncio.get_running_loop()
        self.making = asyncio.Lock()
        self.client: Any = None
        self.users = 0
        self.refusals: deque[str] = deque(maxlen=100)
        """Permission violations that the server reported. The server never answers the refused request itself."""


class Connections:
    """NATS connections of one tool, kept open for later commands with the same server and login.

    Args:
        max_idle: maximum number of unused connections kept open; the least recently used connection is closed first.
    """

    def __init__(self, max_idle: int = 16) -> None:
        self._max_idle = max_idle
        self._entries: dict[Address, _Entry] = {}

    @asynccontextmanager
    async def lease(self, address: Address) -> AsyncIterator[Any]:
        """Provide a connected nats-py client, shared with other commands of the same credential.

        Raises:
            ToolError: no connection (kind connection, retryable), or the server refused the login (kind auth).
        """
        entry = self._entries.pop(address, None)
        if entry is None or entry.loop is not asyncio.get_running_loop():
            entry = _Entry()  # a connection works only on the loop that made it
        self._entries[address] = entry  # last in the order: used most recently
        if not entry.users:
            entry.refusals.clear()  # caused by an earlier command; else the next timeout would report it
        entry.users += 1
        try:
            async with entry.making:
                if entry.client is None or not entry.client.is_connected:
                    entry.client = await self._connect(address, entry)
            entry.client.left += COMMAND_BYTES
            yield entry.client
        finally:
            entry.users -= 1
            if entry.client is not None:
                entry.client.left = min(entry.client.left, _IDLE_BYTES + entry.users * COMMAND_BYTES)
            await self._close_surplus()

    def refusal(self, address: Address) -> str | None:
        """Remove and return the last permission violation that the server reported on the connection to `address`. The
        server does not answer a forbidden request, so the violation can explain a timeout."""
        entry = self._entries.get(address)
        return entry.refusals.pop() if entry is not None and entry.refusals else None

    async def aclose(self) -> None:
        """Close all connections. A command that still uses a connection fails."""
        entries = list(self._entries.values())
        self._entries.clear()
        for entry in entries:
            await _close(entry)

    async def _connect(self, address: Address, entry: _Entry) -> Any:
        """Return a new connection. If the server resets the new connection, try again, at most three times.

        A server that refuses a login closes the connection at once. The server's reason is then often lost (in 10 of
        100 logins on a busy machine). After a single attempt, a wrong password could look like a network failure.
        """
        for _ in range(_RESETS):
            try:
                return await self._connect_once(address, entry)
            except ToolError as error:
                if not isinstance(error.__cause__, (ConnectionResetError, BrokenPipeError)):
                    raise
        return await self._connect_once(address, entry)

    async def _connect_once(self, address: Address, entry: _Entry) -> Any:
        import nats.errors

        from noetl_worker.remote.jetstream.client import Client

        problems: list[Exception] = []

        async def note(error: Exception) -> None:
            problems[:] = [error]
            if "permissions violation" in str(error).lower():
                entry.refusals.append(str(error))

        async def tell_receivers() -> None:
            for receive in client.receivers.values():
                receive(None)

        login = _login_options(address)
        client: Any = Client(TOOLS)
        client.left = _IDLE_BYTES
        try:
            # not asyncio.wait_for: up to Python 3.11 it loses a cancellation that arrives with the new connection
            with anyio.fail_after(CONNECT_TIMEOUT_S):
                await client.connect(
                    list(address.servers),
                    name="noetl-worker-tool",
                    # A lost connection is closed, and the next command makes a new one: nothing reconnects by itself.
                    allow_reconnect=False,
                    max_reconnect_attempts=1,
                    reconnect_time_wait=0,
                    connect_timeout=int(CONNECT_TIMEOUT_S),
                    error_cb=note,
                    closed_cb=tell_receivers,
                    **login,
                )
        except BaseException as error:
            with suppress(AssertionError):  # the library raises it when closed before its first byte
                await client.close()  # a refused login leaves its socket open
            if isinstance(error, (nats.errors.Error, OSError, asyncio.TimeoutError)):
                cause = problems[-1] if problems else error
                raise _refused(address, cause) from cause
            raise
        return client

    async def _close_surplus(self) -> None:
        unused = [address for address, entry in self._entries.items() if entry.users == 0]
        for address in unused[: max(0, len(unused) - self._max_idle)]:
            # The library never resumes a close that was cancelled: the socket would stay open.
            await ended(asyncio.ensure_future(_close(self._entries.pop(address))))


class NatsConnectionTool:
    """Base class of the tools `nats` and `subscription`. Each tool object has its own connections."""

    requires: ClassVar[Mapping[str, str]] = {"nkeys": "noetl-worker[nkeys] for creds and nkeys"}

    def __init__(self, connections: Connections | None = None) -> None:
        self._connections = connections or Connections()

    async def aclose(self) -> None:
        """Close all NATS connections of this tool."""
        await self._connections.aclose()


def _login_options(address: Address) -> dict[str, Any]:
    if address.creds is None and address.nkey is None:
        return {"user": address.user, "password": address.password, "token": address.token}
    if importlib.util.find_spec("nkeys") is None:  # nats-py imports nkeys only to sign
        raise ConfigurationError(
            "nats: a credential with 'creds' or 'nkey' needs nkeys: pip install 'noetl-worker[nkeys]'"
        )
    if address.creds is not None:
        from nats.aio.client import RawCredentials

        return {"user_credentials": RawCredentials(address.creds)}
    return {"nkeys_seed_str": address.nkey}


def _refused(address: Address, error: BaseException) -> ToolError:
    from noetl_worker.remote.jetstream.client import UnusableKey

    if isinstance(error, UnusableKey):
        text = f"cannot connect to {address.shown}: the key of the credential is no NKEY seed, which begins with SU"
        return ToolError(text, kind="auth")
    text = str(error) or type(error).__name__
    if is_shortage(error):  # every operation begins with a connection, so nothing has run yet
        return ResourceShortage(f"the worker lacks resources to connect to {address.shown}: {text}")
    is_login = any(word in text.lower() for word in ("authorization", "authentication"))
    shown = f"cannot connect to {address.shown}: {text}"
    return ToolError(shown, kind="auth" if is_login else "connection", retryable=not is_login)


async def _close(entry: _Entry) -> None:
    client, entry.client = entry.client, None
    if client is not None and not client.is_closed:
        await client.close()
