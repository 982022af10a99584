"""A bridge's process, from its settings to its exit code."""

from __future__ import annotations

from noetl_worker.bridge.bridge import Bridge, BridgeOptions
from noetl_worker.errors import WorkerBroken
from noetl_worker.observability.logging import configure_logging
from noetl_worker.observability.terminal import say
from noetl_worker.process import event_loop
from noetl_worker.settings.settings import Settings

EXIT_BROKEN = 6


def run_bridge(settings: Settings, options: BridgeOptions) -> int:
    """Run the bridge until it is stopped.

    Raises:
        SettingsError, JetStreamError: the bridge cannot start.
    """
    configure_logging(settings.log_level, "auto")
    try:
        return event_loop.run(_run(settings, options))
    except WorkerBroken as error:
        say(f"noetl-worker: cannot go on: {error}; start it again", err=True)
        return EXIT_BROKEN


async def _run(settings: Settings, options: BridgeOptions) -> int:
    bridge = Bridge(settings, options)
    bridge.handle_signals()
    return await bridge.run()
