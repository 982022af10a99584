"""Public name of a command's terminal events (docs/library.md)."""

from noetl_worker.pipeline.outbox.event_set import EventSet

__all__ = ["EventSet"]
