"""The last log line of a process that ends with another exit code than 0 and 4: the event `worker_failed`."""

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
"""The exit code of a worker that had started. Starting it again may well help, which after EXIT_CANNOT_START it does
not."""
EXIT_AT_ONCE: Final = 130
log = structlog.get_logger("noetl_worker")


class FailureReason(NamedTuple):
    """A value of the field `reason`."""

    exit_code: int | None
    """Exit code, or None for that of a process below this one."""
    advice: str


REASONS: Final[Mapping[str, FailureReason]] = {
    "uncaught": FailureReason(EXIT_UNCAUGHT, "report it with `exception`, and start it again"),
    "setting": FailureReason(EXIT_SETTINGS, "correct what `error` names; `noetl-worker config` shows what is in force"),
    "engine": FailureReason(EXIT_SETTINGS, "install the engine that `error` names, or unset NOETL_WORKER_ENGINE"),
    "nats": FailureReason(EXIT_CANNOT_START, "check NATS_URL and the login; `noetl-worker doctor` tries both"),
    "durable": FailureReason(EXIT_CANNOT_START, "do what `error` says; `noetl-worker nats ensure` shows what differs"),
    "credentials": FailureReason(EXIT_CANNOT_START, "check NOETL_INTERNAL_API_TOKEN (and NOETL_TLS_CLIENT_CERT)"),
    "control_plane": FailureReason(EXIT_CANNOT_START, "check NOETL_SERVER_URL; `noetl-worker doctor` asks the plane"),
    "nats_closed": FailureReason(EXIT_BROKEN, "start it again; if it ends again, check the NATS login"),
    "keepalive": FailureReason(EXIT_BROKEN, "start it again, and report the log's keepalive_died"),
    "processes": FailureReason(None, "look at the `worker_failed` lines of its workers, above this one"),
    "stopped_at_once": FailureReason(EXIT_AT_ONCE, "nothing is lost: what it had comes again; stop it with one signal"),
}
"""Every value of `reason` by its name: a closed set, listed in docs/log-events.md."""


def reason_for(error: BaseException) -> str:
    """Return the reason of a process that ends with this error."""
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
    """Log the end of a process by this error. Return the process's exit code."""
    reason = reason_for(error)
    code = REASONS[reason].exit_code or EXIT_UNCAUGHT
    is_uncaught = reason == "uncaught"
    log_end(code, reason, error=describe(error) if is_uncaught else str(error), exc_info=error if is_uncaught else None)
    return code


def log_end(exit_code: int, reason: str, *, error: str = "", exc_info: BaseException | None = None) -> None:
    """Log the end of a process."""
    if not structlog.is_configured():  # the settings, which say how, did not parse
        _configure_plainly()
    fields = {"exc_info": exc_info} if exc_info is not None else {}
    advice = REASONS[reason].advice
    log.error("worker_failed", exit_code=exit_code, reason=reason, error=error, advice=advice, **fields)


def _configure_plainly() -> None:
    try:
        from noetl_worker.observability.logging import configure_logging

        configure_logging("info", "auto")
    except NoetlWorkerError:  # the engine, which redacts lines, is what is missing
        structlog.configure(
            processors=[
                structlog.processors.add_log_level,
                structlog.processors.TimeStamper(fmt="iso", utc=True),
                structlog.processors.JSONRenderer(),
            ],
            logger_factory=structlog.WriteLoggerFactory(sys.stderr),
        )


def log_errors_of_threads() -> None:
    """Have an error that ends a thread logged as one line. Python would write a traceback to stderr."""
    threading.excepthook = _log_thread


def _log_thread(ended: threading.ExceptHookArgs) -> None:
    if ended.exc_value is None or isinstance(ended.exc_value, SystemExit):
        return
    log.error(
        "thread_failed",
        thread=ended.thread.name if ended.thread is not None else "",
        error=describe(ended.exc_value),
        exc_info=ended.exc_value,
        advice="report it with `exception`; the worker goes on without this thread",
    )
