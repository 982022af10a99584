"""Of a task in a list the Rust plane renders what it can at once; each case was asked of noetl-server 3.54.0."""

from __future__ import annotations

from pathlib import Path

import pytest

pytest.importorskip("yaml")
from integration.processes import typed
from lint.head import HEAD
from noetl_worker.authoring.lint.inspector import inspect_text
from noetl_worker.tools.registry import Registry

REGISTRY = Registry(plugins=False)
REFUSED = {
    "kind: http, url: 'http://127.0.0.1:9/{{ workload.t.upper() }}'": "NW501",
    "kind: http, url: 'http://127.0.0.1:9/{{ workload.t | urlencode }}'": "NW502",
    "kind: http, url: 'http://127.0.0.1:9/', params: {a: '{{ workload.t.upper() }}'}": "NW501",
    "kind: shell, cmds: ['echo {{ workload.t.upper() }}']": "NW501",
    "kind: noop, result: '{{ workload.t.upper() }}'": "NW501",
}
LEFT_TO_THE_WORKER = (
    "kind: http, url: 'http://127.0.0.1:9/{{ one.status.upper() }}'",
    "kind: http, url: 'http://127.0.0.1:9/', headers: {a: \"{{ token('shop') }}\"}",
    "kind: shell, command: 'echo {{ workload.t.upper() }}'",
    "kind: noop, input: {a: '{{ workload.t.upper() }}'}",
    "kind: noop, set: {ctx.a: '{{ workload.t.upper() }}'}",
)


def written(folder: Path, task: str) -> str:
    tasks = f"tool:\n      - {{name: one, kind: noop}}\n      - {{name: two, {task}}}\n"
    file = folder / "p.yaml"
    file.write_text(f"{HEAD}workload: {{t: b}}\nworkflow:\n  - step: start\n    {tasks}", encoding="utf-8")
    return str(file)


@pytest.mark.parametrize(("task", "code"), REFUSED.items())
def test_template_that_the_plane_cannot_render_is_an_error_and_a_refusal_of_dev(
    task: str, code: str, tmp_path: Path
) -> None:
    file = written(tmp_path, task)
    found = inspect_text(Path(file).read_text(encoding="utf-8"), file, REGISTRY, plane="rust")
    assert [(one.code, one.line, one.severity) for one in found] == [(code, 9, "error")]
    ended = typed("dev", file, "--dialect", "rust", "--anyway")
    assert (ended.code, ended.err_lines[-1].partition(": Template")[0]) == (2, f"noetl-worker dev: {file}:9")


@pytest.mark.parametrize("task", LEFT_TO_THE_WORKER)
def test_template_that_the_plane_leaves_to_the_worker_is_none(task: str, tmp_path: Path) -> None:
    file = written(tmp_path, task)
    found = inspect_text(Path(file).read_text(encoding="utf-8"), file, REGISTRY, plane="rust")
    assert found == []
    assert "  started  start " in typed("dev", file, "--dialect", "rust").out
