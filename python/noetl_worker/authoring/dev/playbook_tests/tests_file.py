"""The file with tests of a playbook, `name.test.yaml` beside `name.yaml`. The file is checked before any test runs."""

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
"""Outcomes that a test may expect. `running` means that no step will ever follow, although the plane says RUNNING."""
_ENDINGS: Final = (".test.yaml", ".test.yml")


@dataclass(frozen=True, slots=True)
class PlaybookTest:
    name: str
    line: int
    document: Mapping[str, Any]
    """The parsed playbook, with the test's values in its workload."""
    stand_ins: Mapping[str, Mapping[str, JsonValue]]
    expected: Mapping[str, JsonValue]
    text: PlaybookText = field(repr=False)
    """The file that contains this test, as text and parsed."""
    path: TextPath
    """Path of the test's `expect` in the parsed file of tests."""


@dataclass(frozen=True, slots=True)
class TestsFile:
    file: Path
    playbook: Path
    tests: Sequence[PlaybookTest]


def read_tests_files(paths: Sequence[Path], *, named: str = "") -> list[TestsFile]:
    """Return the files of tests, each with its tests.

    Args:
        paths: files of tests, playbooks, and folders. For a playbook `a.yaml`, the file of tests is `a.test.yaml`. A
            folder is searched with all folders inside.
        named: return only tests whose names contain this text.

    Raises:
        PlaybookError: there is no test, or files are wrong. The text has one line for each wrong file.
    """
    found = dict.fromkeys(file for path in paths for file in _find_files(path))
    if not found:
        raise PlaybookError(f"no test in {', '.join(map(str, paths))}: write tests of name.yaml in name.test.yaml")
    files, wrong = [], []
    for file in found:
        try:
            files.append(_read(file))
        except PlaybookError as error:
            wrong.append(str(error))
    if wrong:
        raise PlaybookError("\n".join(wrong))
    wanted = [replace(one, tests=[test for test in one.tests if named in test.name]) for one in files]
    if not any(one.tests for one in wanted):
        raise PlaybookError(f"no test has {named!r} in its name: give a part of a test's `name`")
    return [one for one in wanted if one.tests]


def _find_files(path: Path) -> list[Path]:
    if path.is_dir():
        return sorted(file for ending in _ENDINGS for file in path.rglob(f"*{ending}") if not os.path.isdir(file))  # noqa: PTH112
    if not path.exists():
        raise PlaybookError(f"{path}: {os.strerror(errno.ENOENT)}")
    if path.name.endswith(_ENDINGS):
        return [path]
    beside = [path.with_name(path.stem + ending) for ending in _ENDINGS]
    if found := [file for file in beside if file.is_file()]:
        return found
    raise PlaybookError(f"{path}: there are no tests of this playbook: write them in {beside[0].name} beside it")


def _read(file: Path) -> TestsFile:
    text = read_file_text(file)
    try:
        document, reader = parse_yaml(text), _TestReader(file, read_text(text))
    except PlaybookError as error:
        raise PlaybookError(f"{file}: {error}") from error
    for key, again, first in reader.text.duplicates:
        raise PlaybookError(f"{file}:{again.line}: key {key!r} is in line {first.line} too: remove one of them")
    given = reader.object(document, (), "a file of tests", ("playbook", "cases"))
    playbook = file.with_name(str(given["playbook"])) if "playbook" in given else _tested_playbook(file)
    tests = given.get("cases")
    if not isinstance(tests, list) or not tests:
        raise reader.error(("cases",), "write `cases` as a list of at least one test")
    return TestsFile(file, playbook, list(reader.tests(tests, playbook)))


def _tested_playbook(file: Path) -> Path:
    name = next(file.name.removesuffix(ending) for ending in _ENDINGS if file.name.endswith(ending))
    found = [path for ending in (".yaml", ".yml") if (path := file.with_name(name + ending)).is_file()]
    if not found:
        raise PlaybookError(f"{file}: no {name}.yaml is beside this file: name the playbook in `playbook`")
    return found[0]


class _TestReader:
    def __init__(self, file: Path, text: PlaybookText) -> None:
        self._file, self.text = file, text

    def error(self, path: TextPath, reason: str) -> PlaybookError:
        return PlaybookError(f"{self._file}:{self.text.value_place(path).line}: {reason}")

    def _key_error(self, path: TextPath, reason: str) -> PlaybookError:
        return PlaybookError(f"{self._file}:{self.text.key_place(path).line}: {reason}")

    def object(self, value: JsonValue, path: TextPath, what: str, known: Collection[str]) -> Mapping[str, JsonValue]:
        if not isinstance(value, dict):
            raise self.error(path, f"write {what} as an object with {', '.join(known)}")
        for key in value:
            if key not in known:
                guess = nearest(str(key), list(known)) or f"; it has {', '.join(known)}"
                raise self._key_error((*path, key), f"{what}: {key!r} is unknown{guess}")
        return value

    def tests(self, tests: Sequence[JsonValue], playbook: Path) -> Iterator[PlaybookTest]:
        for number, value in enumerate(tests):
            path: TextPath = ("cases", number)
            test = self.object(value, path, "a test", ("name", "workload", "stand_ins", "expect"))
            if "expect" not in test:
                raise self.error(path, f"a test needs `expect`, for example {{outcome: {OUTCOMES[0]}}}")
            document = self._document(test.get("workload") or {}, (*path, "workload"), playbook)
            steps = list(Playbook.from_document(document).steps)
            stand_ins = self.object(test.get("stand_ins") or {}, (*path, "stand_ins"), "stand_ins", steps)
            for step, given in stand_ins.items():
                place = (*path, "stand_ins", step)
                what = self.object(given, place, "a stand-in", ("result", "error"))
                if not isinstance(error := what.get("error", ""), str):
                    text = f"`error` of a stand-in is a text, and YAML reads this as {json.dumps(error, default=str)}"
                    raise self.error(place, f"{text}: put it in quotes")
            expected = self._expected(test["expect"], (*path, "expect"), steps)
            name, line = str(test.get("name") or f"test {number + 1}"), self.text.key_place(path).line
            yield PlaybookTest(name, line, document, {**stand_ins}, expected, self.text, (*path, "expect"))

    def _document(self, workload: JsonValue, path: TextPath, playbook: Path) -> dict[str, Any]:
        if not isinstance(workload, dict):
            raise self.error(path, "write `workload` as an object of names and values")
        try:
            return load_document(playbook, workload, source="workload")[1]
        except PlaybookError as error:
            raise self._key_error(path, str(error)) from error

    def _expected(self, value: JsonValue, path: TextPath, steps: Collection[str]) -> Mapping[str, JsonValue]:
        expected = self.object(value, path, "expect", ("outcome", "steps", "results", "result", "error"))
        if expected.get("outcome", OUTCOMES[0]) not in OUTCOMES:
            raise self._key_error((*path, "outcome"), f"write as outcome one of {', '.join(OUTCOMES)}")
        self.object(expected.get("results", {}), (*path, "results"), "results", steps)
        ran = expected.get("steps", [])
        if not isinstance(ran, list):
            raise self.error((*path, "steps"), "write `steps` as a list of names")
        for number, step in enumerate(ran):
            if step not in steps:
                guess = nearest(str(step), list(steps))
                raise self.error((*path, "steps", number), f"no step is named {step!r}{guess}")
        return expected
