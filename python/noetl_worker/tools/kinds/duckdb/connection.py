"""Opening and setting up a DuckDB connection in the process of a command, for SQL, or for the source or target of a
transfer."""

from __future__ import annotations

import time
import uuid
from pathlib import Path
from typing import Any, Final

from noetl_worker.errors import ConfigurationError, ResourceShortage, ToolError
from noetl_worker.models import backoff
from noetl_worker.tools.kinds.duckdb.limits import keep_to_roots, limit_bytes
from noetl_worker.tools.kinds.duckdb.opening import (
    EXTENSION_DIRECTORY,
    EXTENSION_REPOSITORY,
    MEMORY_LIMIT,
    Attached,
    FirstRequest,
    Opening,
)
from noetl_worker.tools.kinds.duckdb.paths import MEMORY
from noetl_worker.tools.kinds.duckdb.prepared import PREPARED_SETTINGS, PreparedInstance
from noetl_worker.tools.kinds.duckdb.secrets import DuckdbSecret, parse_extension, quoted
from noetl_worker.tools.kinds.duckdb.statements import statement_failure
from noetl_worker.tools.process.confinement import limit_memory
from noetl_worker.tools.process.shortage import is_out_of_descriptors, is_shortage_text

_LOCK_WAIT_S: Final = 30.0
_LOCK_AGAIN_S: Final = (0.05, 1.0)
_LOCKED: Final = "lock"
"""Word by which DuckDB's error text shows that another process has the database file open."""
_BESIDE_BYTES: Final = 512 << 20
"""Bytes of memory that the process needs in addition to DuckDB's limit: for Python, libraries, a result and the stacks
of threads."""


def opened(duckdb: Any, prepared: PreparedInstance, start: FirstRequest) -> Any:
    """Return a DuckDB connection with the database, settings, extensions and secrets in `start`, the worker's first
    request. If another process has the database file open, wait for up to 30 s.

    Raises:
        ToolError: the database or catalog cannot be opened. The kinds connection and db_lock (another process has the
            file open) are retryable.
        ConfigurationError: the database cannot be opened as configured, or DuckDB refuses a setting, extension or
            secret.
        ResourceShortage: this machine is out of file descriptors or memory.
    """
    opening = start.opening
    if is_out_of_descriptors():  # checked here: without a descriptor DuckDB 1.5 ends the process
        raise ResourceShortage(f"{opening.kind}: no file descriptor is free to open {opening.database!r}")
    if opening.read_only and opening.database == MEMORY:
        raise ConfigurationError(
            f"{opening.kind}: 'read_only' needs a database file: name one in 'database', or leave 'read_only' out"
        )
    connection = _connected(duckdb, prepared, start)
    try:
        _load_and_log_in(duckdb, connection, opening)
        if opening.database != MEMORY:
            _attach_patiently(duckdb, connection, opening)
        if opening.attach is not None:
            _attach_catalog(duckdb, connection, opening.attach, opening.secrets)
        keep_to_roots(duckdb, connection, opening.kind, start.surroundings.roots)
        if opening.attach is not None and opening.attach.is_used:
            connection.execute(f'USE "{opening.attach.name}"')
    except BaseException:
        connection.close()
        raise
    return connection


# ── settings ────────────────────────────────────────────────────────────────────────────────────


