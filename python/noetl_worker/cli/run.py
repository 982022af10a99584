"""`noetl-worker run`: the worker itself. Every flag is an environment variable, shown beside it."""

from __future__ import annotations

import atexit
import os
import sys
from contextlib import suppress
from typing import Annotated, Final, NoReturn

import typer

from noetl_worker import event_loop
from noetl_worker.errors import ControlPlaneError, EngineUnavailable, JetStreamError, SettingsError, WorkerBroken
from noetl_worker.settings import Settings, load_settings

__all__ = ["run"]

EXIT_SETTINGS: Final = 2
EXIT_CANNOT_START: Final = 3
EXIT_BROKEN: Final = 6
"""It had started: a supervisor that starts it again may well succeed, which after a 3 it will not."""


def run(
    nats_url: Annotated[str | None, typer.Option(help="NATS servers [NATS_URL]")] = None,
    server_url: Annotated[str | None, typer.Option(help="Control plane [NOETL_SERVER_URL]")] = None,
    control_plane: Annotated[str | None, typer.Option(help="auto, python or rust [NOETL_CONTROL_PLANE]")] = None,
    concurrency: Annotated[
        str | None, typer.Option("--concurrency", "-c", help="Slots [WORKER_MAX_CONCURRENT]")
    ] = None,
    worker_id: Annotated[str | None, typer.Option("--worker-id", "-n", help="Name [WORKER_ID]")] = None,
    metrics_bind: Annotated[
        str | None, typer.Option(help="HOST:PORT of probes and metrics, '' is off [WORKER_METRICS_BIND]")
    ] = None,
    log_level: Annotated[str | None, typer.Option("--log-level", "-l", help="[LOG_LEVEL]")] = None,
    log_format: Annotated[str | None, typer.Option(help="auto, json, console [NOETL_WORKER_LOG_FORMAT]")] = None,
) -> None:
    """Run the worker until SIGTERM (drain), a second one (cancel) or a third (exit at once).

    Exit codes: 0 drained; 2 a setting is wrong; 3 it could not start (NATS, durable, control plane); 4 commands
    were still running at the end of the drain and were given back; 6 it ran and could not go on (NATS closed the
    connection for good, the keepalive thread ended): start it again; 130 third signal.
    """
    flags = {
        "NATS_URL": nats_url,
        "NOETL_SERVER_URL": server_url,
        "NOETL_CONTROL_PLANE": control_plane,
        "WORKER_MAX_CONCURRENT": concurrency,
        "WORKER_ID": worker_id,
        "WORKER_METRICS_BIND": metrics_bind,
        "LOG_LEVEL": log_level,
        "NOETL_WORKER_LOG_FORMAT": log_format,
    }
    try:
        settings = load_settings(flags=flags)
        from noetl_worker.observability.logging import configure_logging

        configure_logging(settings.log_level, settings.log_format)
        event_loop.run(_work(settings), settings.loop)
    except (SettingsError, EngineUnavailable) as error:
        typer.echo(f"noetl-worker: {error}", err=True)
        raise typer.Exit(EXIT_SETTINGS) from None
    except (JetStreamError, ControlPlaneError) as error:
        typer.echo(f"noetl-worker: cannot start: {error}", err=True)
        raise typer.Exit(EXIT_CANNOT_START) from None


def _leave(code: int) -> NoReturn:
    """End the process here; the worker has put away all that it had.

    The ways out of the loop and the interpreter wait for the threads of tools that could not be stopped, and may meet a
    native thread of the HTTP client: a drained worker ended by an abort (seen once, "PyGILState_Release").
    """
    atexit._run_exitfuncs()
    for stream in (sys.stdout, sys.stderr):
        with suppress(OSError, ValueError, AttributeError):  # closed, or never there
            stream.flush()
    os._exit(code)


async def _work(settings: Settings) -> NoReturn:
    from noetl_worker.worker import Worker

    worker = Worker(settings)
    worker.handle_signals()
    try:
        code = await worker.run()
    except WorkerBroken as error:
        typer.echo(f"noetl-worker: cannot go on: {error}; start it again", err=True)
        code = EXIT_BROKEN
    _leave(code)
