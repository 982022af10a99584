"""What a thousand secrets cost a text: its size decides, and not how many there are or what it looks like."""

from __future__ import annotations

import base64
import json
import random
import string
from collections.abc import Callable
from functools import partial
from typing import Any

import pytest

from noetl_worker.engine.pure import lib as pure
from noetl_worker.models import FitRules, SecretTexts
from noetl_worker.text.secrets.known import KnownSecrets
from noetl_worker.text.secrets.redaction import redact_value
from steps import steps

MARK = "[REDACTED]"
MANY = 1_000


def secrets_of(number: int) -> list[str]:
    draw = random.Random(number)
    return ["".join(draw.choices(string.ascii_letters + string.digits, k=24)) for _ in range(number)]


def known(number: int) -> SecretTexts:
    found = KnownSecrets()
    for secret in secrets_of(number):
        found.add(secret)
    return found.texts()


KNOWN = {number: known(number) for number in (10, MANY)}


def lines_in_base64(size: int) -> str:
    return base64.encodebytes(random.Random(1).randbytes(size * 3 // 4)).decode()


def words(size: int) -> str:
    return " ".join(random.Random(2).choices(["error:", "password_17", "of", "2026-01-01"], k=size // 9))


def nearly(size: int) -> str:
    """Every secret of ten, without its end."""
    pieces = [secret[:-1] + "!" for secret in secrets_of(10)]
    return ("".join(pieces) * (size // 200))[:size]


TEXTS: dict[str, Callable[[int], str]] = {"base64": lines_in_base64, "words": words, "nearly": nearly}


def steps_of_kilobytes(text: Callable[[int], str], call: Callable[[str], Any]) -> int:
    """What 8 kB more cost: what is made once for the secrets is left out."""
    counts = []
    for size in (60_000, 68_000):  # for less text no index is made
        given = text(size)
        counts.append(steps(partial(call, given)))
    return counts[1] - counts[0]


@pytest.mark.parametrize(
    ("shape", "path"),
    [
        ("base64", "text"),
        ("nearly", "document"),
        *(pytest.param(*one, marks=pytest.mark.sweep) for one in (("words", "text"), ("nearly", "text"))),
        pytest.param("nearly", "value", marks=pytest.mark.sweep),
    ],
)
def test_python_takes_at_most_twice_the_steps_for_a_thousand_secrets_as_for_ten(shape: str, path: str) -> None:
    """Of a search for each secret they were 70 to 100 times as many, and of a wrapped text as well."""

    def steps_for(number: int) -> int:
        texts = KNOWN[number]
        ways: dict[str, Callable[[str], Any]] = {
            "text": lambda text: pure.redact_text(text, texts.anywhere, texts.words),
            "document": lambda text: pure.fit_result(
                json.dumps([text]).encode(), FitRules(secrets=texts.anywhere, secret_words=texts.words)
            ),
            "value": lambda text: redact_value([text], texts),
        }
        return steps_of_kilobytes(TEXTS[shape], ways[path])

    assert steps_for(MANY) <= 2 * steps_for(10)


@pytest.mark.parametrize("width", [64, 76])
def test_each_of_a_thousand_secrets_over_several_lines_is_taken_out(engine: Any, width: int) -> None:
    texts, pieces = KNOWN[MANY], []
    for secret in secrets_of(MANY):
        raw = base64.b64encode(b"." * 40 + secret.encode() + b"." * 40).decode()
        pieces.append("\n".join(raw[at : at + width] for at in range(0, len(raw), width)))
    text = "\n\n".join(pieces)
    rules = FitRules(secrets=texts.anywhere, secret_words=texts.words)
    fitted = json.loads(engine.fit_result(json.dumps([text]).encode(), rules).body)[0]
    for redacted in (fitted, engine.redact_text(text, texts.anywhere, texts.words)):
        assert redacted.count(MARK) == MANY
        joined = redacted.replace("\n", "")
        assert not any(form in joined for form in texts.anywhere)


def test_two_secrets_that_share_a_line_are_both_taken_out(engine: Any) -> None:
    first, second = "Zq7xK2mPvR9tWc4nLd8s", "Bh5yJ3kFgT6uXe1wMa0o"
    text = f"{first[:10]}\n{first[10:]}{second[:10]}\n{second[10:]}"
    assert engine.redact_text(f"got\n{text}\nhere", (first, second)) == f"got\n{MARK}\nhere"


ADVERSE: dict[str, tuple[list[str], str]] = {
    "one long beginning": ([f"{'k7' * 400}{number:04}" for number in range(MANY)], "k7"),
    "each begins with the one before": ([("-abc" * MANY)[: 4 * size] for size in range(2, MANY)], "-abc"),
    "cut in its words": ([("-abc" * MANY)[: 4 * size - 1] for size in range(2, MANY)], "-abc"),
    "one sign over and over": (["a" * size + "!" for size in range(10, MANY)], "a"),
    "longer than a head": ([f"{'xyz' * 40_000}{number}" for number in range(9)], "xyz"),
}


@pytest.mark.parametrize("kind", ["anywhere", "words"])
@pytest.mark.parametrize("shape", ADVERSE)
def test_text_that_is_a_secret_nearly_everywhere_comes_to_an_end(engine: Any, shape: str, kind: str) -> None:
    """Of time that grows with the secrets this would take hours."""
    secrets, unit = ADVERSE[shape]
    text = unit * (100_000 // len(unit)) + "\n" + unit * (100_000 // len(unit))
    anywhere, words = (secrets, ()) if kind == "anywhere" else ((), secrets)
    redacted = engine.redact_text(text, anywhere, words)
    assert (MARK in redacted) is (shape not in ("one long beginning", "one sign over and over"))


@pytest.mark.parametrize("cut", [1_023, 1_024, 1_500, 2_999])
@pytest.mark.parametrize("kind", ["anywhere", "words"])
def test_long_secret_goes_as_far_as_the_text_goes_along_with_it(engine: Any, cut: int, kind: str) -> None:
    secret = "".join(random.Random(3).choices("abcdefé", k=3_000))
    anywhere, words = ([secret], ()) if kind == "anywhere" else ((), [secret])
    shown = engine.redact_text(f"<{secret[:cut]}>{secret}<", anywhere, words)
    assert shown == (f"<{secret[:cut]}>{MARK}<" if cut < 1_024 else f"<{MARK}>{MARK}<")
