"""A command forks without end."""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path

import pytest
from structlog.testing import capture_logs

from noetl_worker.pipeline.command.tool_rules import log_what_is_not_confined, make_registry
from noetl_worker.settings.settings import load_settings
from noetl_worker.tools.process import command_group

from .commands import run_as

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="Linux")

FORKS = """
import subprocess, sys
started = []
try:
    while len(started) < 200:
        started.append(subprocess.Popen(["sleep", "1000"]))
except OSError as error:
    result = {"started": len(started), "said": str(error)}
else:
    result = {"started": len(started), "said": ""}
"""
OWN = "import pathlib\nresult = pathlib.Path('/proc/self/cgroup').read_text()"
Machine = Callable[..., Path]


@pytest.fixture
def group_of_commands() -> Iterator[None]:
    """A machine with a pids cgroup that this user may write: nothing here stands in for the kernel's counting."""
    try:
        group = command_group.commands_group(os.getpid())
    except OSError as error:
        pytest.skip(f"no cgroup for the commands here: {error}")
    yield
    for left in group.parent.glob(f"{command_group.GROUP}*"):
        with suppress(OSError):  # one of a worker that lives
            left.rmdir()


@pytest.mark.usefixtures("group_of_commands")
def test_fork_bomb_ends_at_the_limit_and_the_next_command_runs() -> None:
    """A fork bomb."""
    bomb, after = run_as("root", "basic", [("python", {"code": FORKS}), ("shell", {"cmd": "echo next"})], processes=50)
    assert 20 < bomb["data"]["started"] < 50
    assert "Resource temporarily unavailable" in bomb["data"]["said"]
    assert after["stdout"] == "next\n"


@pytest.mark.usefixtures("group_of_commands")
def test_commands_are_in_one_cgroup_of_their_worker() -> None:
    """(no attack) Threads and processes of all commands count together."""
    shell, python = run_as(
        "root", "basic", [("shell", {"cmd": "cat /proc/self/cgroup"}), ("python", {"code": OWN})], processes=500
    )
    name = re.compile(rf"/{command_group.GROUP}\d+$", re.MULTILINE)
    assert len({*name.findall(shell["stdout"]), *name.findall(python["data"])}) == 1


# ── which cgroup it is: over folders that stand in for /sys/fs/cgroup, where no kernel counts anything ──


@pytest.fixture
def machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Machine:
    """`own` is what /proc/self/cgroup says; the folder is /sys/fs/cgroup."""

    def make(own: str, *folders: str) -> Path:
        for folder in folders:
            (tmp_path / folder).mkdir(parents=True)
        (tmp_path / "own").write_text(own)
        monkeypatch.setattr(command_group, "CGROUPS", tmp_path)
        monkeypatch.setattr(command_group, "OWN_CGROUP", tmp_path / "own")
        return tmp_path

    return make


def delegated(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "getxattr", lambda path, name: b"1", raising=False)


def test_with_version_1_the_group_is_below_the_workers_own(machine: Machine) -> None:
    root = machine("9:cpu:/a\n8:pids:/docker/x\n0::/\n", "pids/docker/x")
    assert command_group.commands_group(7) == root / "pids/docker/x/noetl-commands-7"


def test_with_version_2_the_group_is_beside_the_workers_own(machine: Machine, monkeypatch: pytest.MonkeyPatch) -> None:
    root = machine("0::/system.slice/w.service/worker\n", "system.slice/w.service/worker")
    (root / "system.slice/w.service/cgroup.controllers").write_text("cpu memory pids\n")
    delegated(monkeypatch)
    assert command_group.commands_group(7) == root / "system.slice/w.service/noetl-commands-7"


@pytest.mark.parametrize(
    ("own", "reason"),
    [
        ("0::/\n", "the worker is in the root cgroup, or has no cgroup of version 2: run it in a delegated cgroup"),
        ("0::/pod/worker\n", "has no pids controller"),
        ("0::/elsewhere/worker\n", "No such file"),
        ("8:pids:/elsewhere\n", "cannot be written"),
    ],
)
def test_reason_why_there_is_no_group_is_logged_once_at_the_start(
    machine: Machine, monkeypatch: pytest.MonkeyPatch, own: str, reason: str
) -> None:
    root = machine(own, "pod/worker")
    (root / "pod/cgroup.controllers").write_text("cpu memory\n")
    delegated(monkeypatch)
    with capture_logs() as lines:
        log_what_is_not_confined(load_settings({}))
    (line,) = [line for line in lines if line["event"] != "own_files_within_reach"]
    assert make_registry(load_settings({})).confinement.processes == 0
    assert line["event"] == "process_limit_missing"
    assert reason in line["reason"]


def test_parent_that_is_not_delegated_is_left_alone(machine: Machine, monkeypatch: pytest.MonkeyPatch) -> None:
    """(no attack) A worker that is root may write everywhere; systemd wants to be the only one who does."""
    root = machine("0::/system.slice/w.service\n", "system.slice/w.service")
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    with pytest.raises(OSError, match=f"the cgroup {root}/system.slice is not delegated"):
        command_group.commands_group(7)


def test_joining_enables_the_controller_sets_the_limit_and_removes_groups_of_dead_workers(
    machine: Machine, monkeypatch: pytest.MonkeyPatch
) -> None:
    dead = "noetl-commands-99999999"
    root = machine("0::/w/worker\n", "w/worker", f"w/{dead}")
    (root / "w/cgroup.controllers").write_text("pids\n")
    (root / "w/cgroup.subtree_control").write_text("")
    delegated(monkeypatch)
    command_group.join(50)
    group = root / "w" / f"noetl-commands-{os.getppid()}"
    assert (root / "w/cgroup.subtree_control").read_text() == "+pids"
    assert ((group / "pids.max").read_text(), (group / "cgroup.procs").read_text()) == ("50", "0")
    assert not (root / "w" / dead).exists()


def test_limit_reaches_the_commands(machine: Machine) -> None:
    """(no attack) Where there is a cgroup for them, and isolation."""
    machine("1:pids:/w\n", "pids/w")
    assert make_registry(load_settings({})).confinement.processes == 8192
    none = load_settings({"NOETL_WORKER_ISOLATION": "off"})
    assert make_registry(none).confinement.processes == 0
    with capture_logs() as lines:
        log_what_is_not_confined(none)
    assert lines == []
