"""`noetl-worker test`: tests beside a playbook, with stand-ins for steps, and what is said of those that fail."""

from __future__ import annotations

import signal
from pathlib import Path
from typing import Any
from xml.etree import ElementTree as ET

import pytest

from integration.processes import WorkerProcess, typed
from noetl_worker.authoring.dev.orchestration.router import Router
from noetl_worker.models import Dialect
from patience import until

EXAMPLES = Path(__file__).parents[2] / "examples" / "cases"
PLAYBOOK = """\
metadata: {name: p, path: p}
workload: {names: [ada, bob], limit: 3}
workflow:
  - step: start
    tool: {kind: http, url: "http://nowhere.invalid/"}
    next: {arcs: [{step: each}]}
  - step: each
    loop: {in: "{{ workload.names }}", iterator: who}
    tool: {kind: http, url: "http://nowhere.invalid/{{ who }}"}
    next: {arcs: [{step: last}]}
  - step: last
    tool: {kind: python, input: {n: "{{ start.n }}"}, code: "print('n is', n); result = {'n': n, 'list': [1, 2, 3]}"}
"""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "p.yaml").write_text(PLAYBOOK)
    return tmp_path


def written(folder: Path, cases: str) -> Path:
    file = folder / "p.test.yaml"
    file.write_text(cases)
    return file


def test_example_passes(dialect: Dialect) -> None:
    done = typed("test", str(EXAMPLES), "--dialect", dialect.value)
    assert (done.code, done.out.splitlines()[-1]) == (0, "3 tests: 3 passed, 0 failed"), done.out


def test_no_tests_file_is_looked_at_as_a_playbook() -> None:
    assert typed("check", str(EXAMPLES)).code == 0


def test_steps_of_a_test_see_what_stands_in_for_others(folder: Path, dialect: Dialect) -> None:
    """Of a loop each item; what a stand-in gives may have templates."""
    written(
        folder,
        """\
cases:
  - name: all of it
    workload: {names: [eve, mal, joe]}
    stand_ins:
      start: {result: {n: 7}}
      each: {result: {hello: "{{ who }}"}}
    expect:
      steps: [start, each, last]
      results:
        each: [{hello: eve}, {hello: mal}, {hello: joe}]
        last: {n: 7}
      result: {list: [1, 2, 3]}
""",
    )
    done = typed("test", str(folder / "p.yaml"), "--dialect", dialect.value)
    assert done.code == 0, done.out


def test_text_of_a_stand_in_is_text_whatever_it_looks_like(folder: Path, dialect: Dialect) -> None:
    given = "{n: '007', list: ['', 'true']}"
    cases = f"cases:\n- {{stand_ins: {{start: {{result: {given}}}, each: {{error: '7'}}}}, expect: {{outcome: OUTCOME,"
    cases += f" results: {{start: {given}}}, error: '7'}}}}\n"
    written(folder, cases.replace("OUTCOME", "failed" if dialect is Dialect.PYTHON else "completed"))
    done = typed("test", str(folder), "--dialect", dialect.value)
    assert done.code == 0, done.out


ONE_AND_TWO = """\
cases:
  - {name: one, workload: {names: [eve]}, stand_ins: &all {start: {result: {n: 7}}, each: {result: {}}}, expect: {}}
  - {name: two, workload: {names: [eve]}, stand_ins: *all, expect: {}}
"""
FAILING = """\
cases:
  - name: values
    workload: {names: [eve]}
    stand_ins: &both
      start: {result: {n: 7}}
      each: {result: {}}
    expect:
      steps: [start, last]
      results:
        last:
          n: true
          list: [1, 3]
          lst: []
  - name: it fails
    stand_ins:
      start: {error: "no \\a route"}
      each: {result: {}}
      last: {result: 0}
    expect:
      outcome: completed
      error: other
  - name: it passes
    stand_ins: {start: {error: no route}, each: {result: {}}, last: {result: 0}}
    expect: {outcome: failed, error: route}
"""


