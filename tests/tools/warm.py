"""One registry for the tests of a loop: their commands run as in a worker, in children of one template process.

A file takes both fixtures: `anyio_backend, registry = warm.anyio_backend, warm.registry`.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping
from typing import Any

import pytest

import loops
from noetl_worker.testing import tool_context
from noetl_worker.tools.registry import Registry

_RUNNING: list[Registry] = []


@pytest.fixture(scope="module", params=loops.BOTH)
def anyio_backend(request: pytest.FixtureRequest) -> Any:
    return request.param


@pytest.fixture(scope="module", autouse=True)
async def registry(anyio_backend: Any) -> AsyncIterator[Registry]:
    _RUNNING.append(Registry(plugins=False))
    yield _RUNNING[-1]
    await _RUNNING.pop().aclose()


async def run(kind: str, config: Mapping[str, Any], **context: Any) -> Any:
    [running] = _RUNNING
    return await running.run_tool(kind, config, tool_context(registry=running, kind=kind, **context))
