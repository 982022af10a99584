"""Every playbook of docs/playbooks.md gives on the development plane what it says; on a real plane: `make compat`."""

from __future__ import annotations

import json
from typing import Any

import pytest

from compat.page_playbooks import FAILED, PAGE, REFUSED, STANDS_STILL, PagePlaybook, page_playbooks
from dev.served_plane import with_worker
from noetl_worker.authoring.dev.plane import DevControlPlane
from noetl_worker.models import Dialect

PLAYBOOKS = page_playbooks()


def started(plane: DevControlPlane, playbook: PagePlaybook) -> int | None:
    """Start it; its execution, None where the plane refuses it."""
    plane.register_playbook(playbook.content)
    answer = plane.executions.execute_route({"path": playbook.path, "payload": {"server_url": plane.url}})
    return int(json.loads(answer.body)["execution_id"]) if answer.status == 200 else None


def given(plane: DevControlPlane, execution_id: int | None) -> Any:
    if execution_id is None:
        return REFUSED
    execution = plane.execution(execution_id)
    if execution.stands_still:
        return STANDS_STILL
    return FAILED if execution.status == "FAILED" else execution.last_result


@pytest.fixture(scope="module", params=list(Dialect), ids=[dialect.value for dialect in Dialect])
async def seen(request: pytest.FixtureRequest) -> tuple[Dialect, dict[str, Any]]:
    """What came of each, all at once on one plane."""
    dialect: Dialect = request.param
    async with with_worker(dialect) as plane:
        executions = {one.name: started(plane, one) for one in PLAYBOOKS}
        await plane.dispatcher.flush()
        await plane.wait_all_ended()
        return dialect, {name: given(plane, execution_id) for name, execution_id in executions.items()}


@pytest.mark.parametrize("playbook", PLAYBOOKS, ids=[one.name for one in PLAYBOOKS])
async def test_playbook_of_the_page_gives_what_it_says(
    playbook: PagePlaybook, seen: tuple[Dialect, dict[str, Any]]
) -> None:
    dialect, found = seen
    assert found[playbook.name] == playbook.gives[dialect]


def test_every_fence_of_the_page_is_run() -> None:
    fences = PAGE.read_text(encoding="utf-8").count("\n```yaml\n")
    assert fences == sum(one.name.startswith("playbooks-") for one in PLAYBOOKS) > 5
