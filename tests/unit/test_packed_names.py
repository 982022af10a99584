"""Results that are stored packed, as the Python plane puts them into a command: whole for its tool."""

from __future__ import annotations

from typing import Any

import pytest

from noetl_worker.models import Dialect
from noetl_worker.models.notification import Envelope
from noetl_worker.pipeline.command.command import hydrate
from noetl_worker.remote.plane.python.store import packed_for_store
from noetl_worker.text import json_text
from noetl_worker.text.templates import template
from unit.planes import URL, plane

TEXT = "0123456789abcdef" * 200 + "{{ 7 * 6 }}"
WHOLE = {"text": TEXT, "count": 3}
STORED = json_text.loads(packed_for_store(json_text.dumps(WHOLE), {"count": 3}))
REFERENCE = {"kind": "result_ref", "ref": "noetl://execution/7/result/start/1", "store": "kv"}
RESOLVED = {
    **STORED,
    "data": STORED,
    "_ref": REFERENCE,
    "reference": REFERENCE,
    "status": "COMPLETED",
    "context": {"count": 3, "_truncated": True},
}
"""As the plane hands it out (`_merge_hydrated_step_result` of NoETL 4.0.0)."""


async def hydrated(given: Any) -> Any:
    at, _ = plane(lambda *_: pytest.fail("nothing is asked"), Dialect.PYTHON)
    names = {"start": RESOLVED, "ctx": {"start": RESOLVED}, "workload": {"start": RESOLVED, "n": 1}}
    context = {"tool_config": {"code": "pass", "input": {"w": given}}, "render_context": names}
    body = {"execution_id": 7, "node_name": "look", "action": "python", "context": context}
    return await hydrate(body, Envelope(7, 8, 9, "look", URL, None, None), at)


@pytest.mark.parametrize("at", ["start", "start.data", "ctx.start", "workload.start"])
async def test_templates_read_a_packed_result_under_each_of_its_names(at: str) -> None:
    variables = (await hydrated("")).variables
    assert template.render(f"{{{{ {at}.text }}}}", variables) == TEXT
    assert template.render(f"{{{{ {at}.count }}}}", variables) == 3


@pytest.mark.parametrize(
    ("given", "whole"),
    [
        (STORED, WHOLE),
        ({"in": [STORED]}, {"in": [WHOLE]}),
        (RESOLVED, {**{name: RESOLVED[name] for name in RESOLVED if name[:2] != "_z"}, **WHOLE, "data": WHOLE}),
    ],
    ids=["its data", "in something else", "the step"],
)
async def test_packed_result_that_the_plane_has_put_into_the_input_is_whole_and_data(given: Any, whole: Any) -> None:
    command = await hydrated(given)
    assert command.input["w"] == whole
    assert template.render(command.input, {})["w"] == whole, "no text of it is rendered"
