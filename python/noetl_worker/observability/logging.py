"""Structured logs: one JSON object a line, or colours on a terminal and nowhere else.

Every line is redacted last, after the trace of an exception has become text: by the names of its fields, by the shape
of credentials, and by the secrets of the command that is being worked on (`redaction.known_here`).
"""

from __future__ import annotations

import logging
import os
import sys
import traceback
import warnings
from collections.abc import Callable, Collection, Mapping, MutableMapping
from typing import Any, Final, TextIO

import structlog

from noetl_worker.models.fit import SecretTexts
from noetl_worker.observability.repeated_lines import RepeatedLines
from noetl_worker.observability.terminal import harmless
from noetl_worker.observability.tracing import add_trace_ids
from noetl_worker.text.secrets import redaction

log = structlog.get_logger("noetl_worker")
_OWN_FIELDS: Final = frozenset({"level", "timestamp"})


def redact_line(logger: Any, method: str, event_dict: MutableMapping[str, Any]) -> Mapping[str, Any]:
    """Redact a log line; a structlog processor. In a set-up of your own, put it directly before the renderer."""
    own = {name: event_dict[name] for name in _OWN_FIELDS & event_dict.keys()}
    # log viewers round numbers above 2**53, so ids are texts
    rest = {
        name: str(value) if name.endswith("_id") and isinstance(value, int) else value
        for name, value in event_dict.items()
        if name not in own
    }
    return {**redaction.redact_fields(rest, redaction.known_here()), **own}


class SafeLogger:
    """A tool's logger: safe from any thread and under any structlog set-up of an application around the worker."""

    def __init__(self, logger: Callable[[], Any], known: Callable[[], SecretTexts]) -> None:
        """Create a logger. `logger` is called only when there is something to log, which most commands have not."""
        self._logger = logger
        self._known = known

    def debug(self, event: str, **fields: Any) -> None:
        self._write("debug", event, fields)

    def info(self, event: str, **fields: Any) -> None:
        self._write("info", event, fields)

    def warning(self, event: str, **fields: Any) -> None:
        self._write("warning", event, fields)

    def error(self, event: str, **fields: Any) -> None:
        self._write("error", event, fields)

    def _write(self, level: str, event: str, fields: dict[str, Any]) -> None:
        if raised := fields.pop("exc_info", None):
            error = raised if isinstance(raised, BaseException) else sys.exc_info()[1]
            fields["exception"] = "".join(traceback.format_exception(error)) if error is not None else ""
        known = self._known()
        write = getattr(self._logger(), level)
        write(redaction.redact_text(str(event), known), **redaction.redact_fields(fields, known))


class _Stream:
    """The stream of log lines. A line that cannot be written (full disk, closed reader) is lost without an error:
    logging never fails the work.
    """

    def __init__(self, stream: TextIO) -> None:
        self._write, self._flush = stream.write, stream.flush

    def write(self, text: str) -> None:
        try:  # noqa: SIM105 - contextlib would be three calls for each line
            self._write(text)
        except (OSError, ValueError):  # ValueError: it is closed
            pass

    def flush(self) -> None:
        try:  # noqa: SIM105
            self._flush()
        except (OSError, ValueError):
            pass


class _SafeFormatter(logging.Formatter):
    """A formatter for libraries that log through the standard library. It redacts the finished text and trace."""

    def format(self, record: logging.LogRecord) -> str:
        return harmless(redaction.redact_text(super().format(record), redaction.known_here()))


def configure_logging(level: str, form: str, *, without: Collection[str] = ()) -> None:
    """Send all logs to stderr.

    Args:
        level: debug, info, warning or error.
        form: json, console, or auto (console on a terminal).
        without: events that are not written: what the program shows by itself.
    """

    def drop(logger: Any, method: str, event_dict: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
        if event_dict["event"] in without:
            raise structlog.DropEvent
        return event_dict

    threshold = getattr(logging, level.upper())
    as_console = form == "console" or (form == "auto" and sys.stderr.isatty())
    with_colors = sys.stderr.isatty() and not os.environ.get("NO_COLOR")
    renderer: Any = (
        structlog.dev.ConsoleRenderer(colors=with_colors) if as_console else structlog.processors.JSONRenderer()
    )
    stream: Any = _Stream(sys.stderr)
    writer = structlog.WriteLogger(stream)
    structlog.configure(
        processors=[
            *([drop] if without else []),
            structlog.contextvars.merge_contextvars,
            add_trace_ids,
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso", utc=True),
            structlog.processors.format_exc_info,
            redact_line,
            _repeated,
            *([_harmless_line] if as_console else []),
            renderer,
        ],
        wrapper_class=structlog.make_filtering_bound_logger(threshold),
        # A line is one write, its end too: print() makes two where Python is unbuffered, and processes share stderr.
        logger_factory=lambda *_: writer,
        cache_logger_on_first_use=False,
    )
    # A warning of Python's (the engine's fallback, a dependency's) is one log line too, without a source path.
    warnings.showwarning = _log_warning
    handler = logging.StreamHandler(stream)
    handler.setFormatter(_SafeFormatter(logging.BASIC_FORMAT))
    logging.basicConfig(level=max(threshold, logging.WARNING), handlers=[handler], force=True)


def _harmless_line(logger: Any, method: str, event_dict: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
    """Make the texts of a line harmless to a terminal. JSON has its control characters escaped."""
    return {name: harmless(value) if isinstance(value, str) else value for name, value in event_dict.items()}


def add_to_each_line(**fields: str) -> None:
    """Add these fields to every log line from now on, in every thread."""

    def add(logger: Any, method: str, event_dict: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
        return {**fields, **event_dict}

    structlog.configure(processors=[add, *structlog.get_config()["processors"]])


def level_is_on(level: int) -> bool:
    """Return True if log lines of this level are written."""
    is_enabled = getattr(structlog.get_logger().bind(), "is_enabled_for", None)  # structlog has it from 25.1 on
    return is_enabled is None or bool(is_enabled(level))


_repeated: Final = RepeatedLines(lambda: level_is_on(logging.DEBUG))


def flush_repeated(*, at_once: bool = False) -> None:
    """Write what lines that repeat by cause held back for a minute; `at_once`: all of it."""
    _repeated.flush(at_once=at_once)


def toggle_debug(usual: str) -> None:
    """Switch the log to debug; if it is at debug, back to `usual`, or to info if `usual` is debug. Log the change."""
    was_debug = level_is_on(logging.DEBUG)
    now = "debug" if not was_debug else "info" if usual == "debug" else usual
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.DEBUG))  # for the line below
    log.info("log_level_changed", now=now)
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(getattr(logging, now.upper())))


def _log_warning(message: Warning | str, category: type[Warning], *_place: object, **_file: object) -> None:
    structlog.get_logger("noetl_worker").warning("python_warning", category=category.__name__, text=str(message))
