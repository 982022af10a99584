"""The files that a playbook uses, and a function that waits until one of these files changes."""

from __future__ import annotations

import asyncio
import os
import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Final, TypeAlias

from noetl_worker.authoring.dev.credential_files import BESIDE
from noetl_worker.authoring.dev.orchestration.playbook import Playbook, parse_yaml
from noetl_worker.errors import PlaybookError

Stamps: TypeAlias = Mapping[Path, "tuple[int, int] | None"]
"""Time of the last change (nanoseconds since 1970) and size (bytes) of each file; None for a missing file."""
_LOOK_S: Final = 0.25
_WORD: Final = re.compile(r"[^\s\"'`=(),:;\[\]{}<>|&]{1,255}")


def file_stamps(playbook: Path, others: Sequence[Path] = ()) -> Stamps:
    """Return the time of change and the size of each file that a run of the playbook uses.

    The files are the playbook, its credentials files, the files and playbooks that the playbook names, and `others`.
    Named files are searched in the playbook's folder and in the working directory.
    """
    folder = playbook.parent
    wanted = {playbook, *others, *(file for name in BESIDE if (file := folder / name).is_file())}
    waiting, by_path = [playbook], {found.path: file for file, _, found in playbooks_in_folder(folder)}
    while waiting:
        words = {*_WORD.findall(_text(waiting.pop()))}
        named = {by_path[word] for word in words if word in by_path} - wanted
        waiting += named
        wanted |= named | {found for word in words if (found := _named_file(folder, word)) is not None}
    return _stamps(wanted)


async def until_changed(before: Stamps, playbook: Path) -> list[Path]:
    """Wait until a file has changed and no file changes again for a quarter of a second. Return the changed files."""
    last = before
    while True:
        await asyncio.sleep(_LOOK_S)
        now = _stamps(before)
        if now != before and now == last and now[playbook] is not None:
            return [file for file, stamp in now.items() if before[file] != stamp]
        last = now


def _stamps(files: Sequence[Path] | set[Path] | Stamps) -> Stamps:
    def stamp(file: Path) -> tuple[int, int] | None:
        try:
            found = file.stat()
        except OSError:
            return None
        return found.st_mtime_ns, found.st_size

    return {file: stamp(file) for file in files}


def playbooks_in_folder(folder: Path) -> Iterator[tuple[Path, str, Playbook]]:
    """Yield each playbook of a folder: the file, its text, and the parsed playbook. Other files are left out."""
    for file in sorted((*folder.glob("*.yaml"), *folder.glob("*.yml"))):
        text = _text(file)
        try:
            document = parse_yaml(text)
        except PlaybookError:
            continue
        if isinstance(document, dict) and "workflow" in document:
            yield file, text, Playbook.from_document(document)


def _text(file: Path) -> str:
    """Return a file's text, or "" if the file cannot be read."""
    try:
        return file.read_text(encoding="utf-8", errors="replace")
    except OSError:
        return ""


def _named_file(folder: Path, word: str) -> Path | None:
    """Return the file with this name in the playbook's folder, or else in the working directory, or None."""
    for base in (folder, Path()):
        file = base / word
        # Path.is_file() raises for a name that is too long, and below a folder of another user.
        if os.path.isfile(file) and file.resolve().is_relative_to(base.resolve()):  # noqa: PTH113
            return file
    return None
