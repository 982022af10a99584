"""A step that `dev` or its plane cannot go on with is named with its file and line."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

pytest.importorskip("yaml")
from integration.processes import Ended, typed
from lint.head import HEAD

START = "  - step: start\n    tool: {kind: noop}\n    next: {arcs: [{step: two}]}\n"
"""Lines 6 to 8: the head has three, and two stand before the first step."""
LATER = {
    "loop over no list": (
        "workload: {a: 7}\nworkflow:\n%s  - step: two\n    tool: {kind: noop}\n"
        '    loop:\n      in: "{{ workload.a }}"\n      iterator: x\n',
        "python rust",
        12,
        "step 'two': loop.in is not a list: {{ workload.a }}",
    ),
    "limit that is no number": (
        "workload: {a: [7], n: many}\nworkflow:\n%s  - step: two\n    tool: {kind: noop}\n"
        '    loop: {in: "{{ workload.a }}", iterator: x, spec: {max_in_flight: "{{ workload.n }}"}}\n',
        "python",
        11,
        "step 'two': loop.spec.max_in_flight gives no number: {{ workload.n }}",
    ),
    "steps without a tool in a circle": (
        "workload: {}\nworkflow:\n%s  - {step: two, next: {arcs: [{step: three}]}}\n"
        "  - step: three\n    next: {arcs: [{step: two}]}\n",
        "python",
        9,
        "step 'two' leads back to itself without ever running a tool",
    ),
    "template of a tool": (
        "workload: {a: b}\nworkflow:\n%s  - step: two\n    tool:\n      kind: shell\n"
        '      command: "echo {{ workload.a.upper() }}"\n',
        "rust",
        12,
        "Template render error: unknown method in echo {{ workload.a.upper() }}",
    ),
    "condition of an arc": (
        "workload: {a: b}\nworkflow:\n%s  - step: two\n    tool: {kind: noop}\n    next:\n      arcs:\n"
        "        - {step: start, when: workload.a.upper() == 'B'}\n",
        "rust",
        13,
        "Template render error: unknown method in {{ workload.a.upper() == 'B' }}",
    ),
}
AT_ONCE = {
    "first step without a tool": (
        "workflow:\n  - step: start\n    next: {arcs: [{step: two}]}\n  - {step: two, tool: {kind: noop}}\n",
        "rust",
        5,
        "the Rust plane refuses the playbook: workflow[0]: missing field `tool`",
    ),
    "arc to no step": (
        "workflow:\n  - step: start\n    tool: {kind: noop}\n    next:\n      arcs:\n        - step: end\n",
        "rust",
        9,
        "the Rust plane refuses the playbook: Step 'start' references unknown step 'end' in next.arcs",
    ),
    "first template": (
        "workload: {a: b}\nworkflow:\n  - step: start\n    tool:\n"
        '      kind: shell\n      command: "{{ workload.a.x() }}"\n',
        "rust",
        9,
        "Template render error: unknown method in {{ workload.a.x() }}",
    ),
    "credential of the keychain": (
        "keychain:\n  - {name: a, kind: static, map: {}}\n  - {name: pg, kind: credential, credential: gone}\n"
        "workflow:\n  - {step: start, tool: {kind: noop}}\n",
        "python rust",
        6,
        "keychain: pg: no credential is named 'gone': give --credential gone=FILE, "
        "or write credentials.yaml beside the playbook",
    ),
}


def of_each_plane(cases: dict[str, tuple[str, str, int, str]]) -> list[object]:
    return [
        pytest.param(text, plane, line, said, id=f"{name}-{plane}")
        for name, (text, planes, line, said) in cases.items()
        for plane in planes.split()
    ]


def run(folder: Path, text: str, plane: str, *flags: str) -> tuple[str, Ended]:
    file = folder / "p.yaml"
    file.write_text(HEAD + text, encoding="utf-8")
    return str(file), typed("dev", str(file), "--anyway", "--dialect", plane, *flags)


@pytest.mark.parametrize(("text", "plane", "line", "said"), of_each_plane(LATER))
def test_step_that_its_plane_gives_up_at_has_file_and_line(
    text: str, plane: str, line: int, said: str, tmp_path: Path
) -> None:
    file, ended = run(tmp_path, text % START, plane)
    assert (ended.code, f"  error: {file}:{line}: {said}" in ended.out.splitlines()) == (1, True), ended.out


@pytest.mark.parametrize(("text", "plane", "line", "said"), of_each_plane(AT_ONCE))
def test_playbook_that_its_plane_refuses_has_file_and_line(
    text: str, plane: str, line: int, said: str, tmp_path: Path
) -> None:
    file, ended = run(tmp_path, text, plane)
    assert (ended.code, ended.err_lines[-1]) == (2, f"noetl-worker dev: {file}:{line}: {said}")


def test_run_that_stands_still_has_the_line_of_the_arcs(tmp_path: Path) -> None:
    text = (
        "workload: {}\nworkflow:\n  - {step: two, tool: {kind: noop}}\n  - step: start\n    tool: {kind: noop}\n"
        '    next: {arcs: [{step: two, when: "{{ false }}"}]}\n'
    )
    file, ended = run(tmp_path, text, "rust")
    assert ended.code == 1, "the real plane would keep it running for ever (recorded: arcs-none-match)"
    assert f"  nothing follows: {file}:9: no arc of step 'start' leads on; " in ended.out
    _, ended = run(tmp_path, text, "rust", "--json")
    assert json.loads(ended.out.splitlines()[-1])["at"] == f"{file}:9"


def one_step(tool: str) -> str:
    return f"workflow:\n  - step: start\n    tool: {tool}\n"


@pytest.mark.parametrize(("path", "plane"), [("./child.yml", "python"), ("../shop/child.yaml", "rust")])
def test_child_named_by_its_file_is_said_to_be_named_by_its_path(path: str, plane: str, tmp_path: Path) -> None:
    file, ended = run(tmp_path, one_step(f"{{kind: playbook, path: {path}}}"), plane)
    said = f"NW204 playbook: '{path}' is a file: write `metadata.path` of the playbook in it"
    assert ended.err_lines == [f"warning: {file}:6:34: {said}"]
    assert (ended.code, f"Failed to start child playbook '{path}': 404" in ended.out) == (1, True)


@pytest.mark.parametrize(
    ("tool", "plane"),
    [
        ("{kind: postgres, query: select 1, auth: shop}", "python"),
        ("[{name: one, kind: http, url: 'http://127.0.0.1:9/', auth: shop}]", "rust"),
    ],
    ids=["tool", "task"],
)
def test_credential_that_is_missing_is_said_to_be_given_by_a_flag(tool: str, plane: str, tmp_path: Path) -> None:
    file, ended = run(tmp_path, one_step(tool), plane)
    hint = "  to give this run a credential: --credential NAME=FILE, or credentials.yaml beside the playbook"
    assert (ended.code, ended.out.splitlines()[-1]) == (1, hint)
    assert f"    at {file}:5; " in ended.out
