"""A worker's process, from its settings to its exit code: what `noetl-worker run` does after reading its flags.

This module imports nothing of the command line. So a start without flags, as in containers, does not load the library
that reads flags (`__main__.py`). That library would take a sixth of the memory and a quarter of the start.
"""

from __future__ import annotations

import atexit
import ctypes
import gc
import os
import sys
import threading
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Final, NoReturn

import structlog

from noetl_worker.errors import WorkerBroken
from noetl_worker.observability.tracing import flush_traces, make_provider
from noetl_worker.pipeline.outbox.directory import outbox_directory
from noetl_worker.process import event_loop, handed_down
from noetl_worker.process.handed_down import end_with_parent
from noetl_worker.process.open_files import raise_open_files_limit
from noetl_worker.settings.settings import SETTINGS, Settings, environment_for_workers, load_settings
from noetl_worker.settings.sources import advice_on, unknown_names
from noetl_worker.tools.process.confinement import hide_memory
from noetl_worker.tools.process.own_logins import hide_own_logins
from noetl_worker.worker.probe_addresses import announced

_M_MMAP_THRESHOLD: Final = -3
"""Value of M_MMAP_THRESHOLD in malloc.h, the number of this parameter for `mallopt`."""
_LARGE_BYTES: Final = 1024 * 1024
_EXIT_FUNCTIONS_S: Final = 2.0


def run_process(flags: Mapping[str, str | None]) -> int:
    """Run the worker, or its supervisor if `processes` is above 1, until it stops. Return the exit code.

    Args:
        flags: the text of each setting's flag by the setting's variable, or None for a flag that was not given.
    """
    try:
        worker_environment = environment_for_workers(os.environ, flags)
        settings = load_settings(flags=flags)
        if settings.isolation == "off":  # set in a `.env` file, which `__main__` does not read
            hide_memory(False)
        from noetl_worker.observability.last_words import log_errors_of_threads
        from noetl_worker.observability.logging import configure_logging

        configure_logging(settings.log_level, "auto")
        log_errors_of_threads()
        if handed_down.PARENT not in os.environ:  # otherwise the supervisor has logged it
            _warn_of_unknown_settings()
            if settings.unused:
                advice = "NATS_PASSWORD is not sent without NATS_USER: set both"
                structlog.get_logger("noetl_worker").warning(
                    "settings_unused", variables=settings.unused, advice=advice
                )
        is_one_of_several = end_with_parent()
        raise_open_files_limit()
        hide_own_logins()
        if settings.processes > 1:
            _leave(event_loop.run(_supervise(settings, worker_environment)))
        _give_large_buffers_back()
        return event_loop.run(_work(settings, is_one_of_several=is_one_of_several))
    except (Exception, KeyboardInterrupt) as error:
        from noetl_worker.observability.last_words import log_failure

        return log_failure(error)


def _warn_of_unknown_settings() -> None:
    if unknown := unknown_names(SETTINGS, os.environ, Path(".env")):
        structlog.get_logger("noetl_worker").warning(
            "settings_unknown",
            variables=list(unknown),
            advice=advice_on(unknown),
        )


def _leave(code: int) -> NoReturn:
    """End the process at once. The worker must have closed everything before.

    A normal exit waits for the threads of tools that could not be stopped. It may also abort the process while a native
    thread of the HTTP client runs (seen: "PyGILState_Release"). An exit function of a library can block: that of DuckDB
    waits for its statements.
    """
    exiting = threading.Thread(target=atexit._run_exitfuncs, daemon=True)
    with suppress(RuntimeError):  # no thread is free
        exiting.start()
        exiting.join(_EXIT_FUNCTIONS_S)
    for stream in (sys.stdout, sys.stderr):
        with suppress(OSError, ValueError, AttributeError):  # closed, or missing from the start
            stream.flush()
    os._exit(code)


def _calm_the_collector() -> None:
    """Exclude all loaded objects from garbage collection, and collect less often.

    A collection before `gc.freeze` would add 40 ms to the start and free half a megabyte. A command makes some hundred
    containers and no reference cycles. With the interpreter's default thresholds (700, 10, 10) the collector took a
    sixth of the time of a fast command. Only the worker's own process may change this, not a library.
    """
    gc.freeze()
    gc.set_threshold(20_000, 20, 20)
    gc.enable()


def _give_large_buffers_back() -> None:
    """Set the C library to return each buffer of 1 MiB or more to the system as soon as it is freed.

    Otherwise glibc puts large buffers into its heap, and cannot return a buffer that has a later allocation behind it.
    A result of 8 MB left the worker 15 MB larger, and the next result 30 MB. A setting of the operator is not changed.
    """
    if sys.platform != "linux" or any(name in os.environ for name in ("MALLOC_MMAP_THRESHOLD_", "GLIBC_TUNABLES")):
        return
    with suppress(AttributeError):  # another C library
        ctypes.CDLL(None).mallopt(_M_MMAP_THRESHOLD, _LARGE_BYTES)


def _probe_address(settings: Settings) -> str | None:
    """Return the address of the probes from the settings, to be announced to the CLI commands `top` and `why`. Return
    None if there are no probes, or if a supervisor answers for this worker. Return None also for port 0, because the
    system then chooses a port that the settings do not show."""
    bind = settings.metrics_bind
    return None if not bind or bind.endswith(":0") or handed_down.SOCKET in os.environ else bind


async def _supervise(settings: Settings, variables: Mapping[str, str]) -> int:
    from noetl_worker.observability.probe_server import ProbeServer
    from noetl_worker.worker.supervisor.probes import make_common_pages
    from noetl_worker.worker.supervisor.supervisor import Supervisor

    supervisor = Supervisor(settings, variables)
    event_loop.handle_signals(supervisor.request_stop, supervisor.toggle_debug)
    _calm_the_collector()
    server = ProbeServer(make_common_pages(supervisor), debug_token=settings.debug_token.reveal())
    if settings.metrics_bind:
        await server.open(settings.metrics_bind)
    with announced(outbox_directory(settings.outbox_dir), _probe_address(settings)):
        code = await supervisor.run()
    await server.close()
    return code


async def _work(settings: Settings, *, is_one_of_several: bool) -> NoReturn:
    from noetl_worker.observability.last_words import log_failure
    from noetl_worker.observability.logging import add_to_each_line
    from noetl_worker.remote.plane.identity import Identity
    from noetl_worker.worker.worker import Worker

    identity, traces = Identity(settings), None
    if is_one_of_several:  # several workers log to one place
        add_to_each_line(worker=identity.unique)
    provider = make_provider(os.environ, worker_id=identity.unique)
    if provider is not None:
        from noetl_worker.pipeline.command.trace import DeliveryTraces

        traces = DeliveryTraces(provider, settings, identity.unique)
    worker = Worker(settings, identity=identity, traces=traces)
    event_loop.handle_signals(worker.request_stop, worker.toggle_debug)
    _calm_the_collector()
    try:
        with announced(outbox_directory(settings.outbox_dir), _probe_address(settings)):
            code = await worker.run()
    except WorkerBroken as error:
        code = log_failure(error)
    if provider is not None:
        flush_traces(provider)
    _leave(code)
