"""The events of a command's end, by the name that docs/library.md gives it: `noetl_worker.outcome.event_set`."""

from noetl_worker.outcome.event_set import VERSION, EventSet

__all__ = ["VERSION", "EventSet"]
