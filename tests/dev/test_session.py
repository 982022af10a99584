"""`noetl-worker dev` without its command line: exit codes, what is shown, the examples."""

from __future__ import annotations

import io
import json
from functools import partial
from pathlib import Path
from typing import Any

import httpx
import pytest

from dev.shown_session import interrupted_session, session
from noetl_worker.cli.dev import reporting
from noetl_worker.cli.local_worker import local_worker
from noetl_worker.pipeline.outbox.dev_token import token_file
from patience import until

EXAMPLES = Path(__file__).parents[2] / "examples"


async def run_file(path: Path, **given: Any) -> tuple[int, str]:
    """(exit code, what was written)."""
    shown = io.StringIO()
    return await session(path, shown, **given), shown.getvalue()


def written(folder: Path, text: str, name: str = "p.yaml") -> Path:
    path = folder / name
    path.write_text(text, encoding="utf-8")
    return path


def one_step(tool: str) -> str:
    return f"metadata: {{name: p, path: p}}\nworkflow:\n  - step: start\n    tool: {tool}\n"


async def test_failed_playbook_gives_one_and_names_step_and_error(tmp_path: Path) -> None:
    code, shown = await run_file(written(tmp_path, one_step("{kind: python, code: \"raise ValueError('planned')\"}")))
    assert code == 1
    assert "failed   start" in shown
    assert "FAILED in" in shown
    assert "  failed: start: ValueError: planned" in shown


async def test_worker_is_told_the_kinds_of_a_playbook_before_its_first_command(tmp_path: Path) -> None:
    told: list[Any] = []

    def worker(*given: Any, kinds: Any) -> Any:
        told.append(kinds)
        return local_worker(*given, kinds=kinds)

    text = one_step("[{one: {kind: noop}}, {two: {kind: python, code: result = 1}}]")
    code, _ = await run_file(written(tmp_path, text), worker_factory=worker)
    assert (code, told) == (0, [{"noop", "python"}])


async def test_overrides_reach_the_workload_at_any_depth(tmp_path: Path) -> None:
    text = one_step("{kind: python, input: {w: '{{ workload.a.b }}', x: '{{ x }}'}, code: 'result = [w, x]'}")
    path = written(tmp_path, text + "workload: {a: {b: 1}, x: 0}\n")
    code, shown = await run_file(path, overrides={"workload.a.b": 7, "x": "y"}, as_json=True)
    assert code == 0
    assert json.loads(shown.splitlines()[-1])["result"] == [7, "y"]


async def test_server_url_is_there_by_default_and_can_be_set(tmp_path: Path) -> None:
    path = written(
        tmp_path, one_step("{kind: python, input: {u: '{{ workload.server_url }}'}, code: 'result = {\"u\": u}'}")
    )
    _, shown = await run_file(path, as_json=True)
    begin, *_, summary = (json.loads(line) for line in shown.splitlines())
    assert summary["result"] == {"u": begin["control_plane"]}
    _, shown = await run_file(path, as_json=True, overrides={"workload.server_url": "http://x"})
    assert json.loads(shown.splitlines()[-1])["result"] == {"u": "http://x"}


async def test_json_lines_tell_the_whole_story() -> None:
    code, shown = await run_file(EXAMPLES / "branch.yaml", as_json=True)
    lines = [json.loads(line) for line in shown.splitlines()]
    assert code == 0
    assert [line["event"] for line in lines] == ["begin", "started", "done", "started", "output", "done", "summary"]
    assert [line["step"] for line in lines[1:-1]] == ["start", "start", "high", "high", "high"]
    assert lines[2]["result"] == {"score": 70}
    assert lines[2]["duration_ms"] >= 0
    summary = lines[-1]
    assert (summary["status"], summary["error"]) == ("COMPLETED", None)
    assert [(step["step"], step["tool"], step["state"], step["commands"]) for step in summary["steps"]] == [
        ("start", "python", "done", 1),
        ("high", "shell", "done", 1),
    ]


async def test_plain_lines_name_step_time_and_result() -> None:
    _, shown = await run_file(EXAMPLES / "hello.yaml")
    begin, started, done, ended, result = shown.splitlines()
    assert begin.startswith("examples/hello: execution ")
    assert started.split()[1:] == ["started", "start", "python"]
    assert done.split()[1:3] == ["done", "start"]
    assert done.endswith('{"greeting":"hello world"}')
    assert ended.startswith("COMPLETED in ")
    assert ended.endswith(": 1 step, 1 command")
    assert result == '  result: {"greeting":"hello world"}'


