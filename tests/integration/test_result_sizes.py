"""A result for which a batch of events has no room, from one step to the next.

The Python plane takes 2 MiB in a batch of events (recorded: refused-batch-payload-2mib-above), and its result store
would look through one unbroken text of 200 kB for more than a minute.
"""

from __future__ import annotations

import json
from hashlib import sha256
from typing import Any

import pytest

from integration.house import house
from noetl_worker.authoring.dev.event_log import LoggedEvent
from noetl_worker.models import Dialect

MIB = 1024 * 1024
SIZES = {"text": 5 * MIB // 2, "printed": 3 * MIB // 2, "tasks": 3 * MIB // 2}
"""Above 2 MiB in a batch: what is printed is in it twice, and so is the result of the last task of a list."""
PLAYBOOK = """
apiVersion: noetl.io/v2
kind: Playbook
metadata: {name: sizes, path: t/NAME}
workflow:
- step: start
  tool: TOOL
  next: {arcs: [{step: last}]}
- step: last
  tool: [{name: look, kind: python, input: {value: "{{ PATH }}"}, code: CODE}]
"""
SINGLE = """
  next: {arcs: [{step: single}]}
- step: single
  tool: {kind: python, input: {value: "{{ PATH }}"}, code: CODE}
"""
"""The Python plane renders it, as far as it can; the Rust plane shows it the preview."""
CODE = """
import hashlib, json
text = value if isinstance(value, str) else json.dumps(value)
return {"bytes": len(text), "digest": hashlib.sha256(text.encode()).hexdigest()}
"""
ROW = {"id": 7, "text": "a word " * 60}


def python(code: str) -> str:
    return json.dumps({"kind": "python", "code": code})


def of_shape(shape: str, size: int) -> tuple[str, Any]:
    """The tool that gives a value of so many bytes, and the value."""
    if shape == "text":
        return python(f"result = {{'text': 'x' * {size}}}"), "x" * size
    if shape == "printed":
        return json.dumps({"kind": "shell", "command": f"head -c {size} /dev/zero | tr '\\0' x"}), "x" * size
    rows = [ROW] * (size // len(json.dumps(ROW)))
    return json.dumps([{"name": "gen", "kind": "python", "code": f"result = {{'rows': [{ROW}] * {len(rows)}}}"}]), rows


PATHS = {
    **{(dialect, "text"): "start.text" for dialect in Dialect},
    **{(dialect, "printed"): "start.stdout" for dialect in Dialect},
    (Dialect.PYTHON, "tasks"): "start.results.gen.rows",
    (Dialect.RUST, "tasks"): "start.gen.rows",
}


def seen_by(end: LoggedEvent, dialect: Dialect) -> Any:
    context = end.result["context"]
    if dialect is Dialect.RUST:
        return context["result"]["context"]["data"]["look"]
    return context.get("_prev") or {name: context[name] for name in ("bytes", "digest")}


@pytest.mark.heavy_on_loop(reason="the development plane is on it, and copies a result of megabytes several times")
async def test_later_steps_read_what_a_batch_of_events_had_no_room_for(dialect: Dialect) -> None:
    async with house(dialect) as home:
        for shape, size in SIZES.items():
            tool, value = of_shape(shape, size)
            text = PLAYBOOK + SINGLE * (dialect is Dialect.PYTHON)
            for mark, said in {
                "TOOL": tool,
                "NAME": shape,
                "PATH": PATHS[dialect, shape],
                "CODE": json.dumps(CODE),
            }.items():
                text = text.replace(mark, said)
            home.plane.register_playbook(text)
            execution_id = await home.plane.execute(f"t/{shape}")
            assert (shape, await home.plane.wait_ended(execution_id, timeout_s=60)) == (shape, "COMPLETED")
            seen = [seen_by(event, dialect) for event in home.plane.log.events(execution_id, "call.done")[1:]]
            whole = value if isinstance(value, str) else json.dumps(value)
            one = {"bytes": len(whole), "digest": sha256(whole.encode()).hexdigest()}
            assert (shape, seen) == (shape, [one] * (2 if dialect is Dialect.PYTHON else 1))
