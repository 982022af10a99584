"""Checks of this machine and installation: compiled Rust engine, command isolation, packages, open files, memory."""

from __future__ import annotations

import importlib.util
import os
from collections.abc import Mapping, Sequence
from typing import Final

from noetl_worker.cli.doctor.finding import Finding, fine, unknown, warning, wrong
from noetl_worker.engine import chosen as engine
from noetl_worker.models.slots import WAITING_PER_SLOT
from noetl_worker.settings.settings import Settings
from noetl_worker.tools.process import confinement, landlock

_OWN_FILES: Final = 200
"""Number of files that the worker itself opens: probes, NATS, the outbox, libraries."""
_FILES_PER_COMMAND: Final = 8
"""Number of open pipes and sockets assumed for each running command."""
_OWN_MB: Final = 40.0
"""Memory, in MB, of a worker that runs no command."""
_MB_OF_KINDS: Final[Mapping[str, tuple[float, float]]] = {"duckdb": (70, 8.5), "python": (25, 2.5), "shell": (25, 1.7)}
"""Memory in MB by tool kind: (the process from which commands are forked, each running command).

The memory that a command's own code takes is not counted. The kind that needs most is first (docs/operate.md#memory).
"""
_MB_PER_OTHER_SLOT: Final = 0.2
"""Memory, in MB, of a running command whose tool kind needs no process of its own."""
_MB: Final = 1_000_000


def check_engine(name: str = engine.ENGINE) -> Finding:
    wanted = "the Rust engine"
    if name == "rust":
        return fine("engine", "rust", wanted)
    chosen = os.environ.get(engine.VARIABLE) or "auto"
    if chosen == "python":
        fix = f"unset {engine.VARIABLE} where the Rust engine is installed"
        return warning("engine", f"python, because {engine.VARIABLE}=python", wanted, fix)
    try:
        importlib.import_module("noetl_worker._core")
    except ImportError as error:
        fix = "pip install --force-reinstall --only-binary noetl-worker noetl-worker"
        return warning("engine", f"python, because the Rust engine cannot be imported: {error}", wanted, fix)
    return warning("engine", "python", wanted, f"{engine.VARIABLE}=rust says at the start why it cannot be used")


def missing_isolation() -> list[str]:
    """Return the names of system features that isolate commands from the worker, and that this system lacks."""
    return [*confinement.missing(), *landlock.missing()]


def check_isolation(settings: Settings, lacking: Sequence[str]) -> Finding:
    wanted = "basic, all of it"
    if settings.isolation == "off":
        found = "off: commands may read the worker's secrets"
        return warning("isolation", found, wanted, "NOETL_WORKER_ISOLATION=basic")
    if lacking:
        found = f"{settings.isolation}, without: {', '.join(lacking)}"
        fix = "run it on Linux 6.12 or later, with Landlock and a /proc of its own (docs/security.md)"
        return warning("isolation", found, wanted, fix)
    return fine("isolation", settings.isolation, wanted)


def check_packages(settings: Settings, uv: str | None, closed: Sequence[str]) -> Finding:
    """Check that packages for python steps can be installed, and that commands cannot change them.

    Args:
        uv: path of the installer uv; None if it is not installed.
        closed: directory of the packages, if it is closed to changes by commands; else empty.
    """
    mode = settings.python_packages
    if mode == "off":
        return fine("packages of python steps", "off", "")
    if uv is None:
        fix = "pip install 'noetl-worker[packages]', or put uv on PATH"
        return wrong("packages of python steps", f"{mode}, and no uv", "uv", fix)
    if not closed:
        found, wanted = f"{mode}, by {uv}, where commands can change them", "uv, and a directory closed to commands"
        fix = "NOETL_WORKER_PACKAGES_DIR=/var/lib/noetl-packages, outside of home, working and temporary directory"
        return warning("packages of python steps", found, wanted, fix)
    return fine("packages of python steps", f"{mode}, by {uv}, in {closed[0]}", "uv")


def check_descriptors(settings: Settings, limit: int | None) -> Finding:
    """Check that the limit on open files is enough for all slots of the worker.

    Args:
        limit: the soft limit after raising it to the hard limit, as `noetl-worker run` does; None: no limit.
    """
    slots = settings.max_concurrent
    least = _OWN_FILES + slots * _FILES_PER_COMMAND
    good = least + slots * (1 + WAITING_PER_SLOT)  # outcomes that wait for a plane hold a connection each
    wanted = f"{good} for {slots} slots, {least} at least"
    if limit is None or limit < 0:
        return fine("descriptors", "no limit", wanted)
    fix = f"raise the hard limit (ulimit -Hn {good}, LimitNOFILE={good}), or lower WORKER_MAX_CONCURRENT"
    if limit < least:
        return wrong("descriptors", str(limit), wanted, fix)
    return fine("descriptors", str(limit), wanted) if limit >= good else warning("descriptors", str(limit), wanted, fix)


def needed_mb(kind: str, slots: int, data_mb: float = 0.0) -> float:
    """Return the memory in MB that a worker needs if all its slots run commands of one tool kind.

    Args:
        data_mb: memory that the code of each command takes, in MB.
    """
    template_mb, slot_mb = _MB_OF_KINDS.get(kind, (0.0, _MB_PER_OTHER_SLOT))
    return _OWN_MB + template_mb + slots * (slot_mb + data_mb)


def check_memory(settings: Settings, there_bytes: int) -> Finding:
    """Check that the memory suffices for the worker with all slots in use.

    Args:
        there_bytes: memory of the machine or its cgroup; 0 if it is unknown.
    """
    slots, processes, own = settings.max_concurrent, settings.processes, settings.process_memory_mb
    kind = next((kind for kind in _MB_OF_KINDS if _may_run(settings, kind)), "http")
    base = needed_mb(kind, 0)
    each = own * (1 << 20) / _MB if own else needed_mb(kind, 1) - base
    needed = processes * (base + slots * each)
    of = "NOETL_WORKER_PROCESS_MEMORY_MB allows" if own else f"{kind} takes, and what its code holds"
    wanted = f"{needed:.0f} MB: {base:.0f} and {each:.1f} for each of {slots} slots, as {of}"
    wanted += f"; {processes} processes" if processes > 1 else ""
    there = there_bytes / _MB
    if not there:
        return unknown("memory", "the system does not say", wanted)
    left = (there - needed) / (processes * slots)
    if left >= 0:
        return fine("memory", f"{there:.0f} MB; {left:.1f} MB are left for what the code of each slot holds", wanted)
    most = max(1, int((there / processes - base) / each))
    fix = f"WORKER_MAX_CONCURRENT={most}, or a container with more memory"
    fix += ", or NOETL_WORKER_KINDS_DENY=duckdb where nobody uses it" if kind == "duckdb" else ""
    return warning("memory", f"{there:.0f} MB", wanted, fix)


def _may_run(settings: Settings, kind: str) -> bool:
    is_there = kind != "duckdb" or importlib.util.find_spec("duckdb") is not None
    return is_there and kind not in settings.kinds_deny and (not settings.kinds or kind in settings.kinds)
