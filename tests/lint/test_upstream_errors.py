"""Upstream's playbooks that a plane accepts and `check` calls wrong: a run of each fails.

Each is a file of noetl/e2e, reduced to its step. The other accepted files of that repository have no error.
"""

from __future__ import annotations

from pathlib import Path

import pytest

pytest.importorskip("yaml")
from integration.processes import typed
from lint.head import HEAD
from noetl_worker.authoring.lint.inspector import inspect_text
from noetl_worker.tools.registry import Registry

REGISTRY = Registry(plugins=False)
HTTP = "{kind: http, url: 'http://127.0.0.1:9/', %s}"
FAILING = {
    # file: planes that accept it, code, the step's tool, the reason that the run gives
    "amadeus_ai_api": (
        "python rust",
        "NW204",
        HTTP % "retry: {max_attempts: 3, backoff_seconds: 2}",
        "retry: unknown key 'backoff_seconds'",
    ),
    "should_error_tool_is_required": ("python", "NW203", "{kind: postgres, auth: pg}", "field 'query'"),
    "deploy_gateway_kind": (
        "python rust",
        "NW301",
        "{kind: shell, cmds: ['echo {{`{{json .}}`}}']}",
        "unexpected char",
    ),
    "spike_e2e_test": (
        "python",
        "NW201",
        "{kind: agent, framework: noetl, entrypoint: tests/spike}",
        "agent is not run by this worker",
    ),
    "test_gke_lifecycle": ("python rust", "NW204", HTTP % "auth: {source: adc}", "auth source 'adc' is not supported"),
    "google_gcs_oauth": (
        "rust",
        "NW502",
        HTTP % "headers: {Authorization: 'Bearer {{ token(google_auth) }}'}",
        "'token' is undefined",
    ),
    "subscription_kafka_drain": (
        "rust",
        "NW204",
        "{kind: subscription, source: kafka, topic: a}",
        "source 'kafka' is not read by this worker",
    ),
    "subscription_pubsub_drain": (
        "rust",
        "NW204",
        "{kind: subscription, source: pubsub, subscription: a}",
        "source 'pubsub' is not read by this worker",
    ),
    "test_pft_page_continuation": (
        "python rust",
        "NW207",
        "{kind: noop}\n    loop: {cursor: {kind: postgres, auth: pg, claim: SELECT 1}, iterator: row}",
        "this worker does not run cursor loops",
    ),
}
IDLE_ENTRY = "workbook: [{name: run_playbook_with_retry, tool: {kind: playbook, return_step: end}}]\n"


def written(folder: Path, text: str) -> str:
    file = folder / "p.yaml"
    file.write_text(HEAD + text, encoding="utf-8")
    return str(file)


@pytest.mark.parametrize(("planes", "code", "tool", "reason"), FAILING.values(), ids=FAILING)
def test_error_of_the_check_is_a_failure_of_the_run(
    planes: str, code: str, tool: str, reason: str, tmp_path: Path
) -> None:
    file = written(tmp_path, f"workflow:\n  - step: start\n    tool: {tool}\n")
    for plane in planes.split():
        found = inspect_text(Path(file).read_text(encoding="utf-8"), file, REGISTRY, plane=plane)
        assert [one.code for one in found if one.severity == "error"] == [code]
    ended = typed("dev", file, "--dialect", plane, "--anyway", "--json")
    last = ended.out.splitlines()[-2:] or ended.err_lines[-1:]
    assert ended.code in (1, 2)
    assert any(reason in line for line in last), last


@pytest.mark.parametrize("plane", ["python", "rust"])
def test_mistake_in_a_workbook_entry_that_no_step_runs_is_a_warning(plane: str, tmp_path: Path) -> None:
    """As in `master_regression_test`, which completes."""
    file = written(tmp_path, IDLE_ENTRY + "workflow: [{step: start, tool: {kind: noop}}]\n")
    found = inspect_text(Path(file).read_text(encoding="utf-8"), file, REGISTRY, plane=plane)
    assert [(one.code, one.severity) for one in found] == [("NW405", "warning"), ("NW203", "warning")]
    assert typed("dev", file, "--dialect", plane).code == 0


def test_mistake_in_a_workbook_entry_that_a_step_runs_is_an_error(tmp_path: Path) -> None:
    file = written(
        tmp_path, IDLE_ENTRY + "workflow: [{step: start, tool: {kind: workbook, name: run_playbook_with_retry}}]\n"
    )
    found = inspect_text(Path(file).read_text(encoding="utf-8"), file, REGISTRY)
    assert [(one.code, one.severity) for one in found] == [("NW203", "error")]
    assert typed("dev", file, "--anyway").code == 1
