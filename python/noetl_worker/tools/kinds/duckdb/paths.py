"""Checks of the file names in a step's fields. On a kernel without Landlock the file names in SQL text are checked too.

A check refuses a file that playbooks may not read. The check cannot see a file name that SQL builds from parts. With
`NOETL_WORKER_FILE_ROOTS` DuckDB itself refuses such a file.
"""

from __future__ import annotations

import fnmatch
import os
import re
import stat
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path
from typing import Any, Final

from noetl_worker.errors import ConfigurationError
from noetl_worker.tools.contract import ToolSettings
from noetl_worker.tools.file_roots import FILE_ROOTS, KERNEL, checked, is_forbidden, roots

MEMORY: Final = ":memory:"
_ADDRESS: Final = re.compile(r"(?:https?|s3[an]?|gs|gcs|r2|hf|az|azure|abfss?)://")
_FILE: Final = re.compile(r"^file:(?://(?:localhost)?)?(?=/)")
_KIND: Final = re.compile(r"^\w+:(?://(?:localhost)?)?(?=/)")
"""Pattern of a scheme or database type before an absolute path, as in `file:///proc` and `sqlite:/proc`. The prefix is
removed before the path is checked."""
_SCHEME: Final = re.compile(r"[^/]+://")
_NO_PATH: Final = re.compile(r"~|[^/]*:")
"""Pattern of the beginning of a name that is not a plain path: `~`, which DuckDB expands, or a database type
(`sqlite:x`)."""
_QUOTED: Final = re.compile(r"'((?:[^']|'')*)'|\"((?:[^\"]|\"\")*)\"|\$(\w*)\$(.*?)\$\3\$", re.DOTALL)
_MAGIC: Final = re.compile(r"[*?\[]")
_LONGEST: Final = 4096
"""Maximum number of characters of a path. A longer text in SQL is not checked as a path."""


def canonical(field: str, given: str, settings: ToolSettings, *, is_directory: bool = False) -> str:
    """Check a database or directory that a step's field names, and return the same name for all its spellings.

    The name is the unchanged address of a remote database, `MEMORY`, or an absolute path without symbolic links.

    Raises:
        ConfigurationError: `given` is neither a path nor an address, or playbooks may not use the file. If
            NOETL_WORKER_FILE_ROOTS names directories, an address or a path outside these directories is refused too.
    """
    if given.startswith(MEMORY):  # `:memory:name` would be one database for all commands of this process
        return MEMORY
    if _ADDRESS.match(given):
        if roots(settings):
            raise ConfigurationError(
                f"{field}: {given!r} is an address; {FILE_ROOTS} allows only directories: name a path in one of them"
            )
        return given
    path = _in_home(_FILE.sub("", given))
    if _NO_PATH.match(path) or "\0" in path:
        raise ConfigurationError(
            f"{field}: {given!r} is neither a path nor a supported address; write /a/path, file:///a/path, or an "
            f"address like s3://bucket/name{'' if is_directory else ' (ATTACH a database of another kind in SQL)'}"
        )
    real = checked(field, given, Path(path), settings)
    is_there = stat.S_ISDIR if is_directory else stat.S_ISREG
    with suppress(OSError):  # DuckDB itself reports a path that does not exist or cannot be read
        if not is_there(real.stat().st_mode):
            wanted = "directory" if is_directory else "regular file"
            raise ConfigurationError(f"{field}: {given!r} is no {wanted}: name one")
    return str(real)


def _in_home(path: str) -> str:
    """Expand `~/` at the beginning of a path, as DuckDB does."""
    return str(Path(path).expanduser()) if path.startswith("~/") else path


def check_sql_files(kind: str, text: str, settings: ToolSettings, params: Any = ()) -> None:
    """Check the file names in SQL text and in its parameters. If NOETL_WORKER_FILE_ROOTS names directories, do nothing:
    DuckDB itself then refuses files outside these directories.

    Raises:
        ConfigurationError: a name of a file that playbooks may not read.
    """
    if roots(settings):
        return
    values = params.values() if isinstance(params, dict) else params
    for name in (*_quoted(text), *(value for value in values if isinstance(value, str))):
        if "/" in name and len(name) <= _LONGEST and "\0" not in name and _names_forbidden(name, settings):
            problem = f"{kind}: {name!r} belongs to the kernel or to the worker and is not a file for playbooks"
            raise ConfigurationError(f"{problem}: name another file")


def _quoted(text: str) -> Iterable[str]:
    for match in _QUOTED.finditer(text):
        yield next(part for part in (match[1], match[2], match[4]) if part is not None)


def _names_forbidden(name: str, settings: ToolSettings) -> bool:
    path = _in_home(_KIND.sub("", name))
    if _SCHEME.match(path) or not (path.startswith("/") or ".." in path):  # a name within the working directory
        return False
    magic = _MAGIC.search(path)
    if magic is None:
        where = Path(path)  # a link in /proc/self/fd may resolve to no path, so its own place is checked too
        places = (where.resolve(), where.parent.resolve() / where.name)
        return any(is_forbidden(place, settings) for place in places)
    fixed = Path(path[: magic.start()].rpartition("/")[0] or os.sep).resolve()
    if str(fixed) != os.sep:
        return is_forbidden(fixed, settings)
    first = path.lstrip("/").partition("/")[0]
    return any(fnmatch.fnmatch(tree, first) for tree in (name.strip("/") for name in KERNEL))
