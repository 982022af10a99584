"""For every test: an end in time, the signals a person at a terminal has, no long step of a loop, logging as it was."""

from __future__ import annotations

import gc
import signal
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import pytest

import logging_guard
import long_steps
import loop_guard
import loops

if TYPE_CHECKING:
    from noetl_worker.models import Dialect

pytest_plugins = ["surroundings", "time_limit"]

# A shell starts background jobs with SIGINT ignored, and that is inherited by what the tests start: a Ctrl-C sent to
# a worker would then do nothing. With a handler here, children start with the default again.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)

loop_guard.install(but="DevControlPlane.")
logging_guard.to_stderr()
gc.set_threshold(20_000, 20, 20)  # as a worker has it: else every seven hundred objects, of nine thousand tests


@pytest.fixture(scope="session")
def anyio_backend() -> tuple[str, dict[str, Any]]:
    """An async test runs on a standard loop of its own."""
    return loops.STANDARD


@pytest.fixture(params=["python", "rust"])
def dialect(request: pytest.FixtureRequest) -> Dialect:
    """A test that takes it runs for each control plane."""
    from noetl_worker.models import Dialect  # not before the variables of a person are gone

    return Dialect(request.param)


WAITING = frozenset({"bridge", "security", "dev", "faults", "integration", "local", "tools"})
"""Directories of tests that mostly wait: for servers, processes, a lease."""


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Files that wait run beside those that compute, and are through before those: a minute of idle cores less."""
    files = dict.fromkeys(_file(item) for item in items)
    waiting = [file for file in files if not WAITING.isdisjoint(file.split("/"))]
    computing = [file for file in files if WAITING.isdisjoint(file.split("/"))]
    begins = {file: 0.6 * place / len(waiting) for place, file in enumerate(waiting)}
    begins |= {file: place / len(computing) for place, file in enumerate(computing)}
    items.sort(key=lambda item: begins[_file(item)])


def _file(item: pytest.Item) -> str:
    return item.nodeid.partition("::")[0]


@pytest.hookimpl(trylast=True)
def pytest_collection_finish() -> None:
    """The tests stay: no collection of the garbage has to go through nine thousand of them."""
    gc.collect()
    gc.freeze()


@pytest.hookimpl(wrapper=True)
def pytest_runtest_call(item: pytest.Item) -> Iterator[None]:
    return (yield from long_steps.guarded(item))


@pytest.hookimpl(wrapper=True)
def pytest_runtest_teardown(item: pytest.Item) -> Iterator[None]:
    try:
        return (yield)
    finally:
        long_steps.keep_for_summary(item)


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    ended = [one for found in terminalreporter.stats.values() for one in found if isinstance(one, pytest.TestReport)]
    if lines := long_steps.summary(ended):
        terminalreporter.section("long steps of an event loop (make faults fails for them)")
        terminalreporter.write("".join(f"{line}\n" for line in lines))


@pytest.hookimpl(wrapper=True)
def pytest_runtest_protocol() -> Iterator[None]:
    with logging_guard.kept():
        return (yield)
