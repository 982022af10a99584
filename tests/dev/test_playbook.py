"""Playbooks: what is read, and the one line that says what is wrong."""

from __future__ import annotations

import pytest

from noetl_worker.authoring.dev.orchestration.playbook import Playbook, known_kinds, load_playbook, parse_yaml
from noetl_worker.errors import PlaybookError
from noetl_worker.models.wire import Dialect

HEAD = "metadata: {name: p, path: p}\n"


def workflow(*steps: str) -> str:
    return HEAD + "workflow:\n" + "".join(f"  - {step}\n" for step in steps)


START = "{step: start, tool: {kind: noop}, next: {arcs: [{step: second}]}}"
SECOND = "{step: second, tool: {kind: shell, command: ls}}"

WRONG = [
    (HEAD, "workflow is missing"),
    (HEAD + "worklfow: []", "workflow is missing; is 'worklfow' meant to be it?"),
    (HEAD + "workload: {}\nworklfow: []", "workflow is missing; is 'worklfow' meant to be it?"),
    (HEAD + "workflow: []", "workflow must be a list with at least one step"),
    (workflow("{step: start}"), "step 'start': tool is missing; {kind: noop} does nothing"),
    (workflow("{step: start, next: second}", SECOND), "step 'start': tool is missing; {kind: noop} does nothing"),
    (workflow("{step: start, tool: {}}"), "step 'start', tool.kind is missing"),
    (
        workflow("{step: start, tool: {kind: pyhton}}"),
        "step 'start', tool.kind: no tool is named 'pyhton'; did you mean 'python'?",
    ),
    (
        workflow("{step: start, tool: [{name: a, kind: noop}, {name: b, kind: sehll}]}"),
        "step 'start', tool[1].kind: no tool is named 'sehll'; did you mean 'shell'?",
    ),
    (
        workflow(START.replace("second", "secnod"), SECOND),
        "step 'start': next.arcs[0].step names no step: 'secnod'; did you mean 'second'?",
    ),
    (
        workflow("{step: start, tool: {kind: noop}, next: {arcs: [{step: end, when: true}]}}"),
        "step 'start': next.arcs[0].when must be text, as \"{{ true }}\"",
    ),
    (workflow(START, SECOND, SECOND), "step 'second' is there twice"),
    (workflow("{tool: {kind: noop}}"), "workflow[0].step is missing: every step needs a name"),
    (workflow("{step: start, tol: {kind: noop}}"), "step 'start': unknown field 'tol'; did you mean 'tool'?"),
    (
        workflow("{step: start, tool: {kind: noop}, loop: {iterator: x}}"),
        "step 'start': loop.in is missing",
    ),
    (
        workflow("{step: start, tool: {kind: noop}, loop: {in: [1], spec: {mode: paralel}}}"),
        "step 'start': loop.spec.mode is 'paralel', not sequential or parallel",
    ),
    (
        workflow("{step: start, tool: {kind: noop}, loop: {in: [1], spec: {max_in_flight: 0}}}"),
        "step 'start': loop.spec.max_in_flight must be a whole number of at least 1",
    ),
    (
        workflow("{step: start, tool: {kind: noop}, next: {spec: {mode: any}, arcs: []}}"),
        "step 'start': next.spec.mode is 'any', not exclusive or inclusive",
    ),
    (
        workflow("{step: start, tool: {kind: noop}, next: {arc: []}}"),
        "step 'start': next.arcs must be a list; is 'arc' meant to be it?",
    ),
    ("workload: [", "not YAML at line 1, column 12: did not find expected node content"),
    ("workload: " + "[" * 2000, "not YAML at line 1, column 1011: exceeded maximum nesting depth"),
    ("a: 1\nb: \ud800", "not YAML at line 2, column 4: not UTF-8"),
    ("a: !!bool x", "not YAML: a tag (!!...) that does not fit its value"),
    ("\na: !!timestamp x", "not YAML at line 2, column 4: !!timestamp is no value of JSON: write text or a list"),
    ("\na: !!binary aGk=", "not YAML at line 2, column 4: !!binary is no value of JSON: write text or a list"),
    ("\na: !!set {b}", "not YAML at line 2, column 4: !!set is no value of JSON: write text or a list"),
    ("\nworkload: {v: &a [*a]}", "not YAML at line 2, column 15: an alias holds itself"),
    ("\na: &a\n  b: [{c: *a}]", "not YAML at line 2, column 4: an alias holds itself"),
    (
        "\n" + "\n".join(f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 9 if n else '1')}]" for n in range(9)),
        "not YAML at line 2, column 1: aliases make too many values",
    ),
    ("just text", "a playbook is a mapping with metadata and workflow"),
    (workflow(START, SECOND) + "workload: [1]\n", "workload must be a mapping"),
]


