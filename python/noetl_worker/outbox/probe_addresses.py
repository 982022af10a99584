"""Where the workers of this machine serve their probes, for `top` and `why`: an empty file each, named by its address.

The directory of the outbox is the one place that a worker and its operator both know. A worker that is killed leaves
its file; whoever reads it asks the address and finds nobody there.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, Final

from noetl_worker.outbox.directory import require_own_directory

_ENDING: Final = ".probes"
_NAME: Final = re.compile(r"[0-9A-Za-z.:\[\]-]+:[0-9]{1,5}")
_ANY: Final = ("0.0.0.0", "::", "[::]", "")


@contextmanager
def announced(directory: Path, address: str | None) -> Iterator[None]:
    """`address` (HOST:PORT) can be found in `directory` meanwhile; where that cannot be, nothing else depends on it."""
    path: Path | None = None
    if address is not None:
        with suppress(OSError, AttributeError):  # AttributeError: no owner of files on Windows
            directory.mkdir(mode=0o700, parents=True, exist_ok=True)
            require_own_directory(directory)
            path = directory / f"{address}{_ENDING}"
            path.touch(mode=0o600)
    try:
        yield
    finally:
        if path is not None:
            with suppress(OSError):
                path.unlink()


def addresses_here(metrics_bind: str, directory: Path) -> list[str]:
    """HOST:PORT of the setting and of each worker that is announced, as it can be asked from here.

    None is taken from a directory that others may write to: they could have a token sent to them.
    """
    names = [metrics_bind] if metrics_bind else []
    with suppress(OSError, AttributeError):  # no directory, or not this user's
        require_own_directory(directory)
        found = sorted(path.name.removesuffix(_ENDING) for path in directory.glob(f"*{_ENDING}"))
        names += [name for name in found if _NAME.fullmatch(name)]
    return list(dict.fromkeys(map(_asked_at, names)))


def looks_in(answer: Mapping[str, Any]) -> Sequence[Mapping[str, Any]]:
    """What each worker says of itself; a supervisor answers for all of its own."""
    looks: Sequence[Mapping[str, Any]] = answer.get("processes", [answer])
    return looks


def _asked_at(bind: str) -> str:
    """The address to ask for what listens at `bind`."""
    host, _, port = bind.rpartition(":")
    return f"{'127.0.0.1' if host in _ANY else host}:{port}"
