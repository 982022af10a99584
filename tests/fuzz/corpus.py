"""Calls kept as files: what once told the engines apart must never do so again."""

from __future__ import annotations

import base64
import dataclasses
import hashlib
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from engine.hazards import Call
from noetl_worker.models import FitRules

FOLDER = Path(__file__).parent / "corpus"


def keep(call: Call) -> Path:
    """Write a call to the corpus and return its file."""
    text = json.dumps({"name": call.name, "arguments": [_packed(one) for one in call.arguments]}, indent=1)
    path = FOLDER / f"{call.name}-{hashlib.sha256(text.encode()).hexdigest()[:12]}.json"
    path.write_text(text + "\n")
    return path


def kept() -> Iterator[tuple[str, Call]]:
    for path in sorted(FOLDER.glob("*.json")):
        read = json.loads(path.read_text())
        yield path.stem, Call(read["name"], tuple(_unpacked(one) for one in read["arguments"]))


def _packed(value: Any) -> Any:
    if isinstance(value, bytes):
        try:
            return {"text": value.decode("utf-8")}
        except UnicodeDecodeError:
            return {"base64": base64.b64encode(value).decode("ascii")}
    if isinstance(value, FitRules):
        return {"rules": dataclasses.asdict(value)}
    if isinstance(value, (list, tuple)):
        return [_packed(one) for one in value]
    return value


def _unpacked(value: Any) -> Any:
    if isinstance(value, list):
        return [_unpacked(one) for one in value]
    if not isinstance(value, dict):
        return value
    if "text" in value:
        return value["text"].encode("utf-8")
    if "base64" in value:
        return base64.b64decode(value["base64"])
    rules = value["rules"]
    return FitRules(**{name: tuple(one) if isinstance(one, list) else one for name, one in rules.items()})
