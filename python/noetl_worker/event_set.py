"""The events of a command's end, by the name that docs/library.md gives it: `noetl_worker.outbox.event_set`."""

from noetl_worker.outbox.event_set import EventSet

__all__ = ["EventSet"]
