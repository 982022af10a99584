"""A test that hangs ends: past its timeout and a quarter, its process does, with the traceback of each thread.

pytest-timeout raises in the handler of a signal. uvloop logs what is raised there and goes on waiting; on a standard
loop the test fails, and then the end of its async fixtures waits for it in vain.
"""

from __future__ import annotations

import faulthandler
import os
import sys
from collections.abc import Iterator
from typing import Final

import pytest

_PATIENCE: Final = 1.25
_STDERR: Final = pytest.StashKey[int]()


def pytest_configure(config: pytest.Config) -> None:
    config.stash[_STDERR] = os.dup(sys.__stderr__.fileno()) if sys.__stderr__ is not None else 2


@pytest.hookimpl(wrapper=True, tryfirst=True)
def pytest_runtest_protocol(item: pytest.Item) -> Iterator[None]:
    _begin(item)
    try:
        return (yield)
    finally:
        faulthandler.cancel_dump_traceback_later()


@pytest.hookimpl(wrapper=True, tryfirst=True)
def pytest_runtest_teardown(item: pytest.Item) -> Iterator[None]:
    _begin(item)  # once more: pytest cancels it where a test has failed
    return (yield)


def _begin(item: pytest.Item) -> None:
    marker, config = item.get_closest_marker("timeout"), item.config
    asked = config.getoption("timeout")
    limit_s = float(marker.args[0] if marker else config.getini("timeout") if asked is None else asked)
    if limit_s > 0:  # --timeout=0: somebody looks at it
        faulthandler.dump_traceback_later(limit_s * _PATIENCE, exit=True, file=config.stash[_STDERR])
