"""Logging as it was: a test that sets it up (by a command line in this process) leaves none of it to the next one.

Where nothing sets it up, lines go to stderr as they do in a worker: a late line of a worker in this process is no part
of the output of a command.
"""

from __future__ import annotations

import logging
import sys
import warnings
from collections.abc import Iterator
from contextlib import contextmanager

import structlog


def to_stderr() -> None:
    structlog.configure(logger_factory=lambda *_: structlog.PrintLogger(sys.stderr))


@contextmanager
def kept() -> Iterator[None]:
    root = logging.getLogger()
    before, show = structlog.get_config(), warnings.showwarning
    handlers, level = root.handlers[:], root.level
    try:
        yield
    finally:
        structlog.configure(**before)
        warnings.showwarning = show
        root.handlers[:] = handlers
        root.setLevel(level)
