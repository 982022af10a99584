"""The first request to a DuckDB process: the database to open, and the settings of the process. The worker sends the
request as JSON."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Final

from noetl_worker.models.wire import JsonValue
from noetl_worker.tools.kinds.duckdb.paths import MEMORY
from noetl_worker.tools.kinds.duckdb.secrets import DuckdbSecret

MEMORY_LIMIT: Final = "NOETL_DUCKDB_MEMORY_LIMIT"
"""Environment variable with the maximum memory of one command, like 2GB. Absent: 80 % of the machine's memory, divided
by the number of DuckDB commands that may run at once. Without isolation each command may use 80 % of the machine's
memory."""
EXTENSION_DIRECTORY: Final = "NOETL_DUCKDB_EXTENSION_DIRECTORY"
"""Environment variable with the directory of extensions. Absent: ~/.duckdb/extensions."""
EXTENSION_REPOSITORY: Final = "NOETL_DUCKDB_EXTENSION_REPOSITORY"
"""Environment variable with the URL or directory from which extensions are installed. Absent: extensions.duckdb.org."""


@dataclass(frozen=True, slots=True)
class Attached:
    """A DuckLake catalog to attach. The process attaches the catalog before it limits SQL to the directories in
    NOETL_WORKER_FILE_ROOTS, because afterwards it cannot reach a catalog on a server."""

    text: str
    """The ATTACH statement. The credentials are not in the statement but in `Opening.secrets`."""
    name: str
    is_used: bool
    """True if the process runs `USE <catalog>` before the first statement, so that tables need no prefix."""


@dataclass(frozen=True, slots=True)
class Opening:
    """The database of a command, and the settings, extensions and secrets that DuckDB needs before the first
    statement."""

    kind: str
    database: str = MEMORY
    read_only: bool = False
    memory_limit: str | None = None
    threads: int | None = None
    extensions: tuple[str, ...] = ()
    secrets: tuple[DuckdbSecret, ...] = ()
    attach: Attached | None = None


@dataclass(frozen=True, slots=True)
class Surroundings:
    """Environment variables, directories and limits of a DuckDB process. The worker chooses these values, not the
    step."""

    directory: str
    """Directory for temporary files of this command alone."""
    cwd: str
    environment: Mapping[str, str]
    settings: Mapping[str, str]
    """Name -> value of the operator's environment variables for DuckDB."""
    roots: tuple[str, ...]
    is_restricted: bool
    """True if Landlock, the kernel's file sandbox, confines the process. Landlock denies the paths in `hidden` or, with
    `roots`, all paths outside the roots."""
    hidden: tuple[str, ...]
    share_bytes: int
    """Maximum bytes of memory for the command if NOETL_DUCKDB_MEMORY_LIMIT is absent; 0: no limit."""


@dataclass(frozen=True, slots=True)
class FirstRequest:
    """Settings in the first request to a DuckDB process: the database to open and the environment. The request also has
    the first work to do, such as a script."""

    opening: Opening
    surroundings: Surroundings

    @property
    def spill(self) -> str:
        """Return the directory for DuckDB's temporary files, which DuckDB creates and removes.

        A command that writes a database file gets a directory beside that file, because the file's disk has room. Other
        commands get a directory in the command's own temporary directory.
        """
        is_beside = self.opening.database.startswith("/") and not self.opening.read_only
        own = Path(self.surroundings.directory)
        return f"{self.opening.database}.{own.name}.tmp" if is_beside else str(own / "duckdb")

    def request(self) -> dict[str, JsonValue]:
        return {"opening": asdict(self.opening), "surroundings": asdict(self.surroundings)}

    def reached(self) -> tuple[str, ...]:
        """Return the directories that Landlock, the kernel's file sandbox, leaves open to the process. Return () if
        NOETL_WORKER_FILE_ROOTS is empty: then all directories except `hidden` are open."""
        around = self.surroundings
        if not around.roots:
            return ()
        extensions = around.settings.get(EXTENSION_DIRECTORY) or f"{around.environment.get('HOME', '')}/.duckdb"
        database = (str(Path(self.opening.database).parent),) if self.opening.database.startswith("/") else ()
        return (*around.roots, *database, around.directory, extensions)

    @classmethod
    def from_request(cls, request: Mapping[str, Any]) -> FirstRequest:
        opening, attach = request["opening"], request["opening"]["attach"]
        secrets = tuple(DuckdbSecret(**secret) for secret in opening["secrets"])
        attached = Attached(**attach) if attach else None
        return cls(
            Opening(**{**opening, "secrets": secrets, "attach": attached}),
            Surroundings(**request["surroundings"]),
        )
