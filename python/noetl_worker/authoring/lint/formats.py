"""The output formats of `noetl-worker check`: lines of text, JSON, SARIF 2.1.0, and GitHub's workflow commands."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import PurePath
from typing import Any, Final

from noetl_worker import __version__
from noetl_worker.authoring.lint.codes import CODES
from noetl_worker.authoring.lint.findings import Mistake


def _text(mistakes: Sequence[Mistake]) -> str:
    return "\n".join(f"{one.file}:{one.line}:{one.column}: {one.code} {one.message}" for one in mistakes)


def _json(mistakes: Sequence[Mistake]) -> str:
    return json.dumps([dataclasses.asdict(one) for one in mistakes], indent=2, ensure_ascii=False)


def _sarif(mistakes: Sequence[Mistake]) -> str:
    rules = [
        {
            "id": code.name,
            "shortDescription": {"text": code.title},
            "help": {"text": code.mend},
            "defaultConfiguration": {"level": code.severity},
        }
        for code in CODES.values()
    ]
    driver = {"name": "noetl-worker check", "version": __version__, "rules": rules}
    run = {"tool": {"driver": driver}, "columnKind": "unicodeCodePoints", "results": [_result(one) for one in mistakes]}
    document = {"$schema": "https://json.schemastore.org/sarif-2.1.0.json", "version": "2.1.0", "runs": [run]}
    return json.dumps(document, indent=2, ensure_ascii=False)


def _result(mistake: Mistake) -> dict[str, Any]:
    region = {"startLine": mistake.line, "startColumn": mistake.column}
    place = {"artifactLocation": {"uri": PurePath(mistake.file).as_posix()}, "region": region}
    return {
        "ruleId": mistake.code,
        "level": mistake.severity,
        "message": {"text": mistake.message},
        "locations": [{"physicalLocation": place}],
    }


def _github(mistakes: Sequence[Mistake]) -> str:
    return "\n".join(
        f"::{one.severity} file={_property(one.file)},line={one.line},col={one.column},title={one.code}"
        f"::{_data(one.message)}"
        for one in mistakes
    )


def _data(text: str) -> str:
    return text.replace("%", "%25").replace("\r", "%0D").replace("\n", "%0A")


def _property(text: str) -> str:
    return _data(text).replace(":", "%3A").replace(",", "%2C")


FORMATS: Final[Mapping[str, Callable[[Sequence[Mistake]], str]]] = {
    "text": _text,
    "json": _json,
    "sarif": _sarif,
    "github": _github,
}
