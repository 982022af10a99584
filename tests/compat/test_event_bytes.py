"""A command's terminal events have for the Python plane what those of its own worker have, in as many bytes."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest

from compat.values_replay import exchanges
from compat.values_run import PYTHON_ENDS, observe, size_of
from compat.values_server import values_server
from noetl_worker.models import CaseDecision, Dialect, FitRules, ToolResult
from noetl_worker.pipeline.report import results
from unit.planes import command

PLAYBOOKS = (
    "http-pages", "http-request", "http-method-case", "view-python", "list-reads-lists", "types-list",
    "loop-parallel", "set-rule", "arcs-sequence", "arcs-conditions", "error-raise", "error-syntax", "error-http-404",
    "loop-item-fails-seq", "loop-item-fails-par",
)  # fmt: skip
MOST = 1.2


def recorded_bytes(playbook: str) -> list[int]:
    """The recordings are kept without a word that is the same in each of their events, and in each of ours."""
    posted = [one["req"]["events"] for one in exchanges("python")[playbook] if "/batch" in one.get("path", "")]
    ends = (event for events in posted for event in events if event["name"] in PYTHON_ENDS)
    return [size_of({**event, "informative": True}) for event in ends]


@pytest.fixture
async def observed(anyio_backend: Any) -> dict[str, Any]:
    """Of each playbook, what our worker tells."""
    with values_server() as server:
        return await observe(Dialect.PYTHON, PLAYBOOKS, server, 5432)


def test_ends_of_a_command_are_little_longer_than_the_published_workers(
    observed: dict[str, Any],
) -> None:
    shares = {}
    for playbook in PLAYBOOKS:
        told, recorded = observed[playbook]["ends"], recorded_bytes(playbook)
        assert len(told) == len(recorded), playbook
        shares[playbook] = round(sum(told) / sum(recorded), 2)
    assert max(shares.values()) <= MOST, shares


def recorded_ends() -> Iterator[tuple[str, dict[str, Any]]]:
    """Each whole `call.done`, with the playbook's name."""
    for playbook, records in exchanges("python").items():
        for one in records:
            for event in one["req"]["events"] if "/batch" in one.get("path", "") else ():
                if (
                    event["name"] == "call.done"
                    and "response" in event["payload"]
                    and "<cut, " not in json.dumps(event)
                ):
                    yield playbook, event["payload"]


def is_other_on_purpose(playbook: str, response: Any) -> bool:
    """A whole number beyond 64 bits is text with us; of a result with an object `context` theirs tells that alone."""
    is_a_view = isinstance(response, dict) and isinstance(response.get("context"), dict)
    return playbook == "py-type-bigint" or is_a_view


def lacks(told: Any, recorded: Any) -> bool:
    """Whether something recorded is not told; a count under a secret-like name is redacted by us."""
    if isinstance(recorded, dict):
        names = recorded.keys() - {"secrets_created"}
        return not isinstance(told, dict) or any(lacks(told.get(name, "absent"), recorded[name]) for name in names)
    return bool(told != recorded)


async def test_every_event_says_of_a_result_what_the_published_worker_says_in_each() -> None:
    seen, less = 0, []
    for playbook, payload in recorded_ends():
        if is_other_on_purpose(playbook, payload["response"]):
            continue
        result = ToolResult.success(payload["response"])
        report = await results.report(command(), result, CaseDecision(), FitRules())
        if lacks(report.context or {}, payload["result"].get("context") or {}):
            less.append((playbook, payload["result"], report.context))
        seen += 1
    assert seen > 200
    assert less == []
