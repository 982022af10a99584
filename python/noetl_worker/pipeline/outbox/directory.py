"""The directory of the outboxes, and the check that only the worker's user can write to this directory.

The worker sends each outcome in the directory to the control plane. So no other user may put a file into it.
"""

from __future__ import annotations

import os
import stat
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Final

_MACHINE_DIRECTORY: Final = Path("/var/lib/noetl-worker")


def outbox_directory(outbox_dir: str) -> Path:
    """Return the directory of the outboxes. The workers of a machine share it.

    Args:
        outbox_dir: the setting NOETL_WORKER_OUTBOX_DIR. If it is empty, the directory is in `state_directory`.
    """
    return Path(outbox_dir) if outbox_dir else state_directory("outbox")


def state_directory(name: str) -> Path:
    """Return the directory `name` for files of this user that must outlive the process.

    The directory is in the service's state directory (systemd's STATE_DIRECTORY), else in the user's state directory
    (XDG_STATE_HOME, ~/.local/state). For a user without a writable home, the directory is in the temporary directory.
    """
    if service := os.environ.get("STATE_DIRECTORY"):
        return Path(service.partition(":")[0], name)
    temporary = Path(tempfile.gettempdir())
    if not hasattr(os, "getuid"):  # Windows, where the outbox is off
        return temporary / f"noetl-worker-{name}"
    home = os.path.expanduser("~")  # noqa: PTH111 - Path.home() raises for a user without one
    state = os.environ.get("XDG_STATE_HOME") or (os.access(home, os.W_OK) and f"{home}/.local/state")
    return Path(state, "noetl-worker", name) if state else temporary / f"noetl-worker-{name}-{os.getuid()}"


def directory_out_of_reach(name: str) -> Path:
    """Return the directory `name` for files that no command may change.

    The directory is below /var/lib/noetl-worker if this user may write there, and neither STATE_DIRECTORY nor
    XDG_STATE_HOME is set. Otherwise it is `state_directory(name)`, which may be in the home directory. Commands may
    write to the home directory, so files there cannot be protected (`file_roots.within_reach`).
    """
    is_placed = os.environ.get("STATE_DIRECTORY") or os.environ.get("XDG_STATE_HOME")
    nearest = _MACHINE_DIRECTORY if _MACHINE_DIRECTORY.exists() else _MACHINE_DIRECTORY.parent
    return _MACHINE_DIRECTORY / name if not is_placed and os.access(nearest, os.W_OK) else state_directory(name)


def require_own_directory(path: Path) -> None:
    """Raise PermissionError unless the path is a directory of this user that no other user may write to. Raise
    FileNotFoundError if it is missing."""
    _require(path, "directory", stat.S_ISDIR, forbidden=0o022)


def require_own_file(path: Path) -> None:
    """Raise PermissionError unless the path is a regular file that only this user may read and write. Raise
    FileNotFoundError if it is missing."""
    _require(path, "regular file", stat.S_ISREG, forbidden=0o077)


def make_file(path: Path) -> None:
    """Create an empty file with mode 0600. Raise FileExistsError if the path exists, even as a link."""
    os.close(os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600))


def _require(path: Path, what: str, is_kind: Callable[[int], bool], *, forbidden: int) -> None:
    found = path.lstat()  # not stat, which would check the target of a link
    if not is_kind(found.st_mode):
        raise PermissionError(f"{path} is not a {what}: move it away")
    if found.st_uid != os.geteuid():
        raise PermissionError(
            f"{what} {path} belongs to user {found.st_uid}, not to {os.geteuid()}: set "
            "NOETL_WORKER_OUTBOX_DIR (for dev: XDG_STATE_HOME) to a directory of the worker's user, or to a new path, "
            "where the worker creates a directory"
        )
    if found.st_mode & forbidden:
        mode = stat.S_IMODE(found.st_mode)
        raise PermissionError(f"{what} {path} has mode {mode:04o}, so other users can access it: chmod go-rwx it")
