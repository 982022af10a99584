"""Outboxes in a directory of the test, and what a worker that has died left there."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from noetl_worker.models import Dialect, Report
from noetl_worker.pipeline.outbox.event_set import EventSet
from noetl_worker.pipeline.outbox.outbox import Outbox
from unit.planes import URL

_NOBODY = 65534
OPEN: list[Outbox] = []
"""Those that `box` has made; each test of a file that makes some closes them."""


def event_set(event_id: int = 7, worker_id: str = "dead-worker", **changes: Any) -> EventSet:
    report = Report(status="success", context=None)
    told: dict[str, Any] = {"server_url": URL, "dialect": Dialect.PYTHON, "report": report, **changes}
    return EventSet(event_id, 1, f"c-{event_id}", "start", worker_id, idempotency_key=f"key-{event_id}", **told)


def box(directory: Path, when: str = "on_failure", *, max_rows: int = 10, max_bytes: int = 1_000_000) -> Outbox:
    made = Outbox(when, directory, max_rows=max_rows, max_bytes=max_bytes)
    OPEN.append(made)
    return made


def left(directory: Path) -> list[str]:
    """Names of what is in the directory."""
    return sorted(path.name for path in directory.iterdir())


def taken(ours: Outbox) -> list[EventSet]:
    """The sets that it takes over; those that cannot be read are left out."""
    return [one for row in ours.adopt() if (one := ours.load(row.key)) is not None]


@contextmanager
def unsearchable(parent: Path) -> Iterator[None]:
    """What lies below cannot be looked at meanwhile; root gives up its rights to do so all the same."""
    mode, user = parent.stat().st_mode, os.geteuid()
    parent.chmod(0)
    os.seteuid(user or _NOBODY)
    try:
        yield
    finally:
        os.seteuid(user)
        parent.chmod(mode)


def left_behind(directory: Path, left: EventSet | None = None) -> None:
    dead = box(directory)
    dead.write(left or event_set())
    dead.close()
