"""A worker's process, from its settings to its exit code: what `noetl-worker run` does once its flags are read.

Nothing of the command line is in here: a start without a flag, as containers start it, does not load the library that
reads flags, which is a sixth of the memory and a quarter of the time (`__main__.py`).
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
from noetl_worker.observability.tracing import end_of_traces, provider_of
from noetl_worker.pipeline.outbox.directory import directory_of
from noetl_worker.process import event_loop, handed_down
from noetl_worker.process.handed_down import end_with_parent
from noetl_worker.process.open_files import raise_open_files_limit
from noetl_worker.settings.settings import SETTINGS, Settings, environment_for_workers, load_settings
from noetl_worker.settings.sources import advice_on, unknown_names
from noetl_worker.tools.process.confinement import hide_memory
from noetl_worker.tools.process.own_logins import hide_own_logins
from noetl_worker.worker.probe_addresses import announced

_M_MMAP_THRESHOLD: Final = -3
"""Of malloc.h."""
_LARGE_BYTES: Final = 1024 * 1024
_EXIT_FUNCTIONS_S: Final = 2.0


def run_process(flags: Mapping[str, str | None]) -> int:
    """Run the worker, or with `processes` its supervisor, until it is stopped; the exit code of one that cannot start.

    Args:
        flags: variable -> the text of its flag, None where it was not given.
    """
    try:
        of_workers = environment_for_workers(os.environ, flags)
        settings = load_settings(flags=flags)
        if settings.isolation == "off":  # a `.env` file may say so, which the start did not read
            hide_memory(False)
        from noetl_worker.observability.last_words import log_errors_of_threads
        from noetl_worker.observability.logging import configure_logging

        configure_logging(settings.log_level, "auto")
        log_errors_of_threads()
        if handed_down.PARENT not in os.environ:  # else its supervisor has said it
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
            _leave(event_loop.run(_supervise(settings, of_workers)))
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
    """End the process here; the worker has put away all that it had.

    The ways out of the loop and the interpreter wait for the threads of tools that could not be stopped, and may meet a
    native thread of the HTTP client: a drained worker ended by an abort (seen once, "PyGILState_Release"). So do the
    exit functions of libraries: DuckDB's waits for its statements.
    """
    exiting = threading.Thread(target=atexit._run_exitfuncs, daemon=True)
    with suppress(RuntimeError):  # no thread to be had
        exiting.start()
        exiting.join(_EXIT_FUNCTIONS_S)
    for stream in (sys.stdout, sys.stderr):
        with suppress(OSError, ValueError, AttributeError):  # closed, or never there
            stream.flush()
    os._exit(code)


def _calm_the_collector() -> None:
    """What is loaded by now stays: it is not looked through again and again, nor is each few hundred new objects.

    It is not looked through once before either: that would be 40 ms of the start, for half a megabyte. A command makes
    some hundred containers and leaves no reference cycles. At the interpreter's thresholds (700, 10, 10) the collector
    took a sixth of a fast command's time. This is for the worker's own process: a library must not.
    """
    gc.freeze()
    gc.set_threshold(20_000, 20, 20)
    gc.enable()


def _give_large_buffers_back() -> None:
    """A buffer of 1 MiB or more is memory of its own, which the system has again as soon as it is freed.

    glibc puts ever larger buffers into its heap instead once some were freed, and what lies behind them keeps them
    there: a result of 8 MB left the worker 15 MB larger, the next one 30. An operator's own setting counts.
    """
    if sys.platform != "linux" or any(name in os.environ for name in ("MALLOC_MMAP_THRESHOLD_", "GLIBC_TUNABLES")):
        return
    with suppress(AttributeError):  # another C library
        ctypes.CDLL(None).mallopt(_M_MMAP_THRESHOLD, _LARGE_BYTES)


def _probe_address(settings: Settings) -> str | None:
    """None: there are no probes, their port is known to nobody, or a supervisor answers for this worker."""
    bind = settings.metrics_bind
    return None if not bind or bind.endswith(":0") or handed_down.SOCKET in os.environ else bind


async def _supervise(settings: Settings, variables: Mapping[str, str]) -> int:
    from noetl_worker.observability.probe_server import ProbeServer
    from noetl_worker.worker.supervisor.probes import pages_of_all
    from noetl_worker.worker.supervisor.supervisor import Supervisor

    supervisor = Supervisor(settings, variables)
    supervisor.handle_signals()
    _calm_the_collector()
    server = ProbeServer(pages_of_all(supervisor), debug_token=settings.debug_token.reveal())
    if settings.metrics_bind:
        await server.open(settings.metrics_bind)
    with announced(directory_of(settings.outbox_dir), _probe_address(settings)):
        code = await supervisor.run()
    await server.close()
    return code


async def _work(settings: Settings, *, is_one_of_several: bool) -> NoReturn:
    from noetl_worker.observability.last_words import log_failure
    from noetl_worker.observability.logging import add_to_each_line
    from noetl_worker.remote.plane.identity import Identity
    from noetl_worker.worker.worker import Worker

    identity, traces = Identity(settings), None
    if is_one_of_several:  # they write to one place
        add_to_each_line(worker=identity.unique)
    provider = provider_of(os.environ, worker_id=identity.unique)
    if provider is not None:
        from noetl_worker.pipeline.command.trace import DeliveryTraces

        traces = DeliveryTraces(provider, settings, identity.unique)
    worker = Worker(settings, identity=identity, traces=traces)
    worker.handle_signals()
    _calm_the_collector()
    try:
        with announced(directory_of(settings.outbox_dir), _probe_address(settings)):
            code = await worker.run()
    except WorkerBroken as error:
        code = log_failure(error)
    if provider is not None:
        end_of_traces(provider)
    _leave(code)
