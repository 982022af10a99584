"""`dev --watch`: it runs again when one of its files has changed."""

from __future__ import annotations

import asyncio
import errno
import os
import signal
import sys
from pathlib import Path
from typing import Any

import pytest

from integration.processes import environment
from noetl_worker.authoring.dev.watch import file_stamps, until_changed
from noetl_worker.process.event_loop import until_signal
from patience import until

BEGIN = "apiVersion: noetl.io/v2\nkind: Playbook\nmetadata: {name: p, path: p}\nworkflow:\n"


def shell(command: str) -> str:
    return f"{BEGIN}  - step: start\n    tool: {{kind: shell, command: {command}}}\n"


def test_files_are_those_beside_the_playbook_that_it_names(tmp_path: Path) -> None:
    (tmp_path / "lib").mkdir()
    for name in ("lib/job.py", "other.py", "in.json", "credentials.yaml"):
        (tmp_path / name).write_text("{}")
    child = "metadata: {name: c, path: flows/child}\nworkflow: [{step: start, tool: {kind: noop, message: in.json}}]\n"
    (tmp_path / "child.yaml").write_text(child)
    (tmp_path / "stranger.yaml").write_text(child.replace("flows/child", "flows/stranger"))
    playbook = tmp_path / "p.yaml"
    playbook.write_text(
        shell('"python lib/job.py; cat /etc/hosts"') + "  - {step: b, tool: {kind: playbook, path: flows/child}}\n"
    )
    found = {str(file.relative_to(tmp_path)) for file in file_stamps(playbook, [tmp_path / "other.py"])}
    assert found == {"p.yaml", "lib/job.py", "child.yaml", "in.json", "credentials.yaml", "other.py"}


@pytest.mark.parametrize("word", ["今日は" * 29, "/elsewhere/data.csv", "old.yaml", "a/" * 127 + "a"])
def test_word_that_can_be_no_file_is_none(tmp_path: Path, word: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Longer than a name may be (in bytes), below a folder of another user, or a folder itself."""
    real = os.stat

    def stat(path: os.PathLike[str] | str | int, **given: Any) -> os.stat_result:
        if str(path).startswith("/elsewhere"):
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), str(path))
        return real(path, **given)

    monkeypatch.setattr(os, "stat", stat)
    (tmp_path / "old.yaml").mkdir()
    playbook = tmp_path / "p.yaml"
    playbook.write_text(shell(f'"cat {word}"'), encoding="utf-8")
    assert [*file_stamps(playbook)] == [playbook]


async def test_file_that_is_being_replaced_is_waited_for(tmp_path: Path) -> None:
    """As editors save: the old one is gone before the new one is there."""
    playbook = tmp_path / "p.yaml"
    playbook.write_text(shell("one"))
    changed = asyncio.create_task(until_changed(file_stamps(playbook), playbook))
    playbook.unlink()
    done, _ = await asyncio.wait({changed}, timeout=0.6)
    assert not done
    playbook.write_text(shell("another"))
    assert await changed == [playbook]


async def test_playbook_runs_again_after_each_change_until_ctrl_c(tmp_path: Path) -> None:
    """A playbook that cannot be run is told, and the next change is waited for."""
    playbook, script, out = tmp_path / "p.yaml", tmp_path / "job.sh", tmp_path / "out"
    script.write_text("echo one")
    playbook.write_text(shell(f'"sh {script}"'))
    with out.open("wb") as stream:
        running = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "noetl_worker", "dev", str(playbook), "--watch"),
            env={**environment(), "XDG_STATE_HOME": str(tmp_path / "state")},
            cwd=tmp_path,
            stdout=stream,
            stderr=stream,
        )
    try:
        await shows(out, "start | one", "job.sh, ", "p.yaml; Ctrl-C ends it")
        script.write_text("echo two, longer")
        await shows(out, "changed: ", "job.sh", "start | two, longer")
        playbook.write_text(shell("[").replace("workflow", "werkflow"))
        await shows(out, "NW100")
        playbook.write_text(shell('"echo three"'))
        await shows(out, "start | three")
        running.send_signal(signal.SIGINT)
        assert await running.wait() != 0
        assert "Traceback" not in out.read_text()
    finally:
        if running.returncode is None:
            running.kill()
            await running.wait()


async def test_ctrl_c_that_a_session_misses_is_known_to_it_and_one_that_it_meets_ends_it() -> None:
    signals: list[signal.Signals] = []

    async def session(*, misses: bool) -> list[signal.Signals]:
        os.kill(os.getpid(), signal.SIGINT)
        try:
            await asyncio.sleep(60)
        except asyncio.CancelledError:
            if not misses:
                raise
        return list(signals)

    assert await until_signal(session(misses=True), signals) == [signal.SIGINT]
    with pytest.raises(KeyboardInterrupt):
        await until_signal(session(misses=False))


async def shows(out: Path, *texts: str) -> None:
    await until(lambda: all(text in out.read_text() for text in texts), " ".join(texts))
