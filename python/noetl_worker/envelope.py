"""One notification's bytes, by the name that docs/library.md gives it: `noetl_worker.pipeline.delivery.envelope`."""

from noetl_worker.pipeline.delivery.envelope import decode_notification

__all__ = ["decode_notification"]
