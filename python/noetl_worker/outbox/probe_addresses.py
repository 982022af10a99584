"""Where the workers of this machine serve their probes, for `top` and `why`: an empty file each, named by its address.

The directory of the outbox is the one place that a worker and its operator both know. A worker that is killed leaves
its file; whoever reads it asks the address and finds nobody there.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Final

from noetl_worker.outbox.directory import require_own_directory

__all__ = ["addresses_in", "announced", "asked_at"]

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


def addresses_in(directory: Path) -> list[str]:
    """HOST:PORT of each, as it can be asked from here.

    Raises:
        NotOwn: others may write to the directory, and could have a token sent to them.
        OSError: it cannot be read; FileNotFoundError: there is none.
    """
    require_own_directory(directory)
    names = sorted(path.name.removesuffix(_ENDING) for path in directory.glob(f"*{_ENDING}"))
    return list(dict.fromkeys(asked_at(name) for name in names if _NAME.fullmatch(name)))


def asked_at(bind: str) -> str:
    """The address to ask for what listens at `bind`."""
    host, _, port = bind.rpartition(":")
    return f"{'127.0.0.1' if host in _ANY else host}:{port}"
