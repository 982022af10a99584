"""The log event `worker_failed`: the last log line of a process that ends with a failure (exit code neither 0 nor
4)."""

from __future__ import annotations

import sys
import threading
from collections.abc import Mapping
from typing import Final, NamedTuple

import structlog

from noetl_worker.errors import (
    AuthRefused,
    ControlPlaneError,
    EngineUnavailable,
    JetStreamError,
    NatsUnavailable,
    NoetlWorkerError,
    SettingsError,
    WorkerBroken,
    describe,
)

EXIT_UNCAUGHT: Final = 1
EXIT_SETTINGS: Final = 2
EXIT_CANNOT_START: Final = 3
EXIT_BROKEN: Final = 6
"""Exit code of a worker that failed after its start.

A restart may help, unlike for a worker that could not start (EXIT_CANNOT_START).
"""
EXIT_AT_ONCE: Final = 130
log = structlog.get_logger("noetl_worker")


class FailureReason(NamedTuple):
    """The exit code and the advice for one `reason` in the log event `worker_failed`."""

    exit_code: int | None
    """Exit code of the process. None for a supervisor, which ends with the worst exit code of its worker processes."""
    advice: str


REASONS: Final[Mapping[str, FailureReason]] = {
    "uncaught": FailureReason(EXIT_UNCAUGHT, "start the worker again, and report this line with its `exception`"),
    "setting": FailureReason(EXIT_SETTINGS, "correct the setting in `error`; `noetl-worker config` shows the settings"),
    "engine": FailureReason(EXIT_SETTINGS, "install the engine that `error` names, or unset NOETL_WORKER_ENGINE"),
    "nats": FailureReason(EXIT_CANNOT_START, "check NATS_URL and the login; `noetl-worker doctor` tries both"),
    "durable": FailureReason(EXIT_CANNOT_START, "do what `error` says; `noetl-worker nats ensure` shows what differs"),
    "credentials": FailureReason(EXIT_CANNOT_START, "check NOETL_INTERNAL_API_TOKEN (and NOETL_TLS_CLIENT_CERT)"),
    "control_plane": FailureReason(EXIT_CANNOT_START, "check NOETL_SERVER_URL; `noetl-worker doctor` asks the plane"),
    "nats_closed": FailureReason(EXIT_BROKEN, "start the worker again; if it ends again, check the NATS login"),
    "keepalive": FailureReason(EXIT_BROKEN, "start the worker again, and report the log line `keepalive_died`"),
    "processes": FailureReason(None, "look at the `worker_failed` lines of the worker processes, above this line"),
    "stopped_at_once": FailureReason(
        EXIT_AT_ONCE, "nothing is lost: the worker's commands are redelivered; next time send one signal and wait"
    ),
}
"""All values of the field `reason` of the log event `worker_failed`. docs/log-events.md lists the values."""


def reason_for(error: BaseException) -> str:
    """Return the `reason` of the log event `worker_failed` for a process that ends with this error."""
    if isinstance(error, WorkerBroken):
        return error.reason
    found = {
        SettingsError: "setting",
        EngineUnavailable: "engine",
        NatsUnavailable: "nats",
        JetStreamError: "durable",
        AuthRefused: "credentials",
        ControlPlaneError: "control_plane",
        KeyboardInterrupt: "stopped_at_once",
    }
    return next((reason for kind, reason in found.items() if isinstance(error, kind)), "uncaught")


def log_failure(error: BaseException) -> int:
    """Log that `error` ends this process. Return the process's exit code."""
    reason = reason_for(error)
    code = REASONS[reason].exit_code or EXIT_UNCAUGHT
    is_uncaught = reason == "uncaught"
    log_end(code, reason, error=describe(error) if is_uncaught else str(error), exc_info=error if is_uncaught else None)
    return code


def log_end(exit_code: int, reason: str, *, error: str = "", exc_info: BaseException | None = None) -> None:
    """Log the event `worker_failed`. If logging is not configured yet, configure it first.

    Args:
        exit_code: exit code of the process.
        reason: a key of `REASONS`.
        error: text of the error.
        exc_info: exception whose traceback is logged, or None.
    """
    if not structlog.is_configured():  # the settings, which have the level, did not parse
        _configure_plainly()
    fields = {"exc_info": exc_info} if exc_info is not None else {}
    advice = REASONS[reason].advice
    log.error("worker_failed", exit_code=exit_code, reason=reason, error=error, advice=advice, **fields)


def _configure_plainly() -> None:
    try:
        from noetl_worker.observability.logging import configure_logging

        configure_logging("info", "auto")
    except NoetlWorkerError:  # there is no engine, which redacting needs
        structlog.configure(
            processors=[
                structlog.processors.add_log_level,
                structlog.processors.TimeStamper(fmt="iso", utc=True),
                structlog.processors.JSONRenderer(),
            ],
            logger_factory=structlog.WriteLoggerFactory(sys.stderr),
        )


def log_errors_of_threads() -> None:
    """Log an error that ends any thread as one structured line, in place of Python's traceback on stderr."""
    threading.excepthook = _log_thread


def _log_thread(ended: threading.ExceptHookArgs) -> None:
    if ended.exc_value is None or isinstance(ended.exc_value, SystemExit):
        return
    log.error(
        "thread_failed",
        thread=ended.thread.name if ended.thread is not None else "",
        error=describe(ended.exc_value),
        exc_info=ended.exc_value,
        advice="report this line with its `exception`; the worker goes on without this thread",
    )
