"""The directory of an outbox: used only while it is this user's alone.

What lies in it is reported to the control plane in the worker's name, so nobody else may put anything there.
"""

from __future__ import annotations

import os
import stat
import tempfile
from collections.abc import Callable
from pathlib import Path


def directory_of(outbox_dir: str) -> Path:
    """Of the setting NOETL_WORKER_OUTBOX_DIR; the workers of a machine share it.

    Empty: in the state directory of the service (systemd's STATE_DIRECTORY), else of the user (XDG_STATE_HOME,
    ~/.local/state), else, for a user without a home to write to, below the temporary directory.
    """
    return Path(outbox_dir) if outbox_dir else state_directory("outbox")


def state_directory(name: str) -> Path:
    """Where something of this user's is kept that no setting places."""
    if service := os.environ.get("STATE_DIRECTORY"):
        return Path(service.partition(":")[0], name)
    temporary = Path(tempfile.gettempdir())
    if not hasattr(os, "getuid"):  # Windows, where nothing is kept on disk
        return temporary / f"noetl-worker-{name}"
    home = os.path.expanduser("~")  # noqa: PTH111 - Path.home() raises for a user without one
    state = os.environ.get("XDG_STATE_HOME") or (os.access(home, os.W_OK) and f"{home}/.local/state")
    return Path(state, "noetl-worker", name) if state else temporary / f"noetl-worker-{name}-{os.getuid()}"


class NotOwn(PermissionError):
    """A path that another user has, or may write to; the text says what to do."""


def require_own_directory(path: Path) -> None:
    """Raises NotOwn unless it is a directory of this user that nobody else may write to; OSError: there is none."""
    _require(path, "directory", stat.S_ISDIR, forbidden=0o022)


def require_own_file(path: Path) -> None:
    """Raises NotOwn unless it is a plain file that this user alone may read and write; OSError: there is none."""
    _require(path, "regular file", stat.S_ISREG, forbidden=0o077)


def made_own(path: Path) -> None:
    """A new, empty file with mode 0600. Raises FileExistsError when something has that name, a link too."""
    os.close(os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600))


def _require(path: Path, what: str, is_kind: Callable[[int], bool], *, forbidden: int) -> None:
    found = path.lstat()  # not stat: a link would be checked where it points
    if not is_kind(found.st_mode):
        raise NotOwn(f"{path} is not a {what}: move it away")
    if found.st_uid != os.geteuid():
        raise NotOwn(
            f"{what} {path} belongs to user {found.st_uid}, not to {os.geteuid()}: name a directory in "
            "NOETL_WORKER_OUTBOX_DIR (runs of dev: XDG_STATE_HOME) that is the worker's own; one that does not exist "
            "yet is made so"
        )
    if found.st_mode & forbidden:
        mode = stat.S_IMODE(found.st_mode)
        raise NotOwn(f"{what} {path} has mode {mode:04o}, so that others can get at it: chmod go-rwx it")
