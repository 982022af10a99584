"""One opened DuckDB in a thread of its own, from opening to closing; it can be interrupted from outside."""

from __future__ import annotations

import asyncio
import os
import re
import tempfile
import threading
import uuid
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, TypeVar

from noetl_worker import backoff
from noetl_worker.errors import ConfigurationError, ResourceShortage, ToolError
from noetl_worker.tools.artifact import file_roots
from noetl_worker.tools.duckdb import readers as duckdb_readers
from noetl_worker.tools.duckdb.limits import MemoryCap, keep_to_roots, shown_limit
from noetl_worker.tools.duckdb.paths import MEMORY
from noetl_worker.tools.duckdb.secrets import DuckdbSecret
from noetl_worker.tools.ending import ended
from noetl_worker.tools.kinds import requirements
from noetl_worker.tools.process import landlock
from noetl_worker.tools.process.confinement import UNCONFINED, Confinement
from noetl_worker.tools.process.shortage import (
    is_out_of_descriptors,
    is_shortage_text,
    raise_shortage,
    started,
)

T = TypeVar("T")

MEMORY_LIMIT: Final = "NOETL_DUCKDB_MEMORY_LIMIT"
"""Variable: what one command may use, like 2GB; absent: its share, without isolation 80 % of the machine each."""
EXTENSION_DIRECTORY: Final = "NOETL_DUCKDB_EXTENSION_DIRECTORY"
"""Variable: where extensions are looked for and installed; absent: ~/.duckdb/extensions."""
EXTENSION_REPOSITORY: Final = "NOETL_DUCKDB_EXTENSION_REPOSITORY"
"""Variable: URL or directory that extensions are installed from, for a mirror; absent: extensions.duckdb.org."""
_INTERRUPT_AGAIN_S: Final = 0.05
_LOCK_WAIT_S: Final = 30.0
_LOCK_AGAIN_S: Final = (0.05, 1.0)
_LOCKED: Final = ("lock", "already attached")
"""What DuckDB says of a file that another process has open, or another command of this one."""
_EXTENSION: Final = re.compile(r"(?P<name>[a-z0-9_]+)(?: +from +(?P<source>[a-z0-9_]+))?", re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class Opening:
    """What is opened, and what is there before the first statement."""

    kind: str
    database: str = MEMORY
    read_only: bool = False
    memory_limit: str | None = None
    confinement: Confinement = UNCONFINED
    """Its `duckdb_bytes` are the command's share of memory: with one it can set no more than this, or than the
    environment says; 0: no cap. Where it is on, the kernel's files and the worker's own are out of reach, however SQL
    names them (`process/landlock.py`)."""
    threads: int | None = None
    extensions: tuple[str, ...] = ()
    secrets: tuple[DuckdbSecret, ...] = ()
    attach: Callable[[Any, Any], None] | None = None
    """(duckdb, connection): what is attached before SQL is kept to the file roots, which allow no server."""


@dataclass(frozen=True, slots=True)
class Opened:
    """A connection with everything of `opening` set up. Close this, not the connection."""

    opening: Opening
    connection: Any
    memory: MemoryCap | None = None

    def close(self) -> None:
        """Raises ToolError for a reader whose file was written meanwhile."""
        if self.opening.read_only:
            duckdb_readers.detach(self.connection, self.opening.database)
        else:
            self.connection.close()


def opened(duckdb: Any, opening: Opening, stopped: threading.Event) -> Opened:
    """Open and set up; waits for a file that another process has locked.

    Raises:
        ToolError: connection, or db_lock (both retryable).
        ConfigurationError: a database that cannot be, a setting, an extension or a secret that is refused.
        ResourceShortage: this machine has no descriptor for it.
    """
    if opening.confinement.is_on:
        _confine_thread(opening.kind)
    if is_out_of_descriptors():  # not left to DuckDB: 1.5 ends the process where it cannot open what it needs
        raise ResourceShortage(f"{opening.kind}: no descriptor to be had for {opening.database!r}")
    if opening.read_only and opening.database == MEMORY:
        raise ConfigurationError(f"{opening.kind}: 'read_only' is for a 'database' file, and none is named")
    # An instance of its own, which has the file attached once it is set up. Opened by its name, a file is one instance
    # for all of this process, whose secrets (another tenant's) and settings each of them has.
    connection = duckdb.connect()
    try:
        memory = _set_up(duckdb, connection, opening)
        if opening.database != MEMORY:
            _attach_patiently(duckdb, connection, opening, stopped)
        if opening.attach is not None:
            opening.attach(duckdb, connection)
        keep_to_roots(duckdb, connection, opening.kind)
    except BaseException:
        connection.close()
        raise
    return Opened(opening, connection, memory)


def _confine_thread(kind: str) -> None:
    """For good: those that DuckDB starts here are confined with it."""
    try:
        landlock.restrict_thread(file_roots.hidden())
    except OSError as error:
        raise_shortage(f"{kind}: no room to confine DuckDB", error)
        text = f"{kind}: DuckDB cannot be kept from /proc and /sys here: {error}; NOETL_WORKER_ISOLATION=off runs it so"
        raise ConfigurationError(text) from error


def _attach_patiently(duckdb: Any, connection: Any, opening: Opening, stopped: threading.Event) -> None:
    bridge = duckdb_readers.bridged(connection)
    waited_s, tries = 0.0, 1
    while True:
        try:
            duckdb_readers.attach(duckdb, connection, opening.database, bridge, read_only=opening.read_only)
            return
        except duckdb.Error as error:
            text = f"Failed to open database {opening.database!r}: {error}"
            if is_shortage_text(str(error)):
                raise ResourceShortage(text) from error
            if opening.read_only and opening.database.startswith("/") and not Path(opening.database).exists():
                missing = f"{opening.kind}: there is no database file {opening.database!r} to read"
                raise ConfigurationError(missing) from error
            if not any(word in str(error).lower() for word in _LOCKED):
                raise ToolError(text, kind="connection", retryable=True) from error
            pause_s = backoff.delay_s(tries, *_LOCK_AGAIN_S, jitter=0.0)
            if waited_s >= _LOCK_WAIT_S or stopped.wait(pause_s):
                raise ToolError(text, kind="db_lock", retryable=True) from error
            waited_s, tries = waited_s + pause_s, tries + 1


class Stepwise:
    """A DuckDB that is used step by step from the event loop, each step in one thread of its own.

    `async with Stepwise(opening) as steps: await steps.do(lambda connection: ...)`. A cancelled step is interrupted,
    and has ended before the cancellation goes on. The thread is not one of the event loop's default ones: a long query
    would hold up other work.
    """

    def __init__(self, opening: Opening) -> None:
        self._opening = opening
        self._opened: Opened | None = None
        self._in_use = threading.Lock()  # held to interrupt: a connection that is closed meanwhile raises
        self._stopped = threading.Event()
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="duckdb")

    async def __aenter__(self) -> Stepwise:
        try:
            await self._interruptibly(self._open)
        except BaseException as error:
            await self.__aexit__(type(error))  # cancelled, and opened all the same
            raise
        return self

    async def __aexit__(self, *failure: object) -> None:
        try:
            if (ready := self._opened) is not None:
                self._opened = None  # from here on there is nothing to interrupt: a closed connection raises
                await ended(asyncio.wrap_future(started(self._thread, ready.close)))
        except ToolError:
            if failure[0] is None:  # the failure that is under way says more, and may be a cancellation
                raise
        finally:
            self._thread.shutdown(wait=False)

    async def do(self, step: Callable[[Any], T]) -> T:
        if self._opened is None:
            raise RuntimeError("a Stepwise is used inside its `async with`")
        connection = self._opened.connection
        return await self._interruptibly(lambda: step(connection))

    @property
    def is_stopped(self) -> bool:
        return self._stopped.is_set()

    def interrupt(self) -> None:
        """Interrupt the statement under way; nothing when there is none, before the opening or from the closing on."""
        self._stopped.set()
        with self._in_use:
            if self._opened is not None:
                self._opened.connection.interrupt()

    def keep_memory(self) -> None:
        """In the thread, after a statement that may have set another memory limit."""
        if self._opened is not None and self._opened.memory is not None:
            self._opened.memory.keep(self._opened.connection)

    def _open(self) -> None:
        self._opened = opened(library(), self._opening, self._stopped)

    async def _interruptibly(self, call: Callable[[], T]) -> T:
        submitted = started(self._thread, call)
        running = asyncio.wrap_future(submitted)
        try:
            await asyncio.wait({running})
        except asyncio.CancelledError:
            await ended(asyncio.ensure_future(self._interrupt(submitted, running)))
            raise
        return running.result()

    async def _interrupt(self, submitted: Future[Any], running: asyncio.Future[Any]) -> None:
        """Interrupt until the thread has ended: an interrupt between two statements is lost."""
        if submitted.cancel():  # it was still waiting for the thread
            return
        while not running.done():
            self.interrupt()
            await asyncio.wait({running}, timeout=_INTERRUPT_AGAIN_S)
        if not running.cancelled():
            running.exception()  # an interrupted statement: reported as timeout or cancellation


