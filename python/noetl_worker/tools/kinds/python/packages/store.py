"""Environments with packages on disk, shared by all workers of a machine. The store lists only complete environments.

A worker that uses an environment holds a shared lock on the environment's directory. The directory's modification time
is the time of the last use. A worker that builds or removes environments holds the lock on `turn`, an empty file. The
kernel releases both locks when the process ends.
"""

from __future__ import annotations

import asyncio
import fcntl
import hashlib
import json
import os
import shutil
import tempfile
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager, suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Final

from noetl_worker.errors import ConfigurationError, ToolError
from noetl_worker.process.threads import finished_off_loop

PACKAGES_DIR: Final = "NOETL_WORKER_PACKAGES_DIR"
_LOOK_AGAIN_S: Final = 0.1
_ABOUT: Final = "noetl.json"


def hashed_key(*parts: str) -> str:
    """Return a hash of the texts `parts`, for the name of a file or directory in the store."""
    return hashlib.sha256("\0".join(parts).encode()).hexdigest()[:32]


@dataclass(frozen=True, slots=True)
class StoredEnvironment:
    """A complete environment in the store, with the requirements and the Python version that it was built for."""

    path: Path
    requirements: tuple[str, ...]
    python: str
    packages: int
    size: int
    """Size of the environment on disk, in bytes."""
    used_at: float


