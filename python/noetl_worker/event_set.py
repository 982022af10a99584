"""Public name of a command's terminal events, in `noetl_worker.pipeline.outbox.event_set`."""

from noetl_worker.pipeline.outbox.event_set import EventSet

__all__ = ["EventSet"]
