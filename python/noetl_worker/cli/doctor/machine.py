"""Checks of this machine and installation: engine, isolation, open files, memory."""

from __future__ import annotations

import importlib
import os
from collections.abc import Sequence
from typing import Final

from noetl_worker import engine
from noetl_worker.cli.doctor.finding import Finding, fine, unknown, warning, wrong
from noetl_worker.models.slots import WAITING_PER_SLOT
from noetl_worker.settings.settings import Settings
from noetl_worker.tools.process import confinement, landlock

_OWN_FILES: Final = 200
"""Files the worker itself opens: probes, NATS, the outbox, libraries."""
_FILES_PER_COMMAND: Final = 8
"""Pipes and sockets of one command that starts a process or asks a server."""
_OWN_MIB: Final = 100
_MIB_PER_COMMAND: Final = 64
"""Memory of an interpreter with a small script's imports; only the author knows a command's real need."""
_MIB: Final = 1 << 20


def engine_in_use(name: str = engine.ENGINE) -> Finding:
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


def lacking() -> list[str]:
    """Return what this system lacks for the isolation of commands."""
    return [*confinement.missing(), *landlock.missing()]


def isolation(settings: Settings, lacking: Sequence[str]) -> Finding:
    wanted = "basic, all of it"
    if settings.isolation == "off":
        found = "off: commands may read the worker's secrets"
        return warning("isolation", found, wanted, "NOETL_WORKER_ISOLATION=basic")
    if lacking:
        found = f"{settings.isolation}, without: {', '.join(lacking)}"
        fix = "run it on Linux 6.12 or later, with Landlock and a /proc of its own (docs/security.md)"
        return warning("isolation", found, wanted, fix)
    return fine("isolation", settings.isolation, wanted)


def packages(settings: Settings, uv: str | None, closed: Sequence[str]) -> Finding:
    """Check what installs the packages of python steps.

    `uv`: its path, if it is there. `closed`: their directory, if commands cannot change it.
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


def descriptors(settings: Settings, limit: int | None) -> Finding:
    """Check the limit on open files. `limit`: the soft limit after `run` raised it to the hard one."""
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


def memory(settings: Settings, there_bytes: int) -> Finding:
    """Check that the machine or container has memory for the worker and a process per slot; 0 bytes: unknown."""
    slots, own = settings.max_concurrent, settings.process_memory_mb
    each = own or _MIB_PER_COMMAND
    needed = _OWN_MIB + slots * each
    of = "that NOETL_WORKER_PROCESS_MEMORY_MB allows" if own else "a small process takes"
    wanted = f"{needed} MiB: {_OWN_MIB} and {each} for each of {slots} slots, as {of}"
    there = there_bytes // _MIB
    if not there:
        return unknown("memory", "the system does not say", wanted)
    if there >= needed:
        return fine("memory", f"{there} MiB", wanted)
    most = max(1, (there - _OWN_MIB) // each)
    fix = f"WORKER_MAX_CONCURRENT={most}, or a container with more memory"
    return warning("memory", f"{there} MiB", wanted, fix)
