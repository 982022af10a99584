"""What completed on a control plane has no error for that plane; the examples have none for any."""

from __future__ import annotations

import importlib
import json
from pathlib import Path

import pytest

pytest.importorskip("yaml")
from lint.head import HEAD
from noetl_worker.authoring.lint.inspector import inspect_text, looks_like_a_playbook
from noetl_worker.tools.registry import Registry

ROOT = Path(__file__).parents[2]
VALUES = ROOT / "tests/compat/values"
PLANES = ("python", "rust")
ON_PURPOSE = {
    # Recorded to see what a plane makes of a mistake. It completed, without the step or with the text as written.
    "error-syntax": {"NW601"},
    "error-template": {"NW301", "NW302"},
}
REFUSED = {
    # Of the samples: neither plane, or no worker, ran them.
    "invalid-yaml": {"NW100"},
    "legacy-args": {"NW511"},
    "missing-workflow": {"NW105"},
    "tool-postgres-noauth": {"NW204"},
    "unknown-kind": {"NW201"},
    "unknown-tool": {"NW201"},
}
COMPLETED = [
    pytest.param(VALUES / "playbooks" / f"{row['name']}.yaml", plane, id=f"{plane}-{row['name']}")
    for plane in PLANES
    for row in map(json.loads, (VALUES / f"values-{plane}.jsonl").read_text(encoding="utf-8").splitlines())
    if row["outcome"] in ("completed", "inferred")
]
SAMPLES = sorted((ROOT / "tests/compat/playbooks").rglob("*.yaml"))
EXAMPLES = sorted(ROOT.glob("examples/**/*.yaml"))
REGISTRY = Registry(plugins=False)


def errors(file: Path, plane: str | None, registry: Registry = REGISTRY) -> set[str]:
    found = inspect_text(file.read_text(encoding="utf-8"), file.name, registry, plane=plane)
    return {one.code for one in found if one.severity == "error"}


@pytest.mark.sweep
@pytest.mark.parametrize(("file", "plane"), COMPLETED)
def test_recorded_playbook_that_completed_has_no_error_for_its_plane(file: Path, plane: str) -> None:
    assert errors(file, plane) == ON_PURPOSE.get(file.stem, set())


@pytest.mark.parametrize("file", SAMPLES, ids=lambda file: file.relative_to(ROOT / "tests/compat").as_posix())
def test_playbook_of_the_samples_has_no_error_but_where_it_is_one(file: Path) -> None:
    plane = "rust" if file.parent.name == "rust" else "python"
    assert errors(file, plane) == {**ON_PURPOSE, **REFUSED}.get(file.stem, set())


@pytest.mark.parametrize("file", EXAMPLES, ids=lambda file: file.relative_to(ROOT / "examples").as_posix())
def test_example_has_no_error(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    text = file.read_text(encoding="utf-8")
    if not looks_like_a_playbook(text):
        pytest.skip("credentials beside a playbook")
    monkeypatch.syspath_prepend(str(ROOT / "examples/plugin/src"))
    plug_in = importlib.import_module("noetl_worker_webhook")
    assert errors(file, None, Registry([plug_in.WebhookTool()], plugins=False)) == set()


RUN_BY_PYTHON = {
    "first step has another name": "workflow: [{step: begin, tool: {kind: noop}}]\n",
    "entry step": (
        "executor: {spec: {entry_step: second}}\n"
        "workflow: [{step: first, tool: {kind: noop}}, {step: second, tool: {kind: noop}, "
        "next: {arcs: [{step: first}]}}]\n"
    ),
    "max_in_flight as an expression": (
        "workload: {n: 2, rows: [1]}\n"
        "workflow: [{step: start, tool: {kind: noop}, loop: {in: '{{ workload.rows }}', iterator: row, "
        "spec: {mode: parallel, max_in_flight: '{{ workload.n }}'}}}]\n"
    ),
    "token in a header": (
        "workflow: [{step: start, tool: {kind: http, url: 'https://example.org', "
        "headers: {Authorization: 'Bearer {{ token(google) }}'}}}]\n"
    ),
    "keys of a keychain": (
        "keychain: [{name: a, kind: google_id_token, provider: gcp, endpoint: x, ref: y, target_audience: z}]\n"
        "workflow: [{step: start, tool: {kind: noop}, next: {spec: {on_no_match: quiet}, arcs: []}}]\n"
    ),
    "arc to no step": "workflow: [{step: start, tool: {kind: noop}, next: {arcs: [{step: nowhere}]}}]\n",
    "key that nothing reads": "workflow: [{step: start, tool: {kind: noop}, retyr: 3}]\n",
    "key twice": "workflow: [{step: start, tool: {kind: noop}, desc: a, desc: b}]\n",
    "condition that is a text": (
        "workflow: [{step: start, tool: {kind: noop}, next: {arcs: [{step: start, when: '{{ 1 }} == 2'}]}}]\n"
    ),
}


@pytest.mark.parametrize("text", RUN_BY_PYTHON.values(), ids=RUN_BY_PYTHON)
def test_what_the_python_plane_runs_has_no_error_for_it(text: str) -> None:
    found = inspect_text(HEAD + text, "p.yaml", REGISTRY, plane="python")
    assert [one for one in found if one.severity == "error"] == []


@pytest.mark.parametrize("kind", ["Subscription", "Mcp", "Credential"])
def test_document_of_another_kind_is_passed_over(kind: str) -> None:
    assert not looks_like_a_playbook(f"apiVersion: noetl.io/v2\nkind: {kind}\nspec: {{}}\n")
    assert looks_like_a_playbook("apiVersion: noetl.io/v2\nkind: Playbok\nworkflow: []\n")
