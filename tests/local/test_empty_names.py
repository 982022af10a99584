"""`dev` says what a template asked for and nobody had, and what failed without failing the playbook."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from integration.processes import Ended, typed
from lint.head import HEAD

pytest.importorskip("yaml")

ASKS = (
    HEAD
    + """\
workload: {cities: [{name: Rome}], none: null}
keychain:
  - {name: pg, kind: secret_manager, map: {password: secret}}
  - {name: shop, kind: credential_ref, ref: shop}
workflow:
  - step: start
    tool: {kind: noop}
    next: {arcs: [{step: each}]}
  - step: each
    loop: {in: "{{ workload.cities }}", iterator: city}
    tool: {kind: noop, input: {a: "{{ iter.ctiy }}", b: "{{ iter.city.name }}", c: "{{ workload.none }}"}}
    next: {arcs: [{step: two}]}
  - step: two
    tool:
      kind: noop
      input:
        result: "{{ start.total }}"
        total: "{{ ctx.totl }}"
        later: "{{ last.status }}"
        given: "{{ ctx.no | default(1) }}"
        secret: "{{ keychain.pg.password }}"
        known: "{{ keychain.shop.token }}"
    set: {ctx.written: "{{ two.lost }}"}
    next: {arcs: [{step: tasks}]}
  - step: tasks
    tool:
      - {name: one, kind: noop, input: {own: "{{ ctx.own }}", lost: "{{ ctx.lost }}"}, set: {ctx.own: 1}}
      - {name: two, kind: noop, input: {one: "{{ one.status }}", own: "{{ ctx.own }}"}}
    next: {arcs: [{step: last, when: "{{ ctx.written == 'x' }}"}, {step: other}]}
  - step: other
    tool: {kind: noop}
  - step: last
    tool: {kind: noop}
"""
)
EMPTY = {"iter.ctiy", "start.total", "ctx.totl", "last.status", "keychain.pg.password", "two.lost", "ctx.lost"}
FINE = HEAD + "workflow:\n  - {step: start, tool: {kind: noop}}\n"
PASSED_OVER = HEAD + 'workflow:\n  - {step: start, tool: {kind: shell, command: "exit 3"}}\n'


def run(folder: Path, text: str, *flags: str) -> Ended:
    file = folder / "playbook.yaml"
    file.write_text(text, encoding="utf-8")
    (folder / "credentials.yaml").write_text("shop: {type: bearer, data: {token: kJ8mP2xvL9q}}\n", encoding="utf-8")
    return typed("dev", str(file), *flags)


@pytest.mark.parametrize("dialect", ["python", "rust"])
def test_each_value_that_nobody_had_is_named_once(dialect: str, tmp_path: Path) -> None:
    ended = run(tmp_path, ASKS, "--dialect", dialect, "--json")
    summary = json.loads(ended.out.splitlines()[-1])
    assert (ended.code, summary["status"]) == (0, "COMPLETED")
    names = [one["name"] for one in summary["empty"]]
    assert (set(names), len(names)) == (EMPTY, len(EMPTY))
    assert {one["step"] for one in summary["empty"]} == {"each", "two", "tasks"}


LARGE = (
    HEAD
    + """\
workflow:
  - step: start
    tool: {kind: python, code: "result = {'rows': [{'n': n, 'text': 'x' * 100} for n in range(6_000)]}"}
    next: {arcs: [{step: other, when: "{{ start.rows[0].n == 0 }}"}, {step: single}]}
  - step: other
    tool: {kind: noop}
  - step: single
    tool: {kind: python, input: {rows: "{{ start.rows }}"}, code: "result = {'count': len(rows or [])}"}
    next: {arcs: [{step: again}]}
  - step: again
    tool: {kind: noop, input: {rows: "{{ start.rows }}"}}
    next: {arcs: [{step: tasks}]}
  - step: tasks
    tool:
      - {name: one, kind: python, input: {rows: "{{ start.rows }}"}, code: "result = {'count': len(rows)}"}
"""
)


@pytest.mark.parametrize(
    ("dialect", "places", "reader"),
    [
        ("python", ["start: next.arcs[0].when"], "the tool of a step"),
        ("rust", ["start: next.arcs[0].when", "single: tool.input.rows", "again: tool.input.rows"], "a list of tasks"),
    ],
)
def test_result_that_is_too_large_for_the_context_is_said_where_nobody_fills_it_in(
    dialect: str, places: list[str], reader: str, tmp_path: Path
) -> None:
    """The worker fetches it for what it renders itself: on the Rust plane the tasks of a list alone."""
    ended = run(tmp_path, LARGE, "--dialect", dialect, "--json")
    summary = json.loads(ended.out.splitlines()[-1])
    assert [f"{one['step']}: {one['where']}" for one in summary["empty"]] == places
    why = f"the result of step 'start' is too large for the context; {reader} can read it"
    assert {one["why"] for one in summary["empty"]} == {why}
    assert "6000" in json.dumps(summary["result"])
    assert run(tmp_path, LARGE, "--dialect", dialect, "--strict", "--anyway").code == 1


def test_strict_run_with_nothing_empty_completes(tmp_path: Path) -> None:
    assert run(tmp_path, FINE, "--strict").code == 0


def test_failed_step_that_the_rust_plane_passes_over_is_said(tmp_path: Path) -> None:
    ended = run(tmp_path, PASSED_OVER, "--dialect", "rust")
    assert ended.code == 0
    assert any(line.startswith("COMPLETED, 1 step failed in ") for line in ended.out.splitlines())
    assert run(tmp_path, PASSED_OVER, "--dialect", "rust", "--strict").code == 1


def test_error_of_the_check_stops_a_run_unless_it_is_to_go_on_anyway(tmp_path: Path) -> None:
    text = FINE.replace("tool: {kind: noop}", "tool: {kind: noop}, args: {city: Rome}")
    ended = run(tmp_path, text)
    file = tmp_path / "playbook.yaml"
    assert (ended.code, ended.out) == (2, "")
    assert ended.err_lines[0].startswith(
        f"error: {file}:5:39: NW511 on the Python plane a playbook like this is refused"
    )
    assert run(tmp_path, text, "--anyway").code == 0
