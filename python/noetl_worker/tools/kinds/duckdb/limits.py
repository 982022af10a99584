"""Limits on the files and the memory that a DuckDB connection may use. SQL cannot remove these limits."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any, Final

from noetl_worker.errors import ConfigurationError
from noetl_worker.tools.file_roots import FILE_ROOTS

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
"""DuckDB settings about files and extensions, which SQL may not change if NOETL_WORKER_FILE_ROOTS is set. Neither may
SQL then change the log settings in `_LOGS`: DuckDB can write logs to files."""
_LOGS: Final = re.compile(r"(enable|disable)_logging|logging_\w+|\w+_log_types")


def limit_bytes(connection: Any) -> int:
    """Return the memory limit of a connection in bytes, parsed from text like `819.2 MiB`, as DuckDB shows the
    limit."""
    [(shown,)] = connection.execute("SELECT current_setting('memory_limit')").fetchall()
    match = _SHOWN.fullmatch(str(shown))
    if match is None:
        raise RuntimeError(f"DuckDB shows its memory limit as {shown!r}: report this")
    return round(float(match["number"]) * float(1024 ** _UNITS.index(match["unit"])))


def keep_to_roots(duckdb: Any, connection: Any, kind: str, roots: Sequence[str]) -> None:
    """Allow SQL on this connection only files in the directories `roots` and the extensions that are already loaded. If
    `roots` is empty, change nothing.

    Raises:
        ConfigurationError: this version of DuckDB cannot be limited.
    """
    if not roots:
        return
    known = [name for (name,) in connection.execute("SELECT name FROM duckdb_settings()").fetchall()]
    free = [name for name in known if name not in _FIXED and not _LOGS.fullmatch(name)]
    try:
        connection.execute("SET allowed_configs = ?", [free])
    except duckdb.Error as error:  # versions before 1.5 also follow links out of the directories
        text = f"{kind}: {FILE_ROOTS} needs DuckDB 1.5 or later, not {duckdb.__version__}: install a newer one"
        raise ConfigurationError(text) from error
    connection.execute("SET allowed_directories = ?", [list(roots)])
    connection.execute("SET enable_external_access = false")
    connection.execute("SET lock_configuration = true")
