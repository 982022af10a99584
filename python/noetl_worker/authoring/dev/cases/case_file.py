"""The file of cases beside a playbook (`name.test.yaml` beside `name.yaml`), checked before anything runs."""

from __future__ import annotations

import errno
import json
import os
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Final

from noetl_worker.authoring.dev.orchestration.playbook import Playbook, parse_yaml, read_file_text
from noetl_worker.authoring.dev.positions import PlaybookText, read_text
from noetl_worker.authoring.dev.session import load_document
from noetl_worker.authoring.outline import Path as TextPath
from noetl_worker.errors import PlaybookError
from noetl_worker.models.wire import JsonValue
from noetl_worker.tools.fields import nearest

OUTCOMES: Final = ("completed", "failed", "cancelled", "running")
"""Outcomes a case may expect; `running`: the execution stands still."""
_ENDINGS: Final = (".test.yaml", ".test.yml")


@dataclass(frozen=True, slots=True)
class PlaybookCase:
    name: str
    line: int
    document: Mapping[str, Any]
    """The playbook with the case's workload."""
    stand_ins: Mapping[str, Mapping[str, JsonValue]]
    expected: Mapping[str, JsonValue]
    text: PlaybookText = field(repr=False)
    path: TextPath
    """Path of the expectations in the text of the file."""


@dataclass(frozen=True, slots=True)
class CaseFile:
    file: Path
    playbook: Path
    cases: Sequence[PlaybookCase]


def case_files(paths: Sequence[Path], *, named: str = "") -> list[CaseFile]:
    """Read the case files of the paths: files, playbooks with a case file beside them, folders with all below.

    Only cases with `named` in their name are kept.

    Raises:
        PlaybookError: there is none, or some of them are wrong; a line for each, with its file and line.
    """
    found = dict.fromkeys(file for path in paths for file in _files_of(path))
    if not found:
        raise PlaybookError(f"no case in {', '.join(map(str, paths))}: cases of name.yaml stand in name.test.yaml")
    files, wrong = [], []
    for file in found:
        try:
            files.append(_read(file))
        except PlaybookError as error:
            wrong.append(str(error))
    if wrong:
        raise PlaybookError("\n".join(wrong))
    wanted = [replace(one, cases=[case for case in one.cases if named in case.name]) for one in files]
    if not any(one.cases for one in wanted):
        raise PlaybookError(f"no case has {named!r} in its name")
    return [one for one in wanted if one.cases]


def _files_of(path: Path) -> list[Path]:
    if path.is_dir():
        return sorted(file for ending in _ENDINGS for file in path.rglob(f"*{ending}") if not os.path.isdir(file))  # noqa: PTH112
    if not path.exists():
        raise PlaybookError(f"{path}: {os.strerror(errno.ENOENT)}")
    if path.name.endswith(_ENDINGS):
        return [path]
    beside = [path.with_name(path.stem + ending) for ending in _ENDINGS]
    if found := [file for file in beside if file.is_file()]:
        return found
    raise PlaybookError(f"{path}: no cases beside it; they stand in {beside[0].name}")


def _read(file: Path) -> CaseFile:
    text = read_file_text(file)
    try:
        document, reader = parse_yaml(text), _CaseReader(file, read_text(text))
    except PlaybookError as error:
        raise PlaybookError(f"{file}: {error}") from error
    for key, again, first in reader.text.duplicates:
        raise PlaybookError(f"{file}:{again.line}: key {key!r} is there twice; it stands in line {first.line} too")
    given = reader.object(document, (), "a file of cases", ("playbook", "cases"))
    playbook = file.with_name(str(given["playbook"])) if "playbook" in given else _beside(file)
    cases = given.get("cases")
    if not isinstance(cases, list) or not cases:
        raise reader.error(("cases",), "`cases` is a list of at least one case")
    return CaseFile(file, playbook, list(reader.cases(cases, playbook)))


def _beside(file: Path) -> Path:
    name = next(file.name.removesuffix(ending) for ending in _ENDINGS if file.name.endswith(ending))
    found = [path for ending in (".yaml", ".yml") if (path := file.with_name(name + ending)).is_file()]
    if not found:
        raise PlaybookError(f"{file}: there is no {name}.yaml beside it; `playbook: FILE` names another one")
    return found[0]


class _CaseReader:
    def __init__(self, file: Path, text: PlaybookText) -> None:
        self._file, self.text = file, text

    def error(self, path: TextPath, reason: str) -> PlaybookError:
        return PlaybookError(f"{self._file}:{self.text.value_place(path).line}: {reason}")

    def _error_of_key(self, path: TextPath, reason: str) -> PlaybookError:
        return PlaybookError(f"{self._file}:{self.text.key_place(path).line}: {reason}")

    def object(self, value: JsonValue, path: TextPath, what: str, known: Collection[str]) -> Mapping[str, JsonValue]:
        if not isinstance(value, dict):
            raise self.error(path, f"{what} is an object with {', '.join(known)}")
        for key in value:
            if key not in known:
                guess = nearest(str(key), list(known)) or f"; it has {', '.join(known)}"
                raise self._error_of_key((*path, key), f"{what}: {key!r} is unknown{guess}")
        return value

    def cases(self, cases: Sequence[JsonValue], playbook: Path) -> Iterator[PlaybookCase]:
        for number, value in enumerate(cases):
            path: TextPath = ("cases", number)
            case = self.object(value, path, "a case", ("name", "workload", "stand_ins", "expect"))
            if "expect" not in case:
                raise self.error(path, f"a case needs `expect`, for example {{outcome: {OUTCOMES[0]}}}")
            document = self._document(case.get("workload") or {}, (*path, "workload"), playbook)
            steps = list(Playbook.from_document(document).steps)
            stand_ins = self.object(case.get("stand_ins") or {}, (*path, "stand_ins"), "stand_ins", steps)
            for step, given in stand_ins.items():
                place = (*path, "stand_ins", step)
                what = self.object(given, place, "a stand-in", ("result", "error"))
                if not isinstance(error := what.get("error", ""), str):
                    text = f"`error` of a stand-in is a text, and YAML reads this as {json.dumps(error, default=str)}"
                    raise self.error(place, f"{text}: put it in quotes")
            expected = self._expected(case["expect"], (*path, "expect"), steps)
            name, line = str(case.get("name") or f"case {number + 1}"), self.text.key_place(path).line
            yield PlaybookCase(name, line, document, {**stand_ins}, expected, self.text, (*path, "expect"))

    def _document(self, workload: JsonValue, path: TextPath, playbook: Path) -> dict[str, Any]:
        if not isinstance(workload, dict):
            raise self.error(path, "`workload` is an object of names and values")
        try:
            return load_document(playbook, workload, source="workload")[1]
        except PlaybookError as error:
            raise self._error_of_key(path, str(error)) from error

    def _expected(self, value: JsonValue, path: TextPath, steps: Collection[str]) -> Mapping[str, JsonValue]:
        expected = self.object(value, path, "expect", ("outcome", "steps", "results", "result", "error"))
        if expected.get("outcome", OUTCOMES[0]) not in OUTCOMES:
            raise self._error_of_key((*path, "outcome"), f"an outcome is one of {', '.join(OUTCOMES)}")
        self.object(expected.get("results", {}), (*path, "results"), "results", steps)
        ran = expected.get("steps", [])
        if not isinstance(ran, list):
            raise self.error((*path, "steps"), "`steps` is a list of names")
        for number, step in enumerate(ran):
            if step not in steps:
                guess = nearest(str(step), list(steps))
                raise self.error((*path, "steps", number), f"no step is named {step!r}{guess}")
        return expected