def test_one_that_the_plane_cannot_begin_has_failed_and_the_next_one_runs(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    begin = Router.begin

    def broken_once(*given: Any) -> Any:
        monkeypatch.setattr(Router, "begin", begin)
        raise RuntimeError("out of order")

    file, report = written(folder, ONE_AND_TWO), folder / "report.xml"
    monkeypatch.setattr(Router, "begin", broken_once)
    done = typed("test", str(file), "--junit", str(report))
    assert (done.code, done.out.splitlines()[-1]) == (1, "2 tests: 1 passed, 1 failed")
    assert "out of order" in done.out
    assert [len(case) for case in ET.parse(report).iter("testcase")] == [1, 0]


def test_what_differs_is_told_at_its_line_and_in_junit(folder: Path) -> None:
    file, report = written(folder, FAILING), folder / "report.xml"
    done = typed("test", str(file), "--junit", str(report))
    assert done.code == 1
    told = [" ".join(line.split()) for line in done.out.splitlines()]
    assert told[0].startswith(f"FAIL {file}:2: values (")
    assert told[1:-2] == [
        *(f"{file}:8: steps", "[", '"start"', '+ "each"', '"last"', "]"),
        *(f"{file}:11: results.last.n", "- true", "+ 7"),
        *(f"{file}:12: results.last.list", "[", "1", "+ 2", "3", "]"),
        *(f"{file}:13: results.last.lst", "the key is missing; did you mean 'list'?; the result has n, list"),
        "last | n is 7",
        told[19],
        *(f"{file}:20: outcome", '- "completed"', '+ "failed"'),
        *(f"{file}:21: error", "- other", r"+ no \x07 route"),
        r"start failed: no \x07 route",
    ]
    assert told[-2].startswith(f"ok {file}:22: it passes (")
    assert told[-1] == "3 tests: 1 passed, 2 failed"
    suite = ET.parse(report).getroot()[0]
    assert {name: suite.get(name) for name in ("name", "tests", "failures")} == {
        "name": str(file),
        "tests": "3",
        "failures": "2",
    }
    first, second, third = suite
    assert (first.get("classname"), first.get("name"), first.get("line")) == ("p", "values", "2")
    assert first[0].get("message") == f"{file}:8: steps"
    assert "no \N{REPLACEMENT CHARACTER} route" in str(second[0].text)
    assert len(third) == 0


def test_secret_that_is_expected_is_compared_as_redacted_and_never_shown(folder: Path) -> None:
    """A step may be named like one."""
    (folder / "p.yaml").write_text(
        "metadata: {name: p, path: p}\nworkflow:\n"
        "- {step: start, tool: {kind: noop}, next: {arcs: [{step: token}]}}\n"
        "- step: token\n  tool: {kind: python, code: \"result = {'password': 'hush-4711', 'n': 1}\"}\n"
    )
    report = folder / "report.xml"
    file = written(
        folder,
        "cases:\n- expect: {results: {token: {password: hush-4711, n: 1}}, result: {password: '[REDACTED]'}}\n"
        "- expect: {results: {token: {password: hush-4711, n: 2}}, error: 'password=hush-4711'}\n"
        "- expect: {results: {token: hush}}\n",
    )
    done = typed("test", str(file), "--junit", str(report))
    told = [line.split(" (")[0].strip() for line in done.out.splitlines()]
    assert told[:3] == [f"ok   {file}:2: test 1", f"FAIL {file}:3: test 2", f"{file}:3: results.token.n"]
    assert '- "hush"' in told
    assert "hush-4711" not in done.out + report.read_text()


def test_one_that_takes_too_long_is_ended_and_the_next_one_runs(folder: Path) -> None:
    (folder / "p.yaml").write_text(
        'metadata: {name: p, path: p}\nworkflow: [{step: start, tool: {kind: shell, command: "sleep 60"}}]\n'
    )
    file = written(
        folder,
        "cases:\n- {name: long, expect: {}}\n"
        "- {name: short, stand_ins: {start: {result: 1}}, expect: {steps: [start], results: {start: 1}}}\n",
    )
    done = typed("test", str(file), "--timeout", "2")
    assert done.code == 1
    assert f"{file}:2: outcome\n         no end within 2 s (allow more with --timeout); running: 'start'" in done.out
    assert "ok  " in done.out


async def test_interrupted_says_in_which_test_and_tells_of_those_that_ended(folder: Path) -> None:
    """By either signal, two runs at once: each lets what runs end for three seconds."""
    (folder / "p.yaml").write_text(
        "metadata: {name: p, path: p}\n"
        f'workflow: [{{step: start, tool: {{kind: shell, command: "touch {folder}/$$.began; sleep 60"}}}}]\n'
    )
    file = written(
        folder,
        "cases:\n- {name: short, stand_ins: {start: {result: 1}}, expect: {}}\n"
        "- {name: long, expect: {}}\n- {name: after, expect: {}}\n",
    )
    codes = {signal.SIGINT: 130, signal.SIGTERM: 143}
    reports = {number: folder / f"{number}.xml" for number in codes}
    runs = {
        number: WorkerProcess(folder, str(number), {}, ["test", str(file), "--junit", str(report)])
        for number, report in reports.items()
    }
    await until(lambda: len(list(folder.glob("*.began"))) == len(runs), "the second test of each")
    for number, running in runs.items():
        running.signal(number)
    for number, running in runs.items():
        assert await running.exit_code() == codes[number]
        assert running.text.splitlines()[-2:] == [
            f"interrupted: {file}:3: long; 1 did not begin",
            "1 test: 1 passed, 0 failed",
        ]
        assert [case.get("name") for case in ET.parse(reports[number]).getroot()[0]] == ["short"]


@pytest.mark.parametrize(
    ("cases", "said"),
    [
        ("cases: []", ":1: write `cases` as a list of at least one test"),
        ("case:\n- name: x", ":1: a file of tests: 'case' is unknown; did you mean 'cases'?"),
        ("cases:\n- nme: x", ":2: a test: 'nme' is unknown; did you mean 'name'?"),
        ("cases:\n- name: x", ":2: a test needs `expect`, for example {outcome: completed}"),
        ("cases:\n- stand_ins: {strt: {}}\n  expect: {}", ":2: stand_ins: 'strt' is unknown; did you mean 'start'?"),
        ("cases:\n- stand_ins: {start: 5}\n  expect: {}", ":2: write a stand-in as an object with result, error"),
        ("cases:\n- stand_ins: {start: {error: no}}\n  expect: {}", ", and YAML reads this as false: put it in quotes"),
        ("cases:\n- workload:\n    limt: 5\n  expect: {}", "workload has no 'limt'; did you mean 'limit'?"),
        ("cases:\n- expect:\n    outcome: done", ":3: write as outcome one of completed, failed, cancelled, running"),
        ("cases:\n- expect:\n    steps: [start, lst]", ":3: no step is named 'lst'; did you mean 'last'?"),
        ("cases:\n- expect:\n    results:\n      lst: 1", ":4: results: 'lst' is unknown; did you mean 'last'?"),
        (
            "cases:\n- expect:\n    results: {start: {n: 1}}\n    results: {last: {n: 1}}",
            ":4: key 'results' is in line 3 too: remove one of them",
        ),
        ("cases: [", ": not YAML at line"),
        ("playbook: q.yaml\ncases:\n- expect: {}", "q.yaml: No such file"),
    ],
)
def test_wrong_file_is_refused_in_one_line_before_anything_runs(folder: Path, cases: str, said: str) -> None:
    done = typed("test", str(written(folder, cases)))
    assert (done.code, done.out) == (2, "")
    assert said in done.err
    assert len(done.err.splitlines()) == 1


def test_playbook_that_cannot_be_run_is_refused_with_its_line(folder: Path) -> None:
    """A mistake in a field of a tool is none: the tool may be replaced, or its failure expected."""
    wrong = PLAYBOOK.replace("{step: last}", "{step: lst}").replace("kind: python", "kind: pyhton")
    (folder / "p.yaml").write_text(wrong.replace("url: ", "urll: "))
    done = typed("test", str(written(folder, "cases:\n- expect: {}")), "--dialect", "rust")
    assert (done.code, done.out) == (2, "")
    said = [line.partition(f"{folder}/")[2].split("; ")[0] for line in done.err_lines]
    assert said == [
        "p.yaml:10:26: NW402 step 'each' leads to 'lst', which is no step",
        "p.yaml:12:18: NW201 no tool is named 'pyhton'",
    ]


def test_date_without_quotes_is_text_in_a_test(folder: Path) -> None:
    result = "{n: 2024-01-02, list: [1, 2, 3]}"
    stand_ins = "{start: {result: {n: 2024-01-02}}, each: {result: 1}}"
    written(folder, f"cases:\n- stand_ins: {stand_ins}\n  expect: {{results: {{last: {result}}}}}\n")
    done = typed("test", str(folder))
    assert (done.code, done.err) == (0, ""), done.out


def test_every_wrong_file_is_named(folder: Path) -> None:
    written(folder, "cases: []")
    (folder / "q.test.yaml").write_text("cases:\n- nme: x")
    (folder / "p2.test.yaml").write_text("playbook: p.yaml\ncases:\n- expect: {}")
    done = typed("test", str(folder))
    assert (done.code, done.out) == (2, "")
    assert done.err_lines == [
        f"noetl-worker test: {folder}/p.test.yaml:1: write `cases` as a list of at least one test",
        f"noetl-worker test: {folder}/q.test.yaml: no q.yaml is beside this file: name the playbook in `playbook`",
    ]


def test_file_of_another_encoding_is_named_with_its_line(folder: Path) -> None:
    """The tests, or their playbook."""
    cases = written(folder, "cases:\n- {name: x, expect: {}}\n")
    (folder / "p.yaml").write_bytes(PLAYBOOK.encode() + b"# caf\xe9\n")
    line = PLAYBOOK.count("\n") + 1
    said = f"noetl-worker test: {cases}:2: {folder}/p.yaml:{line}: not UTF-8\n"
    assert typed("test", str(cases)).err == said
    cases.write_bytes(b"cases:\n- {name: caf\xe9, expect: {}}\n")
    assert typed("test", str(cases)).err == f"noetl-worker test: {cases}: not YAML at line 2, column 13: not UTF-8\n"


def test_folder_that_is_called_like_a_file_of_tests_is_looked_into(folder: Path) -> None:
    written(folder, "cases:\n- {expect: {}, stand_ins: {start: {result: {n: 1}}, each: {result: 1}}}")
    (folder / "old.test.yaml").mkdir()
    assert typed("test", str(folder)).code == 0


def test_paths_without_a_test_are_refused(folder: Path) -> None:
    for name in ("nope", "nope.yaml", "nope.test.yaml"):
        done = typed("test", str(folder / name))
        assert (done.code, done.err) == (2, f"noetl-worker test: {folder}/{name}: No such file or directory\n")
    assert "write them in p.test.yaml" in typed("test", str(folder / "p.yaml")).err
    assert "write tests of name.yaml in name.test.yaml" in typed("test", str(folder)).err
    written(folder, "cases:\n- {name: x, expect: {}}")
    done = typed("test", str(folder), "--case", "other")
    assert (done.code, done.err) == (
        2,
        "noetl-worker test: no test has 'other' in its name: give a part of a test's `name`\n",
    )