def _connected(duckdb: Any, prepared: PreparedInstance, start: FirstRequest) -> Any:
    """Return a DuckDB connection to a database in memory, with the settings in `start`, the worker's first request.

    A database file is attached later, because a remote address needs extensions and secrets first.
    """
    opening, around = start.opening, start.surroundings
    share = f"{around.share_bytes}B" if around.share_bytes else None
    allowed = around.settings.get(MEMORY_LIMIT) or share
    settings = [
        # DuckDB's own choice is `.tmp` in the working directory, where a container may not be able to write.
        ("temp_directory", start.spill, "the directory for temporary files"),
        ("threads", opening.threads, "threads"),
        ("extension_directory", around.settings.get(EXTENSION_DIRECTORY), EXTENSION_DIRECTORY),
        ("custom_extension_repository", around.settings.get(EXTENSION_REPOSITORY), EXTENSION_REPOSITORY),
        ("memory_limit", allowed, MEMORY_LIMIT),
    ]
    connection = prepared.take() or duckdb.connect(config=PREPARED_SETTINGS)
    for name, value, origin in settings:
        if value:
            _set(duckdb, connection, opening.kind, name, value, origin)
    limit = around.share_bytes if allowed == share else limit_bytes(connection)
    if share:
        limit_memory(limit * 5 // 4 + _BESIDE_BYTES)
    if opening.memory_limit:
        _set(duckdb, connection, opening.kind, "memory_limit", opening.memory_limit, "memory_limit")
        if share and limit_bytes(connection) > limit:  # a step gets at most the command's limit
            _set(duckdb, connection, opening.kind, "memory_limit", allowed, MEMORY_LIMIT)
    return connection


def _set(duckdb: Any, connection: Any, kind: str, name: str, value: Any, origin: str) -> None:
    try:
        connection.execute(f"SET {name} = ?", [value])
    except duckdb.Error as error:
        raise ConfigurationError(f"{kind}: {origin} = {value!r} is refused: {error}; correct the value") from error


# ── extensions and secrets ──────────────────────────────────────────────────────────────────────


def _load_and_log_in(duckdb: Any, connection: Any, opening: Opening) -> None:
    for extension in dict.fromkeys([*opening.extensions, *(secret.extension for secret in opening.secrets)]):
        _load_extension(duckdb, connection, opening.kind, extension)
    for secret in opening.secrets:
        try:
            connection.execute(secret.statement())
        except duckdb.Error as error:
            message = secret.redacted_error(str(error))
            raise ConfigurationError(
                f"{opening.kind}: the secret {secret.name!r} is refused: {message}; correct its credential"
            ) from None


def _load_extension(duckdb: Any, connection: Any, kind: str, wanted: str) -> None:
    """Load an extension (`spatial`, or `h3 from community`). Install a missing extension first.

    Raises:
        ConfigurationError: `wanted` is not a name, or the extension is not installed and cannot be fetched.
        ResourceShortage: this machine is out of file descriptors or memory.
    """
    name, source = parse_extension(kind, wanted)
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
    """Raise ResourceShortage if the text of DuckDB's error reports a lack of descriptors or memory."""
    if is_shortage_text(str(error)):
        raise ResourceShortage(f"{what}: {error}") from error


# ── databases ───────────────────────────────────────────────────────────────────────────────────


def _attach_patiently(duckdb: Any, connection: Any, opening: Opening) -> None:
    bridge = f"noetl_{uuid.uuid4().hex}"  # a random name, which no attached file has
    connection.execute(f"ATTACH ':memory:' AS {bridge}; USE {bridge}; DETACH memory")
    waited_s, tries = 0.0, 1
    while True:
        try:
            connection.execute(f"ATTACH {quoted(opening.database)}{' (READ_ONLY)' if opening.read_only else ''}")
            break
        except duckdb.Error as error:
            text = f"Failed to open database {opening.database!r}: {error}"
            if is_shortage_text(str(error)):
                raise ResourceShortage(text) from error
            if opening.read_only and opening.database.startswith("/") and not Path(opening.database).exists():
                missing = f"{opening.kind}: there is no database file {opening.database!r} to read: name another one"
                raise ConfigurationError(missing) from error
            if _LOCKED not in str(error).lower():
                raise ToolError(text, kind="connection", retryable=True) from error
            if waited_s >= _LOCK_WAIT_S:
                raise ToolError(f"{text}; end the other process first", kind="db_lock", retryable=True) from error
            pause_s = backoff.delay_s(tries, *_LOCK_AGAIN_S, jitter=0.0)
            time.sleep(pause_s)
            waited_s, tries = waited_s + pause_s, tries + 1
    others = "SELECT database_name FROM duckdb_databases() WHERE NOT internal AND database_name <> ?"
    [(name,)] = connection.execute(others, [bridge]).fetchall()
    connection.execute('USE "{}"; DETACH {}'.format(name.replace('"', '""'), bridge))


def _attach_catalog(duckdb: Any, connection: Any, attach: Attached, secrets: tuple[DuckdbSecret, ...]) -> None:
    try:
        connection.execute(attach.text)
    except duckdb.Error as error:
        message = str(error)
        for secret in secrets:
            message = secret.redacted_error(message)
        text = f"cannot attach the catalog: {message}"
        if is_shortage_text(message):  # no statement has run, and the next attempt finds a catalog created here
            raise ResourceShortage(text) from None
        if "creating a new DuckLake is explicitly disabled" in message:
            raise ToolError(text, kind="not_found") from None
        if "lock" in message.lower():
            raise ToolError(text, kind="db_lock", retryable=True) from None
        if isinstance(error, duckdb.IOException):
            raise ToolError(text, kind="connection", retryable=True) from None
        raise ToolError(text, kind=statement_failure(error, "").kind) from None
