"""A bridge's process, from its settings to its exit code."""

from __future__ import annotations

from noetl_worker.bridge.bridge import Bridge, BridgeOptions
from noetl_worker.observability.last_words import log_errors_of_threads, log_failure
from noetl_worker.observability.logging import configure_logging
from noetl_worker.process import event_loop
from noetl_worker.settings.settings import Settings


def run_bridge(settings: Settings, options: BridgeOptions) -> int:
    """Run the bridge until it is stopped. Return its exit code."""
    configure_logging(settings.log_level, "auto")
    log_errors_of_threads()
    try:
        return event_loop.run(_run(settings, options))
    except (Exception, KeyboardInterrupt) as error:
        return log_failure(error)


async def _run(settings: Settings, options: BridgeOptions) -> int:
    bridge = Bridge(settings, options)
    bridge.handle_signals()
    return await bridge.run()