@pytest.mark.parametrize(("text", "message"), WRONG, ids=[message for _, message in WRONG])
def test_what_is_wrong_is_one_line_that_names_step_and_field(text: str, message: str) -> None:
    with pytest.raises(PlaybookError) as caught:
        load_playbook(text, source="a.yaml")
    said = str(caught.value)
    is_of_the_parser = message.startswith("not YAML at line 1,")  # of libyaml, or in Python
    assert said == f"a.yaml: {message}" or (is_of_the_parser and said.startswith("a.yaml: not YAML"))
    assert "\n" not in said


def test_date_without_quotes_is_text() -> None:
    text = workflow(START, SECOND) + "workload: {day: 2024-01-02, at: 2024-01-02T03:04:05Z, none: 2024-13-45}\n"
    read = load_playbook(text).workload
    assert read == {"day": "2024-01-02", "at": "2024-01-02T03:04:05Z", "none": "2024-13-45"}


def test_alias_stands_for_its_value() -> None:
    text = workflow(START, SECOND) + "workload: {a: &a {n: 1}, twice: [*a, *a], more: {<<: *a}}\n"
    assert load_playbook(text).workload == {"a": {"n": 1}, "twice": [{"n": 1}] * 2, "more": {"n": 1}}


def test_python_plane_begins_with_the_entry_step_or_the_first_one_written() -> None:
    text = workflow("{step: one, tool: {kind: noop}}", START, SECOND)
    entry = "executor: {spec: {entry_step: second}}\n"
    firsts = [load_playbook(more + text).first(plane) for more in ("", entry) for plane in Dialect]
    assert [first.name for first in firsts if first is not None] == ["one", "start", "second", "start"]


def test_end_needs_no_step() -> None:
    load_playbook(workflow("{step: start, tool: {kind: noop}, next: {arcs: [{step: end}]}}"))


def test_an_integrators_kind_is_accepted_when_named() -> None:
    text = workflow("{step: start, tool: {kind: my_tool}}")
    load_playbook(text, kinds={*known_kinds(), "my_tool"})
    with pytest.raises(PlaybookError):
        load_playbook(text)


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
        found = load_playbook(text).steps["start"].arcs
        assert [arc.step for arc in found] == ["second"], form


def test_labelled_tasks_get_names_and_unnamed_ones_have_none() -> None:
    text = workflow("{step: start, tool: [{fetch: {kind: http}}, {kind: noop}]}")
    tool = load_playbook(text).steps["start"].tool
    assert isinstance(tool, list)
    assert [(task.get("name"), task["kind"]) for task in tool] == [("fetch", "http"), (None, "noop")]


def test_lenient_reading_judges_nothing() -> None:
    document = parse_yaml("workflow: [{step: alpha, next: {arcs: [{step: nowhere}]}}, 7]")
    assert isinstance(document, dict)
    playbook = Playbook.of(document)
    assert (playbook.path, [*playbook.steps]) == ("unknown", ["alpha"])
    assert playbook.first(Dialect.PYTHON) is playbook.steps["alpha"]
    assert playbook.first(Dialect.RUST) is None


def test_single_tool_with_a_policy_is_a_list_of_one_task_on_the_python_plane() -> None:
    """Recorded (single-policy), with the words of a policy that its author left out."""
    tool = "{kind: noop, spec: {policy: {rules: [{then: {do: continue}}]}}}"
    playbook = load_playbook(workflow(f"{{step: start, tool: {tool}}}", "{step: plain, tool: {kind: noop}}"))
    steps = playbook.as_python_reads_it().steps
    whole = {"mode": "exclusive", "on_unmatched": "continue", "before": None, "after": None, "finally_": None}
    policy = {**whole, "rules": [{"then": {"do": "continue"}}]}
    spec = {"timeout": None, "policy": policy}
    assert steps["start"].tool == [{"name": "start_task", "output": None, "kind": "noop", "spec": spec}]
    assert steps["plain"] == playbook.steps["plain"]
