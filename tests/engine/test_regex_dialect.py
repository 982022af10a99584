"""Regular expressions: the Rust dialect on both engines, and the table of what the pure one does not have.

In the vectors `expect` is whether the pattern is found, `REFUSED` where the crate refuses it, or `RUST_ONLY` for a row
of the table in `engine/pure/regex_dialect.py`.
"""

from __future__ import annotations

import itertools
import json
import unicodedata
from typing import Any

import pytest

from engine.vectors import vectors
from noetl_worker.engine.pure import code_points
from noetl_worker.engine.pure import lib as pure
from noetl_worker.errors import ConditionError


def rows(*expected: Any) -> list[Any]:
    return [pytest.param(row, id=row["id"]) for row in vectors("regex") if row["expect"] in expected]


def matches(engine: Any, row: dict[str, Any]) -> bool:
    return found(engine, row["pattern"], row["text"])


def found(engine: Any, pattern: str, text: str) -> bool:
    answer: bool = engine.decide(json.dumps(text).encode(), "matches", json.dumps(pattern).encode())
    return answer


@pytest.mark.parametrize("row", rows(True, False))
def test_pattern_is_found_as_the_crate_finds_it(engine: Any, row: dict[str, Any]) -> None:
    assert matches(engine, row) is row["expect"]


@pytest.mark.parametrize("row", rows("REFUSED"))
def test_what_the_crate_refuses_is_refused_with_the_same_code(engine: Any, row: dict[str, Any]) -> None:
    with pytest.raises(ConditionError, match=r"^Invalid regex: ") as caught:
        matches(engine, row)
    assert caught.value.code == "invalid_regex"


@pytest.mark.rust
@pytest.mark.parametrize("row", rows("RUST_ONLY"))
def test_row_of_the_table_of_differences(engines: tuple[Any, Any], row: dict[str, Any]) -> None:
    pure, rust = engines
    assert isinstance(matches(rust, row), bool)
    with pytest.raises(ConditionError, match="needs the Rust engine") as caught:
        matches(pure, row)
    assert caught.value.code == "regex_unsupported"


# ── sizes ───────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    ("pattern", "text"),
    [
        ("a{1000}{1000}{10}", "Compiled regex exceeds size limit of 10485760 bytes."),
        ("a{200000}b{200000}", "Compiled regex exceeds size limit of 10485760 bytes."),
        ("(" * 251 + ")" * 251, "exceed the maximum number of nested parentheses/brackets (250)"),
        ("a{2,1}", "invalid repetition count range, the start must be <= the end"),
        ("a{}", "repetition quantifier expects a valid decimal"),
        ("a{99999999999}", "decimal literal invalid"),
        ("a{1", "unclosed counted repetition"),
        ("*", "repetition operator missing expression"),
    ],
)
def test_repetition_that_is_refused_is_refused_in_the_words_of_the_crate(engine: Any, pattern: str, text: str) -> None:
    with pytest.raises(ConditionError) as caught:
        found(engine, pattern, "")
    assert str(caught.value).startswith(f"Invalid regex: {text}")


@pytest.mark.parametrize(
    ("piece", "most"),
    [
        *(("é", 163_836), ("(a)", 109_224), ("[a-c]", 145_632), (".", 10_485), ("(?:ab|cd)", 41_609)),
        *(("(?:a+)", 145_632), ("(?:ab|ac|ad)", 31_968), ("(?:(a)|b)", 52_427)),
    ],
)
def test_as_many_copies_fit_as_in_the_crate(engine: Any, piece: str, most: int) -> None:
    assert not found(engine, f"{piece}{{{int(most * 0.999)}}}", "")
    with pytest.raises(ConditionError, match="exceeds size limit"):
        found(engine, f"{piece}{{{int(most * 1.001)}}}", "")


def test_pattern_that_fits_by_the_version_of_unicode_alone_needs_the_rust_engine() -> None:
    """`\\w` takes 47 kB by the tables of Python 3.10, 50 kB by those of the crate."""
    assert not found(pure, r"\w{150}", "")
    with pytest.raises(ConditionError, match=r"size is so near to the limit .* needs the Rust engine") as caught:
        found(pure, r"\w{215}", "")
    assert caught.value.code == "regex_unsupported"
    with pytest.raises(ConditionError, match="exceeds size limit"):
        found(pure, r"\w{240}", "")


# ── tables ──────────────────────────────────────────────────────────────────────────────────────


def test_categories_are_those_of_every_character() -> None:
    """The planes that are not gone through are empty in this interpreter too."""
    every: dict[str, list[tuple[int, int]]] = {}
    start = 0
    for category, codes in itertools.groupby(map(unicodedata.category, map(chr, range(0x110000)))):
        end = start + sum(1 for _ in codes)
        every.setdefault(category, []).append((start, end - 1))
        start = end
    assert {name: code_points.named_property(name) for name in every} == every


@pytest.mark.rust
def test_cases_fold_as_in_the_crate(engines: tuple[Any, Any]) -> None:
    _, rust = engines
    cased = (code for code in range(0x110000) if (char := chr(code)).lower() != char or char.upper() != char)
    folded = ((code, code_points.folded([(code, code)])) for code in cased)
    alike = {code: [one for low, high in ranges for one in range(low, high + 1)] for code, ranges in folded}
    codes = [code for code, those in alike.items() if len(those) > 1]
    known = [code for code in codes if found(rust, r"^\P{Cn}$", chr(code))]  # a newer interpreter may have more
    assert len(known) > 2_800
    firsts = [min(alike[code]) for code in known]
    assert found(rust, f"^(?i:{''.join(map(chr, firsts))})$", "".join(map(chr, known)))
    each = sorted(set(firsts))
    for bit in range(len(each).bit_length()):  # any two differ in a bit of their numbers
        with_it = "".join(chr(code) for number, code in enumerate(each) if number >> bit & 1)
        without = "".join(chr(code) for number, code in enumerate(each) if not number >> bit & 1)
        assert not found(rust, f"(?i)[{with_it}]", without)
