"""Playbooks: what is read of them, and the one line about a text that is not YAML."""

from __future__ import annotations

import pytest

from noetl_worker.authoring.dev.orchestration.playbook import Playbook, parse_yaml, read_playbook
from noetl_worker.errors import PlaybookError
from noetl_worker.models.wire import Dialect

HEAD = "metadata: {name: p, path: p}\n"


def workflow(*steps: str) -> str:
    return HEAD + "workflow:\n" + "".join(f"  - {step}\n" for step in steps)


START = "{step: start, tool: {kind: noop}, next: {arcs: [{step: second}]}}"
SECOND = "{step: second, tool: {kind: shell, command: ls}}"

UNREADABLE = [
    ("workload: [", "not YAML at line 1, column 12: did not find expected node content"),
    ("workload: " + "[" * 2000, "not YAML at line 1, column 1011: exceeded maximum nesting depth"),
    ("a: 1\nb: \ud800", "not YAML at line 2, column 4: not UTF-8"),
    ("a: !!bool x", "not YAML: a tag (!!...) that does not fit its value"),
    ("\na: !!timestamp x", "not YAML at line 2, column 4: !!timestamp is no value of JSON: write text or a list"),
    ("\na: !!binary aGk=", "not YAML at line 2, column 4: !!binary is no value of JSON: write text or a list"),
    ("\na: !!set {b}", "not YAML at line 2, column 4: !!set is no value of JSON: write text or a list"),
    (
        "\nworkload: {v: &a [*a]}",
        "not YAML at line 2, column 15: an alias contains itself: write its value out",
    ),
    (
        "\na: &a\n  b: [{c: *a}]",
        "not YAML at line 2, column 4: an alias contains itself: write its value out",
    ),
    (
        "\n" + "\n".join(f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 9 if n else '1')}]" for n in range(9)),
        "not YAML at line 2, column 1: aliases make too many values: write fewer aliases of aliases",
    ),
]


@pytest.mark.parametrize(("text", "message"), UNREADABLE, ids=[message for _, message in UNREADABLE])
def test_text_that_is_not_yaml_is_one_line_with_its_place(text: str, message: str) -> None:
    with pytest.raises(PlaybookError) as caught:
        read_playbook(text)
    said = str(caught.value)
    is_of_the_parser = message.startswith("not YAML at line 1,")  # of libyaml, or in Python
    assert said == message or (is_of_the_parser and said.startswith("not YAML"))
    assert "\n" not in said


def test_date_without_quotes_is_text() -> None:
    text = workflow(START, SECOND) + "workload: {day: 2024-01-02, at: 2024-01-02T03:04:05Z, none: 2024-13-45}\n"
    read = read_playbook(text).workload
    assert read == {"day": "2024-01-02", "at": "2024-01-02T03:04:05Z", "none": "2024-13-45"}


def test_alias_stands_for_its_value() -> None:
    text = workflow(START, SECOND) + "workload: {a: &a {n: 1}, twice: [*a, *a], more: {<<: *a}}\n"
    assert read_playbook(text).workload == {"a": {"n": 1}, "twice": [{"n": 1}] * 2, "more": {"n": 1}}


def test_python_plane_begins_with_the_entry_step_or_the_first_one_written() -> None:
    text = workflow("{step: one, tool: {kind: noop}}", START, SECOND)
    entry = "executor: {spec: {entry_step: second}}\n"
    firsts = [read_playbook(more + text).first(plane) for more in ("", entry) for plane in Dialect]
    assert [first.name for first in firsts if first is not None] == ["one", "start", "second", "start"]


def test_written_forms_of_next_are_equal() -> None:
    forms = (
        "next: second",
        "next: [second]",
        "next: [{step: second}]",
        "next: {step: second}",
        "next: {arcs: [{step: second}]}",
    )
    for form in forms:
        text = workflow("{step: start, tool: {kind: noop}, " + form + "}", SECOND)
        found = read_playbook(text).steps["start"].arcs
        assert [arc.step for arc in found] == ["second"], form


def test_labelled_tasks_get_names_and_unnamed_ones_have_none() -> None:
    text = workflow("{step: start, tool: [{fetch: {kind: http}}, {kind: noop}]}")
    tool = read_playbook(text).steps["start"].tool
    assert isinstance(tool, list)
    assert [(task.get("name"), task["kind"]) for task in tool] == [("fetch", "http"), (None, "noop")]


def test_lenient_reading_judges_nothing() -> None:
    document = parse_yaml("workflow: [{step: alpha, next: {arcs: [{step: nowhere}]}}, 7]")
    assert isinstance(document, dict)
    playbook = Playbook.from_document(document)
    assert (playbook.path, [*playbook.steps]) == ("unknown", ["alpha"])
    assert playbook.first(Dialect.PYTHON) is playbook.steps["alpha"]
    assert playbook.first(Dialect.RUST) is None


def test_single_tool_with_a_policy_is_a_list_of_one_task_on_the_python_plane() -> None:
    """Recorded (single-policy), with the words of a policy that its author left out."""
    tool = "{kind: noop, spec: {policy: {rules: [{then: {do: continue}}]}}}"
    playbook = read_playbook(workflow(f"{{step: start, tool: {tool}}}", "{step: plain, tool: {kind: noop}}"))
    steps = playbook.as_python_reads_it().steps
    whole = {"mode": "exclusive", "on_unmatched": "continue", "before": None, "after": None, "finally_": None}
    policy = {**whole, "rules": [{"then": {"do": "continue"}}]}
    spec = {"timeout": None, "policy": policy}
    assert steps["start"].tool == [{"name": "start_task", "output": None, "kind": "noop", "spec": spec}]
    assert steps["plain"] == playbook.steps["plain"]
