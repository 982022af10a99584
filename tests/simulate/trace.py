"""What happened, one line each: virtual time, who, what. Equal seeds give equal bytes."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, MutableMapping
from typing import Any

import structlog

from simulate.clock import STRAND, Clock

_LEFT_OUT = frozenset({"event", "log_level", "timestamp", "exc_info", "worker_id", "cause"})


class Trace:
    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self.lines: list[str] = []
        self._unnamed = ""

    def note(self, actor: str, what: str) -> None:
        self.lines.append(f"{self._clock.elapsed_s:10.3f}  {actor:<9} {what}")

    @contextlib.contextmanager
    def with_logs(self, *, unnamed: str) -> Iterator[None]:
        """Inside, what the product logs becomes lines of the trace; `unnamed` differs from run to run."""
        self._unnamed = unnamed
        before = structlog.get_config()
        structlog.configure(
            processors=[self._log],
            wrapper_class=structlog.make_filtering_bound_logger(20),
            cache_logger_on_first_use=False,
        )
        try:
            yield
        finally:
            structlog.configure(**before)

    def _log(self, _: Any, method: str, fields: MutableMapping[str, Any]) -> Any:
        strand = STRAND.get()
        if strand is not None and not strand.process.is_dead:
            told = {name: _short(value) for name, value in fields.items() if name not in _LEFT_OUT}
            shown = " ".join(f"{name}={text}" for name, text in told.items()).replace(self._unnamed, "disk")
            self.note(strand.process.name, f"log {method}: {fields.get('event')} {shown}".rstrip())
        raise structlog.DropEvent


def _short(value: object) -> str:
    text = " ".join(str(value).split())
    return text if len(text) <= 160 else text[:157] + "..."