# ── setting up ──────────────────────────────────────────────────────────────────────────────────


def _set_up(duckdb: Any, connection: Any, opening: Opening) -> MemoryCap | None:
    settings: list[tuple[str, Any, str]] = [
        ("threads", opening.threads, "threads"),
        ("extension_directory", os.environ.get(EXTENSION_DIRECTORY), EXTENSION_DIRECTORY),
        ("custom_extension_repository", os.environ.get(EXTENSION_REPOSITORY), EXTENSION_REPOSITORY),
    ]
    # DuckDB's own choice is `.tmp` in the working directory, which a container may not let it write.
    directory = str(Path(tempfile.gettempdir()) / f"noetl-duckdb-{uuid.uuid4().hex}")
    if opening.database.startswith("/") and not opening.read_only:
        directory = f"{opening.database}.tmp"  # beside the file, as where it is opened by its name
    settings.append(("temp_directory", directory, "the directory for temporary files"))
    # A table that does not exist must not become a Python variable of the worker's, nor its error show our code.
    connection.execute("SET python_enable_replacements = false")
    # A persistent secret would be a file in our home directory, which every later execution can use.
    connection.execute("SET allow_persistent_secrets = false")
    for name, value, origin in settings:
        if value:
            _set(duckdb, connection, opening.kind, name, value, origin)
    memory = _limit_memory(duckdb, connection, opening)
    for extension in dict.fromkeys([*opening.extensions, *(secret.extension for secret in opening.secrets)]):
        load_extension(duckdb, connection, opening.kind, extension)
    for secret in opening.secrets:
        try:
            connection.execute(secret.statement())
        except duckdb.Error as error:
            message = secret.without_values(str(error))
            raise ConfigurationError(f"{opening.kind}: the secret {secret.name!r} is refused: {message}") from None
    return memory


