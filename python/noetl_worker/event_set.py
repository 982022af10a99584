"""The terminal events of a command by their public name: `noetl_worker.pipeline.outbox.event_set`."""

from noetl_worker.pipeline.outbox.event_set import EventSet

__all__ = ["EventSet"]
