"""Lines of a playbook's file: of its steps, and of the code in them."""

from __future__ import annotations

from noetl_worker.authoring.dev.places import places_in

FILE = """\
workflow:
  - step: block
    tool:
      kind: python
      code: |
        first()
  - tool: {kind: python, code: "inline()"}
    step: inline
  - step: folded
    tool: {kind: python, code: "a
      b"}
  - step: tasks
    tool:
      - one: {kind: noop}
      - two:
          kind: python
          code: |

            second_line()
      - name: three
        kind: python
        code: third()
      - kind: python
        code: fourth()
"""
RAISED = 'File "<python step>", line 2, in f'


def test_step_is_at_the_line_of_its_name() -> None:
    places = places_in(FILE, "p.yaml")
    assert [places.step_place(step) for step in ("block", "inline", "none")] == ["p.yaml:2", "p.yaml:8", ""]


def test_line_of_code_is_told_as_a_line_of_the_file() -> None:
    places = places_in(FILE, "p.yaml")
    assert places.in_file(RAISED, "block") == 'File "p.yaml", line 7, in f'
    assert places.in_file(RAISED.replace("2", "1"), "inline") == 'File "p.yaml", line 7, in f'
    assert places.in_file("bad (<python step>, line 1)", "block") == "bad (p.yaml, line 6)"


def test_code_whose_lines_are_not_those_of_the_file_keeps_its_own() -> None:
    assert places_in(FILE, "p.yaml").in_file(RAISED, "folded") == RAISED


def test_code_of_a_list_is_found_by_its_task() -> None:
    places = places_in(FILE, "p.yaml")
    found = {task: places.in_file(RAISED, "tasks", task) for task in ("two", "three", "task_3", "one", "")}
    assert found == {
        "two": 'File "p.yaml", line 19, in f',
        "three": 'File "p.yaml", line 23, in f',
        "task_3": 'File "p.yaml", line 25, in f',
        "one": RAISED,
        "": RAISED,
    }


def test_code_in_the_place_of_what_is_merged_has_its_own_line() -> None:
    text = """workflow:
  - step: one
    tool: &one
      kind: python
      code: first()
  - step: two
    tool:
      <<: *one
      code: second()
"""
    assert places_in(text, "p.yaml").in_file("bad (<python step>, line 1)", "two") == "bad (p.yaml, line 9)"