def _set(duckdb: Any, connection: Any, kind: str, name: str, value: Any, origin: str) -> None:
    try:
        connection.execute(f"SET {name} = ?", [value])
    except duckdb.Error as error:
        raise ConfigurationError(f"{kind}: {origin} = {value!r} is refused: {error}") from error


def _limit_memory(duckdb: Any, connection: Any, opening: Opening) -> MemoryCap | None:
    memory = None
    share = f"{opening.confinement.duckdb_bytes}B" if opening.confinement.duckdb_bytes else None
    allowed = os.environ.get(MEMORY_LIMIT) or share
    if allowed:
        _set(duckdb, connection, opening.kind, "memory_limit", allowed, MEMORY_LIMIT)
        memory = MemoryCap(opening.kind, allowed, shown_limit(connection)) if share else None
    if opening.memory_limit:
        _set(duckdb, connection, opening.kind, "memory_limit", opening.memory_limit, "memory_limit")
        if memory is not None:
            memory.keep(connection)
    return memory


def extension_of(kind: str, wanted: str) -> tuple[str, str]:
    """(name, ` FROM <repository>` or nothing) of `spatial` or `h3 from community`.

    Raises:
        ConfigurationError: it is no name.
    """
    match = _EXTENSION.fullmatch(wanted.strip())
    if match is None:
        raise ConfigurationError(f"{kind}: extension {wanted!r} is no name; write `name` or `name from repository`")
    return match["name"], f" FROM {match['source']}" if match["source"] else ""


def load_extension(duckdb: Any, connection: Any, kind: str, wanted: str) -> None:
    """Load an extension, installing it first when it is not there: `spatial`, or `h3 from community`.

    Raises:
        ConfigurationError: not a name, or it is neither installed nor to be had from here.
        ResourceShortage: this machine has no descriptor for it.
    """
    name, source = extension_of(kind, wanted)
    try:
        connection.execute(f"LOAD {name}")
    except duckdb.Error as unloaded:
        _check_room(f"{kind}: extension {name!r}", unloaded)
        try:
            connection.execute(f"INSTALL {name}{source}; LOAD {name}")
        except duckdb.Error as error:
            _check_room(f"{kind}: extension {name!r}", error)
            message = str(error).split("\n", 1)[0]
            raise ConfigurationError(
                f"{kind}: extension {name!r} is not installed and cannot be fetched: {message}; install it for DuckDB "
                f"{duckdb.__version__} where the worker runs, or name a directory that has it in {EXTENSION_DIRECTORY}"
            ) from error


def _check_room(what: str, error: Exception) -> None:
    """Raises ResourceShortage when it failed for want of descriptors or memory, which DuckDB says in words alone."""
    if is_shortage_text(str(error)):
        raise ResourceShortage(f"{what}: {error}") from error


def library() -> Any:
    """duckdb. Raises what `requirements.library` raises."""
    return requirements.library("duckdb", "duckdb")
