"""Public name of the notification decoder (docs/library.md), in `noetl_worker.pipeline.delivery.envelope`."""

from noetl_worker.pipeline.delivery.envelope import decode_notification

__all__ = ["decode_notification"]
