"""Public import path of `EventSet`, the terminal events of a command (docs/library.md)."""

from noetl_worker.pipeline.outbox.event_set import EventSet

__all__ = ["EventSet"]
