"""The worker's environment out of its environment block, which every process of its user may read (/proc/PID/environ).

`noetl-worker run` writes its variables to a sealed file in memory and starts itself again with what the interpreter
needs alone; the new start reads that file first thing and closes it. From then on the variables are in `os.environ` as
ever: in the worker's memory, which nobody else may read. What it starts gets what it is handed.

Before anything else is imported, so that the second start costs a bare interpreter's: this module loads nothing that
an interpreter has not loaded by itself (json and typing alone cost as much as the interpreter).
"""

from __future__ import annotations

import os
import sys

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from typing import Final, NoReturn

_VARIABLE: Final = "NOETL_WORKER_SEALED_ENVIRONMENT"
"""The descriptor of the file; in the new start alone, and gone once it is read."""
_MORE: Final = "NOETL_WORKER_ENVIRONMENT_KEPT"
_KEPT: Final = frozenset({"PATH", "HOME", "LANG", "LANGUAGE", "TZ", "TMPDIR", "USER", "LOGNAME", "VIRTUAL_ENV"})
_KEPT_PREFIXES: Final = ("LC_", "LD_", "DYLD_", "PYTHON", "MALLOC_", "GLIBC_TUNABLES", "COVERAGE_")
"""What the loader, the C library and the interpreter read before any code of ours runs."""


def begin(arguments: Sequence[str]) -> bool:
    """The first thing of the command line, with its arguments; starts it again where that is due.

    Returns:
        Whether this is the new start.

    Raises:
        OSError: the system has no such file, or refuses the start.
    """
    descriptor = os.environ.pop(_VARIABLE, None)
    if descriptor is not None:
        with os.fdopen(int(descriptor), "rb") as file:
            file.seek(0)
            pairs = [os.fsdecode(pair).partition("=") for pair in file.read().split(b"\0")]
        os.environ.update({name: value for name, _, value in pairs if name})
        return True
    is_run = not arguments or arguments[0] == "run"
    is_off = os.environ.get("NOETL_WORKER_ISOLATION", "").strip().lower() == "off"
    if is_run and not is_off and sys.platform == "linux" and sys.executable:
        _renew(os.environ)
    return False


def _renew(environment: Mapping[str, str]) -> NoReturn:
    descriptor = _sealed(b"\0".join(os.fsencode(f"{name}={value}") for name, value in environment.items()))
    kept = {name: value for name, value in environment.items() if _stays(name, environment.get(_MORE, ""))}
    try:
        os.execve(sys.executable, [sys.executable, *sys.orig_argv[1:]], {**kept, _VARIABLE: str(descriptor)})
    finally:
        os.close(descriptor)


def _stays(name: str, more: str) -> bool:
    """`more` has names, comma-separated, and beginnings of names that end in `*`."""
    if name in _KEPT or name.startswith(_KEPT_PREFIXES):
        return True
    patterns = [pattern.strip() for pattern in more.split(",") if pattern.strip()]
    return any(name == pattern or (pattern.endswith("*") and name.startswith(pattern[:-1])) for pattern in patterns)


def _sealed(content: bytes) -> int:
    import fcntl

    descriptor = os.memfd_create("noetl-worker", os.MFD_ALLOW_SEALING)  # and so not closed by exec
    try:
        view = memoryview(content)
        while view:
            view = view[os.write(descriptor, view) :]
        seals = fcntl.F_SEAL_WRITE | fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW | fcntl.F_SEAL_SEAL
        fcntl.fcntl(descriptor, fcntl.F_ADD_SEALS, seals)
    except OSError:
        os.close(descriptor)
        raise
    return descriptor
