"""What `noetl-worker dev` shows of steps while they run, of failures, and of an interrupted run."""

from __future__ import annotations

import asyncio
import io
import json
from pathlib import Path
from typing import Any

from dev.shown_session import session
from noetl_worker.models import Dialect
from patience import until

BEGIN = "metadata: {name: p, path: p}\nworkflow:\n"


async def shown_of(folder: Path, steps: str, **given: Any) -> str:
    path = folder / "p.yaml"
    path.write_text(BEGIN + steps, encoding="utf-8")
    shown = io.StringIO()
    await session(path, shown, **given)
    return shown.getvalue()


PRINTS = """\
  - step: start
    tool: {kind: shell, command: "echo out; echo more; echo err >&2"}
"""


async def test_output_of_a_step_that_succeeded_is_shown_with_its_step(tmp_path: Path) -> None:
    lines = (await shown_of(tmp_path, PRINTS)).splitlines()
    assert [line for line in lines if " | " in line and "stderr" not in line] == ["start | out", "start | more"]
    assert "start (stderr) | err" in lines


async def test_quiet_run_shows_no_output(tmp_path: Path) -> None:
    shown = await shown_of(tmp_path, PRINTS, is_quiet=True)
    assert " | " not in shown
    assert "COMPLETED" in shown


async def test_output_is_shown_while_the_step_runs(tmp_path: Path) -> None:
    """The step ends only after its output has been seen."""
    (tmp_path / "p.yaml").write_text(
        f"{BEGIN}  - step: start\n    tool: {{kind: shell, command: "
        f"'echo waiting; while [ ! -e {tmp_path}/seen ]; do sleep 0.05; done'}}\n"
    )
    shown = io.StringIO()
    running = asyncio.create_task(session(tmp_path / "p.yaml", shown))
    await until(lambda: "start | waiting\n" in shown.getvalue(), "output")
    (tmp_path / "seen").touch()
    assert await running == 0


async def test_output_cannot_steer_the_terminal(tmp_path: Path) -> None:
    shown = await shown_of(
        tmp_path, "  - step: start\n    tool: {kind: python, code: 'print(chr(27) + \"]0;owned\" + chr(7))'}\n"
    )
    assert r"start | \x1b]0;owned\x07" in shown


async def test_secret_is_not_in_what_is_shown_live(tmp_path: Path) -> None:
    """Also not line by line, where it has several."""
    secret = "first-part-of-the-secret\nsecond-part-of-the-secret"
    (tmp_path / "credentials.yaml").write_text(json.dumps({"db": {"type": "custom", "data": {"password": secret}}}))
    code = "import sys\nfor part in auth['db']['password'].split(chr(10)):\n    print('it is', part, flush=True)\n"
    steps = f"  - step: start\n    tool: {{kind: python, auth: db, code: {json.dumps(code)}}}\n"
    shown = await shown_of(tmp_path, steps)
    assert shown.count("start | it is") == 2
    assert "part-of-the-secret" not in shown


async def test_json_has_output_and_the_ids_of_what_it_is_of(tmp_path: Path) -> None:
    lines = [json.loads(line) for line in (await shown_of(tmp_path, PRINTS, as_json=True)).splitlines()]
    begin, started, *output, done, _ = lines
    assert {(line["stream"], line["text"]) for line in output} == {
        ("stdout", "out"),
        ("stdout", "more"),
        ("stderr", "err"),
    }
    assert {line["command_id"] for line in (started, *output, done)} == {started["command_id"]}
    assert {line["execution_id"] for line in lines[1:]} == {begin["execution_id"]}
    assert started["event_id"] != done["event_id"]


DEEP = """\
  - step: start
    tool:
      kind: python
      code: |
        def down(n):
            if n == 0:
                raise KeyError("deep")
            down(n - 1) if n % 2 else other(n)

        def other(n):
            down(n - 1)

        async def main():
            try:
                down(15)
            except KeyError as error:
                raise ValueError("outer") from error
"""


async def test_failure_shows_the_whole_traceback_with_lines_of_the_file(tmp_path: Path, dialect: Dialect) -> None:
    shown = await shown_of(tmp_path, DEEP, dialect=dialect, is_quiet=True)
    told = shown[shown.index("  failed: start: ValueError: outer") :]
    assert f"at {tmp_path}/p.yaml:3; execution " in told
    assert f'File "{tmp_path}/p.yaml", line 9, in down' in told  # where KeyError was raised
    assert f'File "{tmp_path}/p.yaml", line 19, in main' in told  # where ValueError was
    assert sum(line.endswith(", in other") for line in told.splitlines()) == 7
    assert "noetl_worker" not in told


async def test_timeout_shows_where_the_code_stood_and_no_line_of_the_worker(tmp_path: Path) -> None:
    code, stood = (
        "      code: |\n        import time\n        time.sleep(600)\n",
        f'File "{tmp_path}/p.yaml", line 9 in <module>',
    )
    for timeout_s in (0.5, 5, 50):  # on a busy machine the code may not be there so soon
        step = f"  - step: start\n    tool:\n      kind: python\n      timeout: {timeout_s}\n{code}"
        shown = await shown_of(tmp_path, step)
        assert f"  failed: start: Execution timed out after {timeout_s} seconds" in shown
        if stood in shown:
            break
    assert stood in shown
    assert "noetl_worker" not in shown


async def test_failure_in_a_loop_names_the_item(tmp_path: Path, dialect: Dialect) -> None:
    """On the Rust plane the loop goes on, and a later item does not hide the failure."""
    shown = await shown_of(
        tmp_path,
        "  - step: start\n    loop: {in: '{{ workload.numbers }}', iterator: n, mode: sequential}\n"
        "    tool: {kind: python, input: {n: '{{ iter.n }}'}, code: 'print(n); result = 1 / n'}\n"
        "workload: {numbers: [1, 0, 2]}\n",
        dialect=dialect,
    )
    assert "start[1] | 0" in shown
    assert "  failed: start[1], n = 0: ZeroDivisionError: division by zero" in shown


async def test_each_attempt_of_a_retry_is_shown_with_its_wait(tmp_path: Path) -> None:
    rule = "{when: '{{ outcome.status == \"error\" }}', then: {do: retry, attempts: 3, delay: 0.01}}"
    shown = await shown_of(
        tmp_path,
        "  - step: start\n    tool:\n      - one: {kind: shell, command: exit 3, "
        f"spec: {{policy: {{rules: [{rule}, {{else: {{then: {{do: continue}}}}}}]}}}}}}\n",
    )
    again = [line for line in shown.splitlines() if line.startswith("start (retry) | ")]
    assert again == [
        f"start (retry) | task 'one', attempt {n} of 3: Command exited with code 3; again in 0.01 s" for n in (1, 2)
    ]
