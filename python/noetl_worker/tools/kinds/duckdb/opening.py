"""What the process of a DuckDB is to open: the worker says it in one JSON object, the process reads it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Final

from noetl_worker.models.wire import JsonValue
from noetl_worker.tools.kinds.duckdb.paths import MEMORY
from noetl_worker.tools.kinds.duckdb.secrets import DuckdbSecret

MEMORY_LIMIT: Final = "NOETL_DUCKDB_MEMORY_LIMIT"
"""Variable: what one command may use, like 2GB; absent: its share, without isolation 80 % of the machine each."""
EXTENSION_DIRECTORY: Final = "NOETL_DUCKDB_EXTENSION_DIRECTORY"
"""Variable: where extensions are looked for and installed; absent: ~/.duckdb/extensions."""
EXTENSION_REPOSITORY: Final = "NOETL_DUCKDB_EXTENSION_REPOSITORY"
"""Variable: URL or directory that extensions are installed from, for a mirror; absent: extensions.duckdb.org."""
SETTINGS: Final = (MEMORY_LIMIT, EXTENSION_DIRECTORY, EXTENSION_REPOSITORY)


@dataclass(frozen=True, slots=True)
class Attached:
    """A catalog of DuckLake, attached before SQL is kept to the file roots, which allow no server."""

    text: str
    """ATTACH; its credentials are in the secrets."""
    name: str
    is_used: bool
    """Whether the first statement finds it in use."""


@dataclass(frozen=True, slots=True)
class Opening:
    """What is opened, and what is there before the first statement."""

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
    """Where a DuckDB runs: what of the worker's settings its process has to know."""

    directory: str
    """Directory of this command alone, for temporary files."""
    cwd: str
    environment: Mapping[str, str]
    settings: Mapping[str, str]
    """The worker's variables for DuckDB, as far as they are set."""
    roots: tuple[str, ...]
    is_restricted: bool
    """Whether Landlock keeps the process from what follows, or with roots to those."""
    hidden: tuple[str, ...]
    share_bytes: int
    """The most memory that it can set, where NOETL_DUCKDB_MEMORY_LIMIT does not say; 0: no cap."""


@dataclass(frozen=True, slots=True)
class FirstRequest:
    """The first request to the process of a DuckDB, without what it is to do then."""

    opening: Opening
    surroundings: Surroundings

    @property
    def spill(self) -> str:
        """Directory for temporary files, which DuckDB makes and removes: beside a file that is written, which has a
        disk with room for it."""
        is_beside = self.opening.database.startswith("/") and not self.opening.read_only
        own = Path(self.surroundings.directory)
        return f"{self.opening.database}.{own.name}.tmp" if is_beside else str(own / "duckdb")

    def request(self) -> dict[str, JsonValue]:
        return {"opening": asdict(self.opening), "surroundings": asdict(self.surroundings)}

    def reached(self) -> tuple[str, ...]:
        """With file roots, the directories that this process needs; (): all but what is hidden."""
        around = self.surroundings
        if not around.roots:
            return ()
        extensions = around.settings.get(EXTENSION_DIRECTORY) or f"{around.environment.get('HOME', '')}/.duckdb"
        database = (str(Path(self.opening.database).parent),) if self.opening.database.startswith("/") else ()
        return (*around.roots, *database, around.directory, extensions)

    @classmethod
    def of_request(cls, request: Mapping[str, Any]) -> FirstRequest:
        opening, attach = request["opening"], request["opening"]["attach"]
        secrets = tuple(DuckdbSecret(**secret) for secret in opening["secrets"])
        attached = Attached(**attach) if attach else None
        return cls(
            Opening(**{**opening, "secrets": secrets, "attach": attached}),
            Surroundings(**request["surroundings"]),
        )
