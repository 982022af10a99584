"""CPU of redaction for a megabyte with 1,000 known secrets, in terms of that with ten."""

from __future__ import annotations

import base64
import importlib.util
import json
import random
import string
import time
from collections.abc import Callable
from typing import Any, Final

import pytest

import workload
from noetl_worker.models import FitRules, SecretTexts
from noetl_worker.text.secrets.known import KnownSecrets

FEW: Final = 10
MANY: Final = 1_000
_BYTES: Final = 4_000_000
"""Of a text: what is made once for the secrets is made for all of them."""
_ROUNDS: Final = 3


def known(number: int) -> SecretTexts:
    draw, secrets = random.Random(number), KnownSecrets()
    for _ in range(number):
        secrets.add("".join(draw.choices(string.ascii_letters + string.digits, k=24)))
    return secrets.texts()


def texts(size: int = _BYTES) -> dict[str, str]:
    """What a step may print: files in base64 or hex, a log, rows."""
    draw = random.Random(3)
    words = draw.choices(["error:", "password_17", "of", "2026-01-01", "\n"], k=size // 7)
    return {
        "base64": base64.encodebytes(draw.randbytes(size * 3 // 4)).decode(),
        "hex": draw.randbytes(size // 2).hex(),
        "log": " ".join(words),
        "rows": workload.result(size).decode(),
    }


def ratios(engine: Any, size: int = _BYTES, rounds: int = _ROUNDS) -> dict[str, float]:
    """Minima of rounds in turns, by kind of text and way of redaction."""
    few, many = known(FEW), known(MANY)
    found = {}
    for name, text in texts(size).items():
        document = json.dumps({"stdout": text}).encode()
        ways: dict[str, Callable[[SecretTexts], Any]] = {
            "result": lambda known, document=document: engine.fit_result(  # type: ignore[misc]
                document, FitRules.for_secrets(known, max_bytes=1 << 40)
            ),
            "text": lambda known, text=text: engine.redact_text(text, known.anywhere, known.words),  # type: ignore[misc]
        }
        for way, call in ways.items():
            spent_s: dict[int, list[float]] = {FEW: [], MANY: []}
            for _ in range(rounds):
                for number, secrets in ((FEW, few), (MANY, many)):
                    started = time.process_time()
                    call(secrets)
                    spent_s[number].append(time.process_time() - started)
            found[f"{name} {way}"] = min(spent_s[MANY]) / min(spent_s[FEW])
    return found


def engines() -> list[str]:
    return ["python", *(["rust"] if importlib.util.find_spec("noetl_worker._core") else [])]


@pytest.mark.parametrize("name", engines())
def test_redaction_is_measured_on_each_kind_of_text(name: str) -> None:
    found = ratios(workload.engine(name), 20_000, 1)
    assert len(found) == 2 * len(texts(20_000))
    assert all(ratio > 0 for ratio in found.values())
