"""Which files of the worker's machine a playbook may name: artifacts, `files:`, certificates, what DuckDB opens."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path
from typing import Final

from noetl_worker.errors import ConfigurationError

__all__ = ["ARTIFACT_ROOT", "FILE_ROOTS", "KERNEL", "checked", "is_forbidden", "roots"]

FILE_ROOTS: Final = "NOETL_WORKER_FILE_ROOTS"
"""Variable: the directories that such files have to be in, separated by `:`; empty: anywhere but what is forbidden."""
ARTIFACT_ROOT: Final = "NOETL_ARTIFACT_ROOT"
"""Variable: the directory that file artifacts have to be in, within the others."""
KERNEL: Final = ("/proc", "/sys")
"""The worker's memory, other processes' environments."""
_OWN: Final = "noetl-"
"""How the worker's directories in the temporary one begin: the outbox, the scratch directories of other commands."""


def roots() -> tuple[Path, ...]:
    return tuple(Path(root).resolve() for root in os.environ.get(FILE_ROOTS, "").split(os.pathsep) if root.strip())


def checked(kind: str, given: str, path: Path, *, within: str | None = None) -> Path:
    """`path` with its links followed. `given` is how the playbook names it, `within` a variable with a narrower root.

    Raises:
        ConfigurationError: a file that a playbook may not name.
    """
    real = path.resolve()
    if is_forbidden(real) or real.is_relative_to("/dev"):
        raise ConfigurationError(f"{kind}: {given!r} is the kernel's or the worker's own, not a file for playbooks")
    narrower = os.environ.get(within) if within else None
    if narrower and not real.is_relative_to(Path(narrower).resolve()):
        raise ConfigurationError(f"{kind}: {given!r} is outside {within}={narrower}")
    allowed = roots()
    if allowed and not any(real.is_relative_to(root) for root in allowed):
        raise ConfigurationError(f"{kind}: {given!r} is outside {FILE_ROOTS}={os.environ[FILE_ROOTS]}")
    return real


def is_forbidden(real: Path) -> bool:
    """Of a path without links, whatever the roots are."""
    if any(real.is_relative_to(tree) for tree in KERNEL):
        return True
    own = os.environ.get("NOETL_WORKER_OUTBOX_DIR")
    if own and real.is_relative_to(Path(own).resolve()):
        return True
    temporary = Path(tempfile.gettempdir()).resolve()
    inside = real.relative_to(temporary).parts if real.is_relative_to(temporary) else ()
    return bool(inside) and inside[0].startswith(_OWN)
