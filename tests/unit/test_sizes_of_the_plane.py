"""Results held to the limits of the Python plane, which counts bytes of JSON that is escaped to ASCII."""

from __future__ import annotations

import json
from typing import Any

import pytest

from noetl_worker.models import Dialect, FitRules, Report, SecretTexts
from noetl_worker.remote.plane import dialects
from noetl_worker.remote.plane.python.rules import response_field
from noetl_worker.text import json_text
from unit.reports import STORED, parsed, report_of, tell

RULES = FitRules.for_secrets(SecretTexts(), max_bytes=102_400)
LETTERS = {"ascii": "x", "delete": "\x7f", "cyrillic": "я", "chinese": "中", "astral": "\U0001f600"}
PLANE = dialects.RULES[Dialect.PYTHON]
BATCH_BYTES = 2 * 1024 * 1024
RESPONSE_BYTES = 500_000


def size(value: Any) -> int:
    """As the plane counts."""
    return len(json.dumps(value, separators=(",", ":")))


def filling(letter: str, most: int, **data: Any) -> dict[str, Any]:
    """Data of exactly so many bytes, of these letters as far as they go."""
    name = next(iter(data))
    room = most - size(data)
    count = room // (size(letter) - 2)
    text = letter * count + "." * (room - count * (size(letter) - 2))
    return {**data, name: text}


async def told(data: Any, dialect: Dialect = Dialect.PYTHON) -> Report:
    return await report_of(data, dialect, rules=RULES)


@pytest.mark.parametrize("letter", LETTERS.values(), ids=LETTERS)
def test_escaped_size_is_the_length_of_escaped_json(letter: str) -> None:
    for data in (letter, [letter * 7, "a"], {letter: {"é" + letter: [1, 1.5, None, '\n"\\ \x01']}}, ""):
        assert json_text.escaped_size(json_text.dumps(data)) == size(data)


@pytest.mark.parametrize("letter", LETTERS.values(), ids=LETTERS)
async def test_context_up_to_the_limit_of_the_plane_stays_in_the_event_and_above_is_stored(letter: str) -> None:
    """Above it the plane drops it without a word, and the row has nothing of the result."""
    fits = filling(letter + " ", RULES.max_bytes, t="")
    report = await told(fits)
    assert size(report.context) == RULES.max_bytes
    assert report.upload is None
    assert parsed(report.response) == fits
    above = await told({"t": fits["t"] + "."})
    assert above.upload is not None
    assert json_text.loads(PLANE.whole_result(above.upload.data)) == {"t": fits["t"] + "."}
    assert above.context == {"_truncated": True}


async def test_what_the_plane_keeps_elsewhere_is_not_counted() -> None:
    """Rows are in the response alone, and the context says the plain values."""
    data = {"rows": ["слово " * 1000] * 8, "count": 8}
    assert size(data) > 200_000
    report = await told(data)
    assert (report.upload, report.context) == (None, {"count": 8})


async def test_rust_plane_counts_what_is_sent() -> None:
    report = await told({"t": "я" * 45_000}, Dialect.RUST)
    assert report.upload is None
    assert len(json_text.dumps(report.context)) < 102_400


@pytest.mark.parametrize("letter", LETTERS.values(), ids=LETTERS)
async def test_response_beside_a_reference_goes_out_up_to_the_limit_as_the_plane_counts(letter: str) -> None:
    fits = filling(letter + " ", RESPONSE_BYTES, t="", data=1)
    report = await told(fits)
    assert parsed(report.response) == fits
    assert (await told({**fits, "t": fits["t"] + "."})).response is None


@pytest.mark.parametrize("letter", LETTERS.values(), ids=LETTERS)
async def test_batch_with_the_largest_response_is_one_that_the_plane_takes(letter: str) -> None:
    report = await told(filling(letter + " ", RESPONSE_BYTES, t="", data=1))
    report.upload, report.reference = None, {"ref": STORED["ref"], "store": "kv"}
    transport = await tell(report)
    (body,) = [body for _, path, body, _ in transport.sent if path == "/api/events/batch"]
    assert RESPONSE_BYTES < size([event["payload"] for event in body["events"]]) <= BATCH_BYTES


@pytest.mark.parametrize("letter", LETTERS.values(), ids=LETTERS)
def test_rescued_result_is_a_context_up_to_the_limit_as_the_plane_counts(letter: str) -> None:
    fits = filling(letter, 102_400, t="")
    assert response_field({"status": "COMPLETED"}, fits) == {"result": {"status": "COMPLETED", "context": fits}}
    above = {"t": fits["t"] + "."}
    assert response_field({"status": "COMPLETED"}, above) == {"response": above}
