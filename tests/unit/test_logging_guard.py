"""What a test sets up of logging ends with it."""

from __future__ import annotations

import logging
import warnings

import structlog

import logging_guard
from noetl_worker.observability.logging import configure_logging


def state() -> tuple[object, ...]:
    root = logging.getLogger()
    return structlog.is_configured(), structlog.get_config(), root.handlers[:], root.level, warnings.showwarning


def test_logging_that_a_test_sets_up_ends_with_it() -> None:
    before = state()
    with logging_guard.kept():
        configure_logging("error", "json")
        assert structlog.is_configured()
        assert state() != before
    assert state() == before
