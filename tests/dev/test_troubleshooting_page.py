"""docs/troubleshooting.md: each message that it quotes is said, and each log event is one."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Final

import pytest

import noetl_worker
from dev.served_plane import with_worker
from noetl_worker.authoring.dev.plane import DevControlPlane
from noetl_worker.authoring.lint.inspector import inspect_text
from noetl_worker.errors import NoetlWorkerError
from noetl_worker.models import Dialect
from noetl_worker.tools.registry import Registry

PAGE: Final = (Path(__file__).parents[2] / "docs" / "troubleshooting.md").read_text(encoding="utf-8")
QUOTED: Final = re.findall(r"^\* `([^`]+)`", PAGE, re.MULTILINE)
LOGGED: Final = [text for text in QUOTED if re.fullmatch(r"[a-z]+(_[a-z]+)+", text)]


def starting(tool: str, more: str = "") -> str:
    return f"workload: {{n: a}}\nworkflow:\n  - step: start\n    tool: {tool}\n{more}"


NOOP: Final = "{kind: noop}"
SAID: Final = {
    "not YAML at line 4, column 38: found unhashable key": starting("{kind: python, input: {n: {{ workload.n }}}}"),
    "not YAML at line 4, column 44: did not find expected ',' or '}'": starting(
        '{kind: python, code: result = {"a": 1}}'
    ).replace("tool: ", "tool:    "),
    "no tool is named 'pyhton'; did you mean 'python'?": starting("{kind: pyhton}"),
    "Workflow must have a step named 'start'": starting(NOOP).replace("start", "first"),
    "which is no step": starting(NOOP, "    next: {arcs: [{step: nowhere}]}\n"),
    "unknown key 'tol' of a step; did you mean 'tool'?": starting(NOOP).replace("tool:", "tol:"),
    "when must be text": starting(NOOP, "    next: {arcs: [{step: end, when: true}]}\n"),
    "the Rust plane refuses the playbook": starting(NOOP, "    next: end\n"),
    "Template render error: unknown method": starting('{kind: python, input: {n: "{{ workload.n.upper() }}"}}'),
    "No filter named 'nofilter'": starting('{kind: python, input: {n: "{{ workload.n | nofilter }}"}}'),
    "field 'url' (or endpoint) is missing": starting("{kind: http, urll: http://127.0.0.1:9/}"),
    "no credential 'pg'": starting("{kind: postgres, auth: pg, query: select 1}"),
    "Execution timed out after 0.5 seconds": starting("{kind: shell, command: sleep 30, timeout: 0.5}"),
    "All connection attempts failed": starting("{kind: http, url: 'http://127.0.0.1:9/'}"),
    "No module named 'nowhere'": starting("{kind: python, code: import nowhere}"),
    "No such file or directory: 'data.csv'": starting("{kind: python, code: open('data.csv')}"),
    "name 'city' is not defined": starting("{kind: python, code: result = city}", "    input: {city: Paris}\n"),
    "Tool not found": starting("{kind: gcs}"),
    "nothing follows": starting(
        NOOP, "    next: {arcs: [{step: end, when: '{{ 1 > 2 }}'}]}\n  - {step: end, tool: {kind: noop}}\n"
    ),
}
"""By what the page quotes a playbook of which it is said, on the Rust plane."""


async def said_of(plane: DevControlPlane, playbook: str) -> str:
    """What `check` says of it, which `dev` shows first, and what its run says."""
    found = inspect_text(playbook, "p.yaml", Registry(plugins=False))
    return "\n".join([*(one.message for one in found), await said_of_run(plane, playbook)])


async def said_of_run(plane: DevControlPlane, playbook: str) -> str:
    try:
        plane.register_playbook(playbook)
        execution_id = await plane.execute("unknown")
    except NoetlWorkerError as error:
        return str(error)
    await plane.wait_all_ended()
    if plane.execution(execution_id).stands_still:
        return "nothing follows"
    [ended] = plane.events(execution_id, "call.done") or plane.events(execution_id, "call.error")
    return f"{ended}"


@pytest.fixture(scope="module")
async def said() -> dict[str, str]:
    async with with_worker(Dialect.RUST) as plane:
        return {text: await said_of(plane, playbook) for text, playbook in SAID.items()}


@pytest.mark.parametrize("text", [text for text in QUOTED if text not in LOGGED])
async def test_message_of_the_page_is_said(text: str, said: dict[str, str]) -> None:
    assert text in said[text]


@pytest.mark.parametrize("event", LOGGED)
def test_log_event_of_the_page_is_one(event: str) -> None:
    sources = Path(noetl_worker.__file__).parent.rglob("*.py")
    assert any(f'"{event}"' in source.read_text(encoding="utf-8") for source in sources)
