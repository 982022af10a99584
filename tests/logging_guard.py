"""Logging as it was: a test that sets it up (by a command line in this process) leaves none of it to the next one."""

from __future__ import annotations

import logging
import warnings
from collections.abc import Iterator
from contextlib import contextmanager

import structlog

__all__ = ["kept"]


@contextmanager
def kept() -> Iterator[None]:
    root = logging.getLogger()
    before, was_configured, show = structlog.get_config(), structlog.is_configured(), warnings.showwarning
    handlers, level = root.handlers[:], root.level
    try:
        yield
    finally:
        if was_configured:
            structlog.configure(**before)
        else:
            structlog.reset_defaults()
        warnings.showwarning = show
        root.handlers[:] = handlers
        root.setLevel(level)