async def test_child_steps_are_shown_under_their_playbook() -> None:
    _, shown = await run_file(EXAMPLES / "parent.yaml")
    assert "examples/child: start" in shown
    assert ": 2 steps, 2 commands" in shown


async def test_entry_beside_the_playbook_that_cannot_be_read_is_no_neighbour(tmp_path: Path) -> None:
    """As the lock of Emacs, a link to nowhere."""
    (tmp_path / ".#p.yaml").symlink_to("user@host.123:1")
    (tmp_path / "old.yaml").mkdir()
    code, _ = await run_file(written(tmp_path, one_step("{kind: noop}")))
    assert code == 0


async def test_worker_that_cannot_start_ends_the_session(tmp_path: Path) -> None:
    def broken(*given: object, **named: object) -> Any:
        raise RuntimeError("no worker today")

    path = written(tmp_path, one_step("{kind: noop}"))
    with pytest.raises(RuntimeError, match="no worker today"):
        await run_file(path, worker_factory=broken)


def is_told(shown: io.StringIO, *texts: str) -> bool:
    """One after the other."""
    rest = shown.getvalue()
    for text in texts:
        _, found, rest = rest.partition(text)
        if not found:
            return False
    return True


async def test_kept_session_shows_the_end_of_each_further_run(tmp_path: Path) -> None:
    """Of runs that are started by POST /api/execute; what a run starts itself has no end of its own."""
    path = written(tmp_path, one_step("{kind: noop}"))
    written(tmp_path, one_step("{kind: shell, command: sleep 60}").replace("p, path: p", "slow, path: slow"), "s.yaml")
    written(tmp_path, one_step("{kind: shell, command: exit 3}").replace("p, path: p", "bad, path: bad"), "bad.yaml")
    shown = io.StringIO()
    async with interrupted_session(path, shown, keep=True), httpx.AsyncClient(trust_env=False, verify=False) as client:
        await until(lambda: "Ctrl-C" in shown.getvalue(), "the end of the run")
        url = shown.getvalue().partition("control plane ")[2].partition(",")[0]
        client.headers["Authorization"] = f"Bearer {token_file(url).read_text()}"
        for name, word in (("bad", "FAILED in "), ("p", "COMPLETED in ")):
            answer = await client.post(f"{url}/api/execute", json={"path": name})
            begin = f"{name}: execution {answer.json()['execution_id']} (control_plane {url})\n"
            await until(partial(is_told, shown, begin, word), "the end")
        await client.post(f"{url}/api/execute", json={"path": "slow"})
        await until(partial(is_told, shown, "slow: execution ", "started  slow: start"), "the start")
    assert is_told(shown, "INTERRUPTED in ", "interrupted: slow: start (shell, command ")
    assert "  failed: start: " in shown.getvalue()
    assert shown.getvalue().count("COMPLETED in ") == 2


async def test_interrupted_run_says_what_was_interrupted_and_gets_its_page(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    page = tmp_path / "run.html"
    shown = io.StringIO()
    path = written(tmp_path, one_step("{kind: shell, command: 'echo up; sleep 60'}"))
    async with interrupted_session(path, shown, on_end=reporting(page)):
        await until(lambda: "start | up" in shown.getvalue(), "output")
    *_, ended, last = shown.getvalue().splitlines()
    assert ended.startswith("INTERRUPTED in ")
    assert last.startswith("interrupted: start (shell, command ")
    assert "echo up; sleep 60" in page.read_text()
    assert f"{page}: p RUNNING, 1 command, " in capfd.readouterr().err


async def test_secret_in_a_file_is_read_anew_by_each_run_and_by_its_page(tmp_path: Path) -> None:
    secret, page = tmp_path / "secret", tmp_path / "run.html"
    worker = partial(local_worker, machine={"NOETL_SECRET_ABC_FILE": str(secret)})
    tool = "{kind: secrets, provider: env, secret_name: NOETL_SECRET_ABC}"
    path = written(tmp_path, one_step(tool))
    for content in ("s3cret-one", "s3cret-two"):
        secret.write_text(content)
        page.unlink(missing_ok=True)
        code, _ = await run_file(path, on_end=reporting(page), worker_factory=worker)
        assert code == 0
        assert page.exists()
