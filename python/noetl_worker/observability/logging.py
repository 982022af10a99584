"""Structured logs: one JSON object a line, or coloured text on a terminal.

Every line is redacted after an exception's traceback has become text. Secrets are recognised by field names, by the
shape of credentials, and by value: the secrets of the command that the asyncio task works on (`redaction.known_here`).
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
    """Return a log line without secrets. A structlog processor, to be placed directly before the renderer."""
    own = {name: event_dict[name] for name in _OWN_FIELDS & event_dict.keys()}
    # log viewers round numbers above 2**53, so ids are texts
    rest = {
        name: str(value) if name.endswith("_id") and isinstance(value, int) else value
        for name, value in event_dict.items()
        if name not in own
    }
    return {**redaction.redact_fields(rest, redaction.known_here()), **own}


class SafeLogger:
    """The logger of a tool. It redacts each line itself, so that no secret is logged even under an application's own
    structlog configuration. Thread-safe."""

    def __init__(self, logger: Callable[[], Any], known: Callable[[], SecretTexts]) -> None:
        """Create the logger of one command.

        Args:
            logger: function that returns the structlog logger. It is called for each line and not before, because most
                commands log nothing.
            known: function that returns the secrets of the command.
        """
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
    """The stream of log lines. A line that cannot be written (full disk, closed reader) is dropped without an error. So
    logging never makes a command fail."""

    def __init__(self, stream: TextIO) -> None:
        self._write, self._flush = stream.write, stream.flush

    def write(self, text: str) -> None:
        try:  # noqa: SIM105 - contextlib would be three calls for each line
            self._write(text)
        except (OSError, ValueError):  # ValueError: the stream is closed
            pass

    def flush(self) -> None:
        try:  # noqa: SIM105
            self._flush()
        except (OSError, ValueError):
            pass


class _SafeFormatter(logging.Formatter):
    """A formatter for libraries that log through the standard library. It redacts the formatted message and
    traceback."""

    def format(self, record: logging.LogRecord) -> str:
        return harmless(redaction.redact_text(super().format(record), redaction.known_here()))


def configure_logging(level: str, form: str, *, without: Collection[str] = ()) -> None:
    """Send all logs to stderr.

    Args:
        level: debug, info, warning or error.
        form: json, console, or auto (console on a terminal).
        without: events that are not written, because the program shows their content in another way.
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
        # WriteLogger writes a line and its end at once, since processes share stderr. Unbuffered print() writes twice.
        logger_factory=lambda *_: writer,
        cache_logger_on_first_use=False,
    )
    # A Python warning (of the engine's fallback, of a dependency) becomes one log line, without a source path.
    warnings.showwarning = _log_warning
    handler = logging.StreamHandler(stream)
    handler.setFormatter(_SafeFormatter(logging.BASIC_FORMAT))
    logging.basicConfig(level=max(threshold, logging.WARNING), handlers=[handler], force=True)


def _harmless_line(logger: Any, method: str, event_dict: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
    """Return a log line without control characters in its strings, for a terminal. Log lines in JSON do not need this,
    because JSON escapes control characters."""
    return {name: harmless(value) if isinstance(value, str) else value for name, value in event_dict.items()}


def add_to_each_line(**fields: str) -> None:
    """Add `fields` to every log line from now on, in every thread."""

    def add(logger: Any, method: str, event_dict: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
        return {**fields, **event_dict}

    structlog.configure(processors=[add, *structlog.get_config()["processors"]])


def level_is_on(level: int) -> bool:
    """Return True if log lines of this level are written."""
    is_enabled = getattr(structlog.get_logger().bind(), "is_enabled_for", None)  # structlog has it from 25.1 on
    return is_enabled is None or bool(is_enabled(level))


_repeated: Final = RepeatedLines(lambda: level_is_on(logging.DEBUG))


def flush_repeated(*, at_once: bool = False) -> None:
    """Write the summaries of repeated log lines that have been held back for at least a minute. With `at_once`, write
    all summaries."""
    _repeated.flush(at_once=at_once)


def toggle_debug(usual: str) -> None:
    """Switch the log level to debug, or from debug back to `usual`, the configured level. If `usual` is debug, switch
    back to info. Log the change."""
    was_debug = level_is_on(logging.DEBUG)
    now = "debug" if not was_debug else "info" if usual == "debug" else usual
    structlog.configure(
        wrapper_class=structlog.make_filtering_bound_logger(logging.DEBUG)
    )  # so that the line below is written
    log.info("log_level_changed", now=now)
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(getattr(logging, now.upper())))


def _log_warning(message: Warning | str, category: type[Warning], *_place: object, **_file: object) -> None:
    advice = "look at `text`; if it is about a plug-in, tell its author"
    structlog.get_logger("noetl_worker").warning(
        "python_warning", category=category.__name__, text=str(message), advice=advice
    )
