"""What SQL cannot undo in a DuckDB, which runs inside of the worker: the memory it may use, the files it reaches."""

from __future__ import annotations

import logging
import re
from dataclasses import dataclass
from typing import Any, Final

from noetl_worker.errors import ConfigurationError
from noetl_worker.tools.artifact.file_roots import FILE_ROOTS, roots

_SHOWN: Final = re.compile(r"(?P<number>[\d.]+) (?P<unit>bytes|KiB|MiB|GiB|TiB|PiB)")
_UNITS: Final = ("bytes", "KiB", "MiB", "GiB", "TiB", "PiB")
_FIXED: Final = frozenset(
    {
        "allow_community_extensions",
        "allow_extension_repositories",
        "allow_persistent_secrets",
        "allow_unsigned_extensions",
        "allowed_configs",
        "allowed_directories",
        "allowed_paths",
        "autoinstall_extension_repository",
        "custom_extension_repository",
        "enable_external_access",
        "extension_directories",
        "extension_directory",
        "extension_repository_directory",
        "home_directory",
        "lock_configuration",
        "log_query_path",
        "profile_output",
        "profiling_output",
        "python_enable_replacements",
        "secret_directory",
        "temp_directory",
    }
)
"""Settings of files and extensions. Those of logs (`*log*_`) are fixed too: their files are written when DuckDB closes,
and one that cannot be written ends the process."""
_LOGS: Final = re.compile(r"(enable|disable)_logging|logging_\w+|\w+_log_types")

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class MemoryCap:
    """The most that a command may use. A step and its SQL may set less; what sets more has this."""

    kind: str
    setting: str
    """As `SET memory_limit` takes it."""
    shown: str
    """As DuckDB shows it, with one place after the point: `819.2 MiB`."""

    def keep(self, connection: Any) -> None:
        """Take a limit back that is above this one."""
        if _bytes(shown_limit(connection)) > _bytes(self.shown):
            connection.execute("SET memory_limit = ?", [self.setting])
            _log.warning(
                "%s: a memory limit above the %s that a command may have here is not kept; "
                "NOETL_DUCKDB_MEMORY_LIMIT is what one may have",
                self.kind,
                self.shown,
            )


def shown_limit(connection: Any) -> str:
    """What the connection may use now, as DuckDB shows it."""
    [(text,)] = connection.execute("SELECT current_setting('memory_limit')").fetchall()
    return str(text)


def _bytes(shown: str) -> float:
    match = _SHOWN.fullmatch(shown)
    if match is None:
        raise RuntimeError(f"DuckDB shows its memory limit as {shown!r}")
    return float(match["number"]) * float(1024 ** _UNITS.index(match["unit"]))


def keep_to_roots(duckdb: Any, connection: Any, kind: str) -> None:
    """Nothing outside of NOETL_WORKER_FILE_ROOTS from here on; no extension is loaded any more. Nothing without roots.

    Raises:
        ConfigurationError: this DuckDB cannot.
    """
    allowed = [str(root) for root in roots()]
    if not allowed:
        return
    known = [name for (name,) in connection.execute("SELECT name FROM duckdb_settings()").fetchall()]
    free = [name for name in known if name not in _FIXED and not _LOGS.fullmatch(name)]
    try:
        connection.execute("SET allowed_configs = ?", [free])
    except duckdb.Error as error:  # those before 1.5 follow links out of the directories, too
        text = f"{kind}: {FILE_ROOTS} needs DuckDB 1.5 or later, and {duckdb.__version__} is installed"
        raise ConfigurationError(text) from error
    connection.execute("SET allowed_directories = ?", [allowed])
    connection.execute("SET enable_external_access = false")
    connection.execute("SET lock_configuration = true")
