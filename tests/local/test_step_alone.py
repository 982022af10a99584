"""`dev --step NAME`: one step, with given names or with those of an earlier run."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from integration.processes import Ended, typed
from noetl_worker.models import Dialect, JsonValue

PLAYBOOK = """\
apiVersion: noetl.io/v2
kind: Playbook
metadata: {name: p, path: p}
workload: {divisors: [1, 2, 0], scale: 10, password: long-Enough-71-secret}
workflow:
  - step: start
    tool: {kind: noop, result: {a: 7, rows: [1, 2]}}
    next: {arcs: [{step: each}]}
  - step: each
    loop: {in: "{{ workload.divisors }}", iterator: n}
    tool:
      kind: python
      input: {n: "{{ n }}", a: "{{ start.a }}", s: "{{ workload.scale }}"}
      code: "result = {'v': a * s / n}"
    next: {arcs: [{step: last}]}
  - step: last
    tool:
      kind: python
      input: {rows: "{{ start.rows }}", p: "{{ workload.password }}"}
      code: "result = {'v': sum(rows), 'is': len(p)}"
"""


@pytest.fixture(autouse=True)
def playbook(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    path = tmp_path / "p.yaml"
    path.write_text(PLAYBOOK, encoding="utf-8")
    return path


def dev(playbook: Path, *flags: str) -> list[dict[str, Any]]:
    done = typed("dev", str(playbook), "--json", *flags)
    return [json.loads(line) for line in done.out.splitlines()]


def results(lines: list[dict[str, Any]]) -> list[tuple[str, Any]]:
    return [(line["step"], line["result"]["v"]) for line in lines if line["event"] == "done"]


def refused(playbook: Path, *flags: str) -> Ended:
    ended = typed("dev", str(playbook), *flags)
    assert (ended.code, ended.out) == (2, "")
    return ended


def whole_run(playbook: Path, dialect: Dialect = Dialect.PYTHON) -> str:
    playbook.write_text(playbook.read_text().replace("2, 0]", "2]"))
    lines = dev(playbook, "--dialect", dialect.value)
    assert lines[-1]["status"] == "COMPLETED"
    return str(lines[0]["execution_id"])


def test_step_runs_alone_with_what_it_saw_in_an_earlier_run(playbook: Path, dialect: Dialect) -> None:
    """A loop as a whole, or one item of it, which keeps its place: templates see it, and so do its lines. `last` is
    the newest run in which the step ran."""
    place, seen = {
        Dialect.PYTHON: ("{{ iter._index }} {{ iter._first }} {{ iter._last }}", "1 False True"),
        Dialect.RUST: ("{{ _index }} of {{ _total }}", "1 of 2"),
    }[dialect]
    text = playbook.read_text().replace('n: "{{ n }}", ', f'n: "{{{{ n }}}}", at: "{place}", ')
    playbook.write_text(text.replace("{'v': a * s", "{'at': at, 'v': a * s"))
    run = whole_run(playbook, dialect)
    playbook.write_text(playbook.read_text().replace("sum(rows)", "max(rows)"))
    lines = dev(playbook, "--step", "each[1]", "--run", run, "--dialect", dialect.value)
    [done] = [line for line in lines if line["event"] == "done"]
    assert (done["loop_index"], done["result"]["v"], done["result"]["at"]) == (1, 35, seen)
    assert lines[-1]["status"] == "COMPLETED"
    only = refused(playbook, "--step", "each[7]", "--run", str(lines[0]["execution_id"]), "--dialect", dialect.value)
    assert "the run has no item 7 of step each, only item 1;" in only.err
    whole = dev(playbook, "--step", "each", "--run", run, "--dialect", dialect.value)
    assert results(whole) == [("each", 70), ("each", 35)]
    assert results(dev(playbook, "--step", "last", "--run", "last", "--dialect", dialect.value)) == [("last", 2)]


@pytest.mark.parametrize(
    ("step", "name", "text", "value"),
    [
        pytest.param("last", "in.json", '{"start": {"rows": [5, 6]}}', 11, id="the result of another step"),
        pytest.param("last", "in.yaml", "rows: [7, 8]", 15, id="an input of the step"),
        pytest.param("each", "in.yaml", "{start: {a: 3}, n: 5, workload: {scale: 100}}", 60, id="an item of the loop"),
    ],
)
def test_step_is_given_what_a_file_names(
    playbook: Path, tmp_path: Path, step: str, name: str, text: str, value: int
) -> None:
    given = tmp_path / name
    given.write_text(text)
    assert results(dev(playbook, "--step", step, "--with", str(given))) == [(step, value)]


def test_inputs_of_a_list_of_tasks_are_replaced_too(playbook: Path, tmp_path: Path, dialect: Dialect) -> None:
    task = "kind: python, input: {rows: '{{ start.rows }}'}, code: 'result = {\"v\": sum(rows)}'"
    tasks = f"[{{name: a, {task}}}, {{name: b, {task}}}]"
    playbook.write_text(playbook.read_text() + f"  - step: tasks\n    tool: {tasks}\n")
    (tmp_path / "in.json").write_text(json.dumps({"rows": [7, 8]}))
    lines = dev(playbook, "--step", "tasks", "--with", str(tmp_path / "in.json"), "--dialect", dialect.value)
    [done] = [line for line in lines if line["event"] == "done"]
    given = done["result"]["results"] if dialect is Dialect.PYTHON else done["result"]
    assert given == {"a": {"v": 15}, "b": {"v": 15}}


@pytest.mark.parametrize(
    ("given", "guess"),
    [({"rwos": [7]}, "'rwos'; did you mean 'rows'?"), ({"workload": {"scal": 1}}, "'scal'; did you mean 'scale'?")],
)
def test_name_that_the_step_has_not_is_refused(playbook: Path, tmp_path: Path, given: JsonValue, guess: str) -> None:
    file = tmp_path / "in.json"
    file.write_text(json.dumps(given))
    said = refused(playbook, "--step", "last", "--with", str(file)).err_lines
    assert said == [f"noetl-worker dev: --with {file}: step last uses no name {guess}"]


def test_set_wins_over_the_earlier_run_and_a_secret_is_todays(playbook: Path) -> None:
    run = whole_run(playbook)
    lines = dev(playbook, "--step", "each[1]", "--run", run, "--set", "workload.scale=100")
    assert results(lines) == [("each", 350)]
    [done] = [line for line in dev(playbook, "--step", "last", "--run", run) if line["event"] == "done"]
    assert done["result"]["is"] == len("long-Enough-71-secret")


def test_step_or_item_that_saw_much_is_given_all_of_it(playbook: Path) -> None:
    """The plane keeps the names of such a command, and its inputs, apart."""
    text = playbook.read_text().replace("rows: [1, 2]", f"rows: {list(range(5000))}")
    playbook.write_text(text.replace("  - step: each\n", '  - step: each\n    input: {many: "{{ start.rows }}"}\n'))
    run = whole_run(playbook)
    assert results(dev(playbook, "--step", "last", "--run", run)) == [("last", sum(range(5000)))]
    [done] = [line for line in dev(playbook, "--step", "each[1]", "--run", run) if line["event"] == "done"]
    assert (done["loop_index"], done["result"]["v"]) == (1, 35)


def test_what_cannot_be_run_alone_says_what_there_is(playbook: Path, tmp_path: Path) -> None:
    run = str(dev(playbook)[0]["execution_id"])  # it fails in `each`
    assert "no such step; did you mean 'last'?" in refused(playbook, "--step", "lst").err
    assert "the run has no step last, only start, each" in refused(playbook, "--step", "last", "--run", run).err
    assert (
        f"no run with this id is stored; the newest runs are {run}"
        in refused(playbook, "--step", "last", "--run", "1").err
    )
    assert "the run used --dialect python" in refused(playbook, "--step", "each", "--run", run, "--dialect", "rust").err
    assert "items are read from a run: give --run ID" in refused(playbook, "--step", "each[1]").err
    assert "name the step with --step" in refused(playbook, "--run", run).err
    assert "the run has no item 7 of step each, only items 0 to 2" in (
        refused(playbook, "--step", "each[7]", "--run", "last").err
    )
    (tmp_path / "in.json").write_text("[1]")
    wrong = refused(playbook, "--step", "last", "--with", str(tmp_path / "in.json"))
    assert "write an object of names" in wrong.err
    for name, form in (("bad.json", "not JSON"), ("bad.yaml", "neither JSON nor YAML")):
        (tmp_path / name).write_text('{"start": {"rows": [1, 2}}')
        [said] = refused(playbook, "--step", "last", "--with", str(tmp_path / name)).err_lines
        assert said.startswith(f"noetl-worker dev: --with {tmp_path / name}: {form} at line 1, column 25: ")


def test_last_names_the_reason_of_the_newest_run_of_this_playbook(playbook: Path, tmp_path: Path) -> None:
    """Runs of others, before and after it, say nothing of it."""
    other = tmp_path / "other.yaml"
    other.write_text("metadata: {name: o, path: o}\nworkflow: [{step: start, tool: {kind: noop}}]\n")
    dev(other)
    older = str(dev(playbook)[0]["execution_id"])
    newer = str(dev(playbook)[0]["execution_id"])
    dev(other)
    said = refused(playbook, "--step", "last", "--run", "last").err_lines
    assert said == [
        "noetl-worker dev: --run last: the run has no step last, only start, each; "
        f"the newest runs are {newer}, {older}"
    ]
    none = refused(playbook, "--step", "last", "--run", "last", "--dialect", "rust").err_lines
    assert none == ["noetl-worker dev: --run last: no run of p with --dialect rust is stored"]


@pytest.mark.parametrize(
    ("contents", "mode", "reason"),
    [
        (b"", 0o644, "has mode 0644, so other users can access it: chmod go-rwx it"),
        (b"not a database" * 100, 0o600, "file is not a database; if it recurs, move the file away"),
    ],
)
def test_stored_runs_that_cannot_be_read_are_one_line(
    playbook: Path, tmp_path: Path, contents: bytes, mode: int, reason: str
) -> None:
    file = tmp_path / "state" / "noetl-worker" / "dev" / "runs.sqlite3"
    file.parent.mkdir(parents=True, mode=0o700)
    file.write_bytes(contents)
    file.chmod(mode)
    [said] = refused(playbook, "--step", "last", "--run", "last").err_lines
    assert said.startswith("noetl-worker dev: --run last: the stored runs cannot be read: ")
    assert str(file) in said
    assert said.endswith(reason)


def test_loop_over_what_is_not_there_says_what_to_give(playbook: Path, dialect: Dialect) -> None:
    name = "{{ start.rows }}"
    playbook.write_text(playbook.read_text().replace("{{ workload.divisors }}", name))
    said = refused(playbook, "--step", "each", "--dialect", dialect.value).err_lines
    line = playbook.read_text().partition(name)[0].count("\n") + 1
    reason = f"--step each: loop.in gave no items ({name}): give --run last or --with FILE"
    assert said == [f"noetl-worker dev: {playbook}:{line}: {reason}"]
