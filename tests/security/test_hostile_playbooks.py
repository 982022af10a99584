"""A playbook that is only looked at takes the time or the tool of who looks at it."""

from __future__ import annotations

import os
import time
from pathlib import Path

import pytest

from holds import HOLDS_TIMES
from integration.processes import typed
from lint.head import HEAD
from noetl_worker.authoring.lint.inspector import inspect_text
from noetl_worker.tools.registry import Registry

MOST_CPU_S = 5.0
ARCS, DEEPEST = (150, 100_000) if HOLDS_TIMES else (50, 20_000)


def cpu_s() -> float:
    return time.process_time()


@pytest.mark.parametrize("kind", ["pipe", "link to a device", "sparse"])
@pytest.mark.parametrize("in_folder", [False, True], ids=["named", "in a folder"])
def test_file_without_an_end_is_refused(kind: str, in_folder: bool, tmp_path: Path) -> None:
    """A FIFO, a link to /dev/zero, or a file of 100 GB is called like a playbook."""
    file = tmp_path / "p.yaml"
    if kind == "pipe":
        os.mkfifo(file)
    elif kind == "sparse":
        with file.open("wb") as large:
            large.truncate(100 * 10**9)
    else:
        file.symlink_to("/dev/zero")
    ended = typed("check", str(tmp_path if in_folder else file))
    assert ended.code == 2
    assert str(file) in ended.err
    assert ("not a regular file" in ended.err) is (kind != "sparse")


FORMS = {
    "not": lambda depth: "not " * depth + "true",
    "minus": lambda depth: "-" * depth + "1",
    "brackets": lambda depth: "(" * depth + "1" + ")" * depth,
    "plus": lambda depth: "a" + "+a" * depth,
    "filters": lambda depth: "a" + "|upper" * depth,
}


@pytest.mark.parametrize("depth", [400, 900, DEEPEST])
@pytest.mark.parametrize("form", FORMS)
def test_nested_expression_is_a_finding(form: str, depth: int) -> None:
    """`not ` stands 20,000 times in a template, a condition, or Python code, and other expressions so deep.

    In `make faults` it is 100,000 times.
    """
    text = FORMS[form](depth)
    code = text.replace("true", "True").replace("|upper", "[0]")
    playbook = (
        "workload: {a: 1}\nworkflow:\n  - step: start\n"
        f"    tool: {{kind: noop, result: '{{{{ {text} }}}}'}}\n"
        f"    next: {{arcs: [{{step: last, when: '{text}'}}]}}\n"
        f"  - step: last\n    tool: {{kind: python, code: 'result = {code}'}}\n"
    )
    began = cpu_s()
    found = inspect_text(playbook, "p.yaml", Registry())
    assert cpu_s() - began < MOST_CPU_S or not HOLDS_TIMES
    assert any("too deeply nested" in mistake.message for mistake in found)


def test_valid_playbook_of_many_arcs_is_read_in_seconds() -> None:
    """(no attack) 50 steps with 50 arcs each, 150 in `make faults`, and no condition twice."""
    lines = [f"{HEAD}workload: {{a: 1}}", "workflow:"]
    names = ["start", *(f"s{number}" for number in range(ARCS - 1))]
    for row, name in enumerate(names):
        lines.append(f"  - step: {name}\n    tool: {{kind: noop}}\n    next:\n      arcs:")
        for number, target in enumerate(names[1:]):
            lines.append(f"      - {{step: {target}, when: '{{{{ workload.a == {row * ARCS + number} }}}}'}}")
    text = "\n".join(lines)
    began = cpu_s()
    found = inspect_text(text, "p.yaml", Registry())
    assert cpu_s() - began < MOST_CPU_S or not HOLDS_TIMES
    assert [mistake.message for mistake in found if mistake.severity == "error"] == []