class PackageStore:
    """A directory with complete environments, with builds under way, and with lock files. A lock file has the exact
    versions to which requirements were resolved."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._environments = directory / "environments"
        self._building = directory / "building"
        self._locks = directory / "locks"

    @property
    def complete(self) -> tuple[str, ...]:
        """The store's directories of complete environments and of lock files. Their entries never change after their
        creation. A confined uv may not write into these directories."""
        return str(self._environments.resolve()), str(self._locks.resolve())

    def check(self) -> None:
        """Raise ConfigurationError if another user may write to the store's directory, because commands run code from
        there."""
        try:
            found = self._directory.stat()
        except FileNotFoundError:
            return
        if found.st_uid not in (os.geteuid(), 0) or found.st_mode & 0o022:
            text = (
                f"{self._directory} can be written by other users: name a directory in {PACKAGES_DIR} that only the "
                "worker's user can write to"
            )
            raise ConfigurationError(text)

    # ── use ──

    def lock_text(self, recipe: str) -> str | None:
        """Return the lock (the resolved versions) of a recipe, or None if the recipe was not resolved yet. A recipe is
        a hash of the requirements, the interpreter and the setting NOETL_WORKER_PYTHON_PACKAGES."""
        with suppress(FileNotFoundError):
            return (self._locks / recipe).read_text(encoding="utf-8")
        return None

    @contextmanager
    def in_use(self, key: str) -> Iterator[Path | None]:
        """Keep an environment from being removed during the block. Yield the environment's path, or None if the store
        lacks the environment."""
        path = self._environments / key
        descriptor = _opened(path)
        try:
            is_there = descriptor is not None and _locked(descriptor, fcntl.LOCK_SH) and _is_at(descriptor, path)
            if is_there and descriptor is not None:
                with suppress(OSError):  # a read-only store, as in an image: no worker removes environments
                    os.utime(descriptor)
            yield path if is_there else None
        finally:
            if descriptor is not None:
                os.close(descriptor)

    def environments(self) -> list[StoredEnvironment]:
        """Return every environment, the least recently used first."""
        found = []
        for path in self._environments.glob("*"):
            with suppress(FileNotFoundError):  # another worker has removed it
                about: dict[str, Any] = json.loads((path / _ABOUT).read_text(encoding="utf-8"))
                about["requirements"] = tuple(about["requirements"])
                found.append(StoredEnvironment(**{**about, "path": path, "used_at": path.stat().st_mtime}))
        return sorted(found, key=lambda one: one.used_at)

    # ── change, in a turn ──

    @asynccontextmanager
    async def turn(self, deadline: float | None = None) -> AsyncIterator[Path]:
        """Wait until nobody else builds a package environment on this machine. Yield a new directory for the build, and
        remove the directory at the end.

        Raises:
            ConfigurationError: the directory cannot be written.
            ToolError: kind `timeout`, if another build still runs at the `deadline` (by `time.monotonic`).
        """
        try:
            for directory in (self._environments, self._building, self._locks):
                directory.mkdir(mode=0o755, parents=True, exist_ok=True)
            lock = os.open(self._directory / "turn", os.O_CREAT | os.O_RDWR | os.O_CLOEXEC, 0o644)
        except OSError as error:
            text = (
                f"{self._directory} ({PACKAGES_DIR}) cannot be written: {error.strerror}; name a directory that the "
                "worker can write to"
            )
            raise ConfigurationError(text) from error
        try:
            while not _locked(lock, fcntl.LOCK_EX):
                if deadline is not None and time.monotonic() > deadline:
                    text = "the command's time ended while another installation of packages ran: run the step again"
                    raise ToolError(text, kind="timeout", retryable=True)
                await asyncio.sleep(_LOOK_AGAIN_S)
            await finished_off_loop(partial(_remove_all, list(self._building.glob("*"))))  # left by killed builds
            own = Path(tempfile.mkdtemp(dir=self._building))
            try:
                yield own
            finally:
                await asyncio.shield(finished_off_loop(partial(_remove_all, [own])))
        finally:
            os.close(lock)

    def put_lock(self, recipe: str, file: Path) -> None:
        file.rename(self._locks / recipe)

    def put(self, key: str, built: Path, requirements: tuple[str, ...], python: str, packages: int, size: int) -> None:
        """Store the complete environment in `built` under `key`. From then on all workers can use the environment."""
        about = {"requirements": requirements, "python": python, "packages": packages, "size": size}
        (built / _ABOUT).write_text(json.dumps(about), encoding="utf-8")
        built.rename(self._environments / key)

    def make_room(self, most_bytes: int, but: str = "") -> list[StoredEnvironment]:
        """Remove the least recently used environments until the remaining environments have at most `most_bytes`.
        Return the removed environments.

        Environments in use are never removed. The environment with the key `but` is not removed either.
        """
        stored = self.environments()
        left, removed = sum(one.size for one in stored), []
        for one in stored:
            if left > most_bytes and one.path.name != but and self._remove(one):
                left -= one.size
                removed.append(one)
        return removed

    def forget_locks(self) -> None:
        """Delete all lock files, so that the next step with the same requirements resolves the versions anew."""
        for file in self._locks.glob("*"):
            file.unlink(missing_ok=True)

    def _remove(self, one: StoredEnvironment) -> bool:
        descriptor = _opened(one.path)
        if descriptor is None:
            return True
        try:
            if not _locked(descriptor, fcntl.LOCK_EX):
                return False
            unfinished = Path(tempfile.mkdtemp(dir=self._building))
            one.path.rename(unfinished / "removed")  # from here on nobody finds it
            shutil.rmtree(unfinished, ignore_errors=True)
            return True
        finally:
            os.close(descriptor)


def _remove_all(directories: list[Path]) -> None:
    for path in directories:
        shutil.rmtree(path, ignore_errors=True)


def disk_size(directory: Path) -> int:
    """Return the bytes on disk below a directory."""
    return sum(file.lstat().st_blocks * 512 for file in directory.rglob("*"))


def _opened(directory: Path) -> int | None:
    try:
        return os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    except FileNotFoundError:
        return None


def _locked(descriptor: int, kind: int) -> bool:
    try:
        fcntl.flock(descriptor, kind | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _is_at(descriptor: int, path: Path) -> bool:
    """Return True if `path` is still the directory that `descriptor` has open. Another worker may have removed the
    directory before this worker locked `descriptor`."""
    try:
        return os.path.samestat(os.fstat(descriptor), path.stat())
    except FileNotFoundError:
        return False
