"""Checks of the outbox, where outcomes wait on disk for the control plane: its owner, contents and free disk space."""

from __future__ import annotations

import os
import shutil
import time
from pathlib import Path
from typing import Final

from noetl_worker.cli.doctor.finding import Finding, fine, unknown, warning, wrong
from noetl_worker.pipeline.outbox.directory import outbox_directory, require_own_directory
from noetl_worker.pipeline.outbox.outbox import MAX_BYTES, MAX_ROWS
from noetl_worker.pipeline.outbox.reading import read_outboxes
from noetl_worker.settings.settings import Settings

_LEAST_FREE: Final = 64 << 20
_MOUNT: Final = "mount a volume there that may be written to, or name a directory on one in NOETL_WORKER_OUTBOX_DIR"
_MIB: Final = 1 << 20


def check_directory(settings: Settings) -> Finding:
    check, wanted = "outbox directory", "this user's alone, and writable"
    if settings.outbox == "off":
        fix = "NOETL_WORKER_OUTBOX=on_failure"
        return warning(check, "no outbox: results are in memory while a plane refuses them", wanted, fix)
    path = outbox_directory(settings.outbox_dir)
    place, cannot = path, ""
    try:
        require_own_directory(path)
    except FileNotFoundError:
        place, cannot = _nearest_existing(path), f"{path} cannot be made: "
    except OSError as error:
        fix = "name another one in NOETL_WORKER_OUTBOX_DIR, or make this one the worker's own"
        return wrong(check, str(error), wanted, fix)
    if os.access(place, os.W_OK | os.X_OK):
        return fine(check, f"{path} is made when it is needed" if cannot else str(path), wanted)
    if _is_read_only(place):
        return wrong(check, f"{cannot}{place} is on a read-only file system", wanted, _MOUNT)
    fix = "make NOETL_WORKER_OUTBOX_DIR a directory of the worker's user" if cannot else f"chmod u+rwx {path}"
    return wrong(check, f"{cannot}{place} is not writable", wanted, fix)


def check_contents(settings: Settings, size: int = MAX_BYTES) -> Finding:
    """Check how full the outboxes of this machine are.

    Args:
        size: size of an outbox, in bytes, at which its worker stops pulling commands.
    """
    check, wanted = "outbox contents", f"empty in quiet times, below {MAX_ROWS} event sets and {size // _MIB} MiB"
    try:
        seen = read_outboxes(outbox_directory(settings.outbox_dir))
    except OSError as error:
        return unknown(check, str(error), wanted)
    waiting, total = len(seen.outcomes), seen.bytes
    orphans = sum(not row.is_owned for row in seen.outcomes)
    oldest_s = max((time.time() - row.event_set.created_at for row in seen.outcomes if row.event_set), default=0.0)
    found = f"{waiting} event sets, {total} bytes, {orphans} of dead processes, the oldest {oldest_s:.0f} s old"
    if waiting >= MAX_ROWS or total >= size:
        fix = "see why the control plane refuses them (the log's events_not_accepted; noetl-worker why COMMAND_ID)"
        return wrong(check, f"full: {found}; nothing is pulled", wanted, fix)
    if seen.unreadable:
        names = ", ".join(path.name for path in seen.unreadable[:3])
        fix = "another version or another program wrote these files: move them away once their commands are settled"
        return warning(check, f"{len(seen.unreadable)} files that cannot be read ({names}); {found}", wanted, fix)
    if waiting:
        fix = "running workers send their outcomes; for outcomes of dead processes, start a worker with this directory"
        return warning(check, found, wanted, fix)
    return fine(check, "empty", wanted)


def check_disk(settings: Settings, size: int = MAX_BYTES) -> Finding:
    check, wanted = "outbox disk", f"{size // _MIB} MiB free, as much as the outbox may take"
    try:
        place = _nearest_existing(outbox_directory(settings.outbox_dir))
        free = shutil.disk_usage(place).free
    except OSError as error:
        return unknown(check, str(error), wanted)
    found = f"{free // _MIB} MiB free below {place}"
    fix = "make room there, or name another disk in NOETL_WORKER_OUTBOX_DIR"
    if free < _LEAST_FREE:
        return wrong(check, found, wanted, fix)
    return fine(check, found, wanted) if free >= size else warning(check, found, wanted, fix)


def _is_read_only(path: Path) -> bool:
    """Return True if the path is on a file system that is mounted read-only."""
    return hasattr(os, "statvfs") and bool(os.statvfs(path).f_flag & os.ST_RDONLY)


def _nearest_existing(path: Path) -> Path:
    """Return the path, or its nearest parent that exists."""
    return next((place for place in (path, *path.parents) if place.exists()), Path("/"))
