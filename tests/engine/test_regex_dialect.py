"""Regular expressions: the Rust dialect on both engines, and the table of what the pure one does not have.

In the vectors `expect` is whether the pattern is found, `REFUSED` where the crate refuses it, or `RUST_ONLY` for a row
of the table in `engine/pure/regex_dialect.py`.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from noetl_worker.errors import ConditionError

LINES = (Path(__file__).parents[1] / "vectors" / "regex.jsonl").read_text(encoding="utf-8").splitlines()
ROWS = [json.loads(line) for line in LINES]


def rows(*expected: Any) -> list[Any]:
    return [pytest.param(row, id=row["id"]) for row in ROWS if row["expect"] in expected]


def matches(engine: Any, row: dict[str, Any]) -> bool:
    sides = [json.dumps(row[side]).encode() for side in ("text", "pattern")]
    answer: bool = engine.decide(sides[0], "matches", sides[1])
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
