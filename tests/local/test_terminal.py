"""What `dev` shows in a narrow terminal, and of a failure that a rule let pass."""

from __future__ import annotations

import io
import json
from pathlib import Path
from typing import Any

import pytest

from dev.shown_session import session
from noetl_worker.models import Dialect

WIDTH = 60
PLAYBOOK = """
metadata: {name: p, path: p}
workload: {numbers: [1, 2]}
workflow:
  - step: start
    tool: {kind: python, code: "print('long ' * 200)\\nresult = {'text': 'long ' * 200}"}
    next: {arcs: [{step: each}]}
  - step: each
    loop: {in: "{{ workload.numbers }}", iterator: n}
    tool:
      - name: fetch
        kind: http
        url: "{{ server_url }}/api/executions/{{ iter.n }}"
        spec: {policy: {rules: [{when: "{{ output.status == 'error' }}", then: {do: continue}}]}}
      - {name: last, kind: noop}
"""


async def shown(folder: Path, **given: Any) -> list[str]:
    (folder / "p.yaml").write_text(PLAYBOOK, encoding="utf-8")
    stream = io.StringIO()
    await session(folder / "p.yaml", stream, width=WIDTH, **given)
    return stream.getvalue().splitlines()


@pytest.mark.parametrize("dialect", Dialect)
async def test_output_takes_three_rows_at_most_and_a_passed_failure_is_named(tmp_path: Path, dialect: Dialect) -> None:
    lines = await shown(tmp_path, dialect=dialect, terminal=True)
    outputs = [line for line in lines if "long long" in line]
    assert len(outputs) >= 2
    assert max(map(len, outputs)) <= 3 * WIDTH
    assert sum(line.endswith("let pass: fetch: HTTP 401 response") for line in lines) == 2
    assert any("2 failures let pass" in line for line in lines)


async def test_passed_failure_is_a_field_of_its_json_line(tmp_path: Path) -> None:
    lines: list[Any] = [json.loads(line) for line in await shown(tmp_path, dialect=Dialect.RUST, as_json=True)]
    done = [line for line in lines if line["event"] == "done" and line["step"] == "each"]
    assert [line["let_pass"] for line in done] == ["fetch: HTTP 401 response"] * 2
