"""A large command is prepared off the event loop: of the CPU that its preparation costs, the loop's thread has a part.

Each command has 300,000 numbers, and something that the worker has to look for in all of them.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

import pytest

from noetl_worker.authoring.local_run import LocalResult, LocalRun, WithholdingTransport
from noetl_worker.models import Dialect
from noetl_worker.models.notification import Envelope
from noetl_worker.remote.plane.client import Plane
from noetl_worker.remote.transport.transport import Body, Response
from noetl_worker.settings.settings import load_settings

URL: Final = "http://127.0.0.1:9"
ENVELOPE: Final = Envelope(7, 8, "7:look:8", "look", URL, None, None)
NUMBERS: Final = list(range(300_000))
TEMPLATES: Final = [f"{{{{ x{number} }}}}" for number in range(1_500)]
COMMANDS: Final[dict[str, dict[str, Any]]] = {
    "a secret beside the input": {"tool_config": {"password": "planted-one"}, "args": {"rows": NUMBERS}},
    "a secret in the workload": {
        "tool_config": {},
        "render_context": {"workload": {"password": "planted-one", "rows": NUMBERS}},
    },
    "a template that inserts all": {
        "tool_config": {"password": "planted-one", "input": {"rows": "{{ workload.rows }}"}},
        "render_context": {"workload": {"rows": NUMBERS}},
    },
    "a template beside the input": {"tool_config": {}, "args": {"rows": NUMBERS, "text": "{{ workload.missing }}"}},
    "the name of a reference": {"tool_config": {}, "args": {"rows": NUMBERS, "text": "$noetl_ref"}},
}


class _NoPlane:
    """A plane that knows nothing."""

    async def send(
        self, method: str, url: str, headers: Mapping[str, str], body: Body | None, timeout_s: float | None
    ) -> Response:
        return Response(404, {}, b"{}")

    async def close(self) -> None:
        pass


async def run(context: Mapping[str, Any], dialect: Dialect, kind: str = "noop") -> tuple[LocalResult, float]:
    """Run a command. Return its result, and the part of the process's CPU time that the loop's thread took."""
    settings = load_settings({"NOETL_SERVER_URL": URL}, dotenv=Path("/nonexistent"))
    body = {"execution_id": 7, "node_name": "look", "action": kind, "context": context, "meta": {}}
    async with LocalRun(settings, WithholdingTransport(_NoPlane())) as local_run:
        plane = Plane(local_run.client, URL, dialect)
        at_loop, at_all = time.thread_time(), time.process_time()
        result = await local_run.run(body, ENVELOPE, plane)
        return result, (time.thread_time() - at_loop) / (time.process_time() - at_all)


@pytest.mark.parametrize("name", COMMANDS)
@pytest.mark.parametrize("dialect", list(Dialect))
async def test_large_command_is_prepared_off_the_loop(name: str, dialect: Dialect) -> None:
    result, part = await run(COMMANDS[name], dialect)
    assert not result.failed, result.events
    assert part < 0.5, part


async def test_secrets_of_a_large_result_are_looked_for_off_the_loop() -> None:
    """A small sequence: its first task makes 100,000 addresses, and the second has them beside a secret."""
    make = {"name": "make", "kind": "python", "code": "result = [f'http://a/?n={n}' for n in range(100_000)]"}
    given = {"rows": "{{ make }}", "password": "planted-one"}
    take = {"name": "take", "kind": "python", "code": "result = len(rows)", "input": given}
    result, part = await run({"tool_config": {"tasks": [make, take]}}, Dialect.RUST, "task_sequence")
    assert not result.failed, result.events
    assert part < 0.5, part


@pytest.mark.parametrize("dialect", list(Dialect))
async def test_texts_like_templates_are_told_from_data_off_the_loop(dialect: Dialect) -> None:
    """45 kB with 1,500 texts like a template, none of which is one of the 1,500 in the workload."""
    context = {
        "tool_config": {},
        "args": {"rows": [f"{text}!" for text in TEMPLATES]},
        "render_context": {"workload": {"rows": TEMPLATES}},
    }
    result, part = await run(context, dialect)
    assert not result.failed, result.events
    assert part < 0.5, part


@pytest.mark.parametrize("dialect", list(Dialect))
async def test_more_texts_like_templates_than_can_be_compared_are_refused(dialect: Dialect) -> None:
    rows = [f"{{{{ x{number} }}}}" for number in range(4_000)]
    context = {
        "tool_config": {},
        "args": {"rows": [f"{text}!" for text in rows]},
        "render_context": {"workload": {"rows": rows}},
    }
    result, _ = await run(context, dialect)
    assert result.failed
    assert "too many different texts with template marks" in str(result.events)
    assert "pass fewer of them to one step" in str(result.events)
