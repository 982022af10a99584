"""What a person and a machine have is not in the tests: settings, logins, a home, a `.env`, files of other programs.

Each process of a run has a temporary directory of its own, so that a worker of somebody else, or of a test beside it,
is not found there. That of pytest stays where a person looks for it.
"""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import pytest

KEPT: Final = frozenset({"NOETL_WORKER_BUILD", "NOETL_WORKER_ENGINE", "NOETL_WORKER_REQUIRE_RUST"})
"""What the Makefile says to the worker. What it says to the tests begins with TESTS_, which no worker reads."""
OF_A_PERSON: Final = (
    *("NATS_", "NOETL_", "WORKER_", "LOG_LEVEL", "PORT", "HOSTNAME", "OTEL_", "TRACEPARENT", "TRACESTATE"),
    *("PG", "AWS_", "BOTO_", "GOOGLE_", "GCE_", "CLOUDSDK_", "STORAGE_EMULATOR_HOST", "KUBERNETES_", "SNOWFLAKE_"),
    *(
        "HTTP_PROXY",
        "HTTPS_PROXY",
        "ALL_PROXY",
        "NO_PROXY",
        "NETRC",
        "XDG_",
        "STATE_DIRECTORY",
        "GLIBC_TUNABLES",
        "MALLOC_",
        "UV_",
    ),
    *("COLUMNS", "LINES", "NO_COLOR", "FORCE_COLOR", "CLICOLOR", "TTY_", "PYTHONASYNCIODEBUG"),
)
"""The beginnings of variables that the worker, its libraries and its terminal read."""


def pytest_configure() -> None:
    """Before a test file is imported; again in each process of pytest-xdist, below the first one's."""
    for name in [name for name in os.environ if name.upper().startswith(OF_A_PERSON) and name not in KEPT]:
        del os.environ[name]
    process = os.environ.get("PYTEST_XDIST_WORKER")
    os.environ.setdefault("HYPOTHESIS_STORAGE_DIRECTORY", str(Path.cwd() / ".hypothesis"))
    os.environ.setdefault("PYTEST_DEBUG_TEMPROOT", tempfile.gettempdir())
    own = Path(tempfile.mkdtemp(prefix="noetl-tests-" if process is None else f"{process}-"))
    home = own / "home"
    home.mkdir()
    own.chmod(0o1777)  # as the usual one: a test's other user uses it too
    os.environ |= {"TMPDIR": str(own), "HOME": str(home)}
    tempfile.tempdir = None


def pytest_unconfigure() -> None:
    if "PYTEST_XDIST_WORKER" not in os.environ:
        shutil.rmtree(os.environ["TMPDIR"], ignore_errors=True)


@pytest.fixture(scope="session", autouse=True)
def empty_directory() -> Iterator[None]:
    """A `.env` of the clone is not read."""
    before = Path.cwd()
    os.chdir(os.environ["HOME"])
    yield
    os.chdir(before)
