"""The directories that commands run in: which of them another command gets, and which are removed."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import AsyncExitStack
from pathlib import Path

import pytest

from noetl_worker.tools.process.confinement import UNCONFINED, Confinement
from noetl_worker.tools.process.scratch import Scratch

from .processes import linux_only

BASIC = Confinement("basic")


@pytest.fixture
async def scratch() -> AsyncIterator[Scratch]:
    made = Scratch(BASIC)
    yield made
    await made.aclose()


@pytest.fixture(autouse=True)
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where directories are made."""
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    return tmp_path


async def left_by(scratch: Scratch, leave: Callable[[Path], object] = lambda path: None) -> Path:
    async with scratch.directory() as path:
        assert list(Path(path).iterdir()) == []
        leave(Path(path))
    return Path(path)


@linux_only
async def test_directory_that_is_left_as_it_was_made_is_for_the_next_command(place: Path) -> None:
    scratch = Scratch(BASIC)
    first = await left_by(scratch)
    assert await left_by(scratch) == first
    await scratch.aclose()
    assert list(place.iterdir()) == []


def replaced(path: Path) -> None:
    path.rename(path.with_name("elsewhere"))
    path.mkdir(mode=0o700)


CHANGES: dict[str, Callable[[Path], object]] = {
    "a file": lambda path: (path / ".hidden").touch(),
    "a directory": lambda path: (path / "deep" / "deeper").mkdir(parents=True),
    "other rights": lambda path: path.chmod(0o500),
    "an attribute": lambda path: os.setxattr(path, "user.left", b"x"),
    "removed": lambda path: path.rmdir(),
    "replaced": replaced,
}


@linux_only
@pytest.mark.parametrize("change", CHANGES)
async def test_directory_that_a_command_has_changed_is_removed(scratch: Scratch, change: str, place: Path) -> None:
    first = await left_by(scratch, CHANGES[change])
    assert [path.name for path in place.iterdir()] == (["elsewhere"] if change == "replaced" else [])
    assert await left_by(scratch) != first


def closed_to_its_owner(path: Path) -> None:
    """As the module cache of Go is left, and worse."""
    for rights in (0o555, 0o000):
        deep = path / f"{rights:o}" / "deep"
        deep.mkdir(parents=True)
        (deep / "file").touch()
        deep.chmod(rights)
        deep.parent.chmod(rights)
    path.chmod(0o555)


@pytest.fixture
def elsewhere(monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """Where directories are made instead: the user of this test owns it, who is not root, as rights bind no root."""
    path = Path(tempfile.mkdtemp(dir="/tmp"))
    is_root = os.geteuid() == 0
    if is_root:
        os.chown(path, 65_534, -1)
        os.seteuid(65_534)
    monkeypatch.setattr(tempfile, "tempdir", str(path))
    try:
        yield path
    finally:
        if is_root:
            os.seteuid(0)
        subprocess.run(["rm", "-rf", path], check=True)  # at any depth


async def test_directory_in_which_a_command_has_closed_some_is_removed(elsewhere: Path) -> None:
    await left_by(Scratch(UNCONFINED), closed_to_its_owner)
    assert list(elsewhere.iterdir()) == []


@pytest.mark.usefixtures("elsewhere")
@pytest.mark.heavy_on_loop(reason="the test itself makes a thousand directories")
async def test_directory_that_is_too_deep_to_be_removed_costs_no_outcome() -> None:
    def deep(path: Path) -> None:
        here = os.open(".", os.O_RDONLY)
        os.chdir(path)
        for _ in range(sys.getrecursionlimit()):
            Path("d").mkdir()
            os.chdir("d")
        os.chdir(here)
        os.close(here)

    await left_by(Scratch(UNCONFINED), deep)


async def test_directory_outside_keeps_its_rights_and_files(elsewhere: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    place, outside = elsewhere / "place", elsewhere / "outside"
    place.mkdir()
    (outside / "below").mkdir(parents=True)
    monkeypatch.setattr(tempfile, "tempdir", str(place))

    def linked(path: Path) -> None:
        (path / "link").symlink_to(outside)
        closed_to_its_owner(path)

    def replaced_by_a_link(path: Path) -> None:
        path.rmdir()
        path.symlink_to(outside)

    for directory in (outside / "below", outside):
        directory.chmod(0o500)
    for leave in (linked, replaced_by_a_link):
        await left_by(Scratch(UNCONFINED), leave)
        assert [directory.stat().st_mode & 0o777 for directory in (outside, outside / "below")] == [0o500, 0o500]
    outside.chmod(0o700)


async def test_directory_is_not_kept_where_something_may_be_left_that_writes_to_it(place: Path) -> None:
    scratch = Scratch(UNCONFINED)
    await left_by(scratch)
    assert list(place.iterdir()) == []


async def test_directory_of_a_command_that_was_given_up_is_removed(scratch: Scratch, place: Path) -> None:
    with pytest.raises(RuntimeError):
        async with scratch.directory():
            raise RuntimeError("its end was not seen")
    assert list(place.iterdir()) == []


@linux_only
async def test_directory_that_was_removed_meanwhile_is_made_anew(scratch: Scratch) -> None:
    first = await left_by(scratch)
    shutil.rmtree(first)  # who cleans /tmp
    assert (await left_by(scratch)).name != first.name


@linux_only
async def test_commands_that_run_at_once_have_directories_of_their_own(scratch: Scratch, place: Path) -> None:
    async with AsyncExitStack() as running:
        at_once = {await running.enter_async_context(scratch.directory()) for _ in range(20)}
    assert len(at_once) == 20
    assert len(list(place.iterdir())) == 16  # more are not kept


@linux_only
async def test_directories_go_with_a_tool_that_nobody_closed(place: Path) -> None:
    scratch = Scratch(BASIC)
    await left_by(scratch)
    assert len(list(place.iterdir())) == 1
    del scratch
    assert list(place.iterdir()) == []
