"""Structured logs: one JSON object a line, or colours on a terminal. Known secrets never get this far."""

from __future__ import annotations

import logging
import sys
import warnings
from typing import Any, TextIO

import structlog

__all__ = ["configure_logging"]


def configure_logging(level: str, form: str) -> None:
    """Send all logs to stderr.

    Args:
        level: debug, info, warning or error.
        form: json, console, or auto (console on a terminal).
    """
    threshold = getattr(logging, level.upper())
    as_console = form == "console" or (form == "auto" and sys.stderr.isatty())
    renderer: Any = structlog.dev.ConsoleRenderer() if as_console else structlog.processors.JSONRenderer()
    structlog.configure(
        processors=[
            structlog.contextvars.merge_contextvars,
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso", utc=True),
            structlog.processors.format_exc_info,
            renderer,
        ],
        wrapper_class=structlog.make_filtering_bound_logger(threshold),
        logger_factory=structlog.PrintLoggerFactory(sys.stderr),
        cache_logger_on_first_use=False,
    )
    # A warning of Python's (the engine's fallback, a dependency's) is one log line too, without a source path.
    warnings.showwarning = _log_warning
    logging.basicConfig(level=max(threshold, logging.WARNING), stream=sys.stderr, force=True)


def _log_warning(
    message: Warning | str,
    category: type[Warning],
    filename: str,
    lineno: int,
    file: TextIO | None = None,
    line: str | None = None,
) -> None:
    structlog.get_logger("noetl_worker").warning("python_warning", category=category.__name__, text=str(message))
