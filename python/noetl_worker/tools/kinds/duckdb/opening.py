"""The database to open and its surroundings, sent by the worker to DuckDB's process as one JSON object."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Final

from noetl_worker.models.wire import JsonValue
from noetl_worker.tools.kinds.duckdb.paths import MEMORY
from noetl_worker.tools.kinds.duckdb.secrets import DuckdbSecret

MEMORY_LIMIT: Final = "NOETL_DUCKDB_MEMORY_LIMIT"
"""Variable: maximum memory of one command, like 2GB; absent: its share, without isolation 80 % of the machine each."""
EXTENSION_DIRECTORY: Final = "NOETL_DUCKDB_EXTENSION_DIRECTORY"
"""Variable: directory in which extensions are looked for and installed; absent: ~/.duckdb/extensions."""
EXTENSION_REPOSITORY: Final = "NOETL_DUCKDB_EXTENSION_REPOSITORY"
"""Variable: URL or directory from which extensions are installed, for a mirror; absent: extensions.duckdb.org."""
SETTINGS: Final = (MEMORY_LIMIT, EXTENSION_DIRECTORY, EXTENSION_REPOSITORY)


@dataclass(frozen=True, slots=True)
class Attached:
    """A DuckLake catalog, attached before SQL is limited to the file roots, because these allow no server."""

    text: str
    """The ATTACH statement; the credentials are in the secrets."""
    name: str
    is_used: bool
    """True if the catalog is in use when the first statement runs."""


@dataclass(frozen=True, slots=True)
class Opening:
    """The database to open, and everything set up before the first statement."""

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
    """The environment of a DuckDB process, and the worker's settings that it needs."""

    directory: str
    """Directory for temporary files of this command alone."""
    cwd: str
    environment: Mapping[str, str]
    settings: Mapping[str, str]
    """The worker's variables for DuckDB that are set."""
    roots: tuple[str, ...]
    is_restricted: bool
    """True if Landlock denies the process the `hidden` paths or, with roots, all paths outside them."""
    hidden: tuple[str, ...]
    share_bytes: int
    """Maximum memory that the command may set if NOETL_DUCKDB_MEMORY_LIMIT is absent; 0: no limit."""


@dataclass(frozen=True, slots=True)
class FirstRequest:
    """The first request to a DuckDB process, without the work it is to do."""

    opening: Opening
    surroundings: Surroundings

    @property
    def spill(self) -> str:
        """Return the directory for temporary files, which DuckDB creates and removes. For a file that is written it
        lies beside the file, whose disk has room for it."""
        is_beside = self.opening.database.startswith("/") and not self.opening.read_only
        own = Path(self.surroundings.directory)
        return f"{self.opening.database}.{own.name}.tmp" if is_beside else str(own / "duckdb")

    def request(self) -> dict[str, JsonValue]:
        return {"opening": asdict(self.opening), "surroundings": asdict(self.surroundings)}

    def reached(self) -> tuple[str, ...]:
        """Return the directories that this process needs if file roots are set; (): everything that is not hidden."""
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
