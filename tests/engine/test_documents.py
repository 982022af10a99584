"""JSON documents: limits, exactness, and that the fast way of the pure engine is its specification."""

from __future__ import annotations

import random
import sys
import threading
import time
from typing import Any

import pytest

from engine.hazards import NUMBERS, json_bytes
from noetl_worker.engine.pure import document
from noetl_worker.errors import DocumentError, EngineError
from noetl_worker.models import FitRules

SMALL = FitRules(max_bytes=1_000_000_000)


def fitted(engine: Any, data: bytes) -> bytes:
    """What a document is after a round trip through an engine."""
    body: bytes = engine.fit_result(data, SMALL).body
    return body


def refused(engine: Any, data: bytes) -> str:
    with pytest.raises(DocumentError) as caught:
        engine.fit_result(data, SMALL)
    code: str = caught.value.code
    return code


@pytest.mark.parametrize("depth", [1, 511, 512])
def test_nesting_within_the_limit_is_read(engine: Any, depth: int) -> None:
    arrays = b"[" * depth + b"]" * depth
    assert fitted(engine, arrays) == arrays
    objects = b'{"a":' * depth + b"1" + b"}" * depth
    assert fitted(engine, objects) == objects


@pytest.mark.parametrize("depth", [513, 100_000])
def test_nesting_over_the_limit_is_refused(engine: Any, depth: int) -> None:
    assert refused(engine, b"[" * depth + b"]" * depth) == "json_depth"
    assert refused(engine, b'{"a":' * depth + b"1" + b"}" * depth) == "json_depth"
    assert refused(engine, b"[" * depth) == "json_depth"


def test_error_says_where(engine: Any) -> None:
    with pytest.raises(DocumentError, match=r"^more than 512 nested arrays and objects at byte 512$"):
        engine.fit_result(b"[" * 513, SMALL)
    with pytest.raises(DocumentError, match=r"^expected ',' or '\}' at byte 10$"):
        engine.fit_result('{"é": 1.5]'.encode(), SMALL)


@pytest.mark.parametrize(
    ("data", "code"),
    [
        (b"NaN", "json_syntax"),
        (b"[Infinity]", "json_syntax"),
        (b"-Infinity", "json_syntax"),
        (b"1e999", "json_number"),
        (b"-1e999", "json_number"),
        (b"9" * 4301, "json_number"),
        (b'"\\ud800"', "json_surrogate"),
        (b'"\\udc00"', "json_surrogate"),
        (b'"\\ud83d\\ud83d"', "json_surrogate"),
        (b'"\xff"', "json_utf8"),
        (b'"\xed\xa0\x80"', "json_utf8"),
        (b'\xef\xbb\xbf"bom"', "json_syntax"),
        (b'"\x01"', "json_syntax"),
        (b"", "json_syntax"),
        (b"1 2", "json_syntax"),
        (b"[1,]", "json_syntax"),
        (b"{,}", "json_syntax"),
        (b'{"a" 1}', "json_syntax"),
        (b"{1:2}", "json_syntax"),
        (b"01", "json_syntax"),
        (b"1.", "json_syntax"),
        (b".5", "json_syntax"),
        (b"tru", "json_syntax"),
        (b"'a'", "json_syntax"),
        (b'"\\x"', "json_syntax"),
        (b'["\\ud800", NaN]', "json_surrogate"),
        (b'[NaN, "\\ud800"]', "json_syntax"),
        (b"[1e999, NaN]", "json_number"),
        (b"[NaN, 1e999]", "json_syntax"),
    ],
)
def test_first_thing_wrong_decides_the_code(engine: Any, data: bytes, code: str) -> None:
    assert refused(engine, data) == code


def test_digits_of_integers_are_kept(engine: Any) -> None:
    for text in (b"9" * 4300, b"-" + b"9" * 4300, b"18446744073709551616"):
        assert fitted(engine, text) == text


def test_ten_megabytes_are_read(engine: Any) -> None:
    row = b'{"id":12345,"name":"some words of text here","ok":true,"amount":12.5}'
    data = b"[" + b",".join([row] * (10_000_000 // len(row))) + b"]"
    fit = engine.fit_result(data, FitRules())
    assert fit.body == data
    assert fit.preview is not None
    assert len(fit.preview) < 4096


def test_result_in_which_nothing_is_replaced_is_not_held_twice(engine: Any) -> None:
    data = b'{"stdout":"one\\nsesame123"}'
    assert engine.fit_result(data, FitRules()).body is data
    assert engine.fit_result(data, FitRules(secrets=("sesame123",))).body == b'{"stdout":"one\\n[REDACTED]"}'


def test_large_inputs_of_every_call_give_what_small_ones_do(engine: Any) -> None:
    padding = b" " * 100_000
    assert engine.decide(b"1" + padding, "eq", b"1" + padding) is True
    assert engine.evaluate(b'{"left":"a","right":1}' + padding, b'{"a":1}', None) is True
    table = engine.compile_cases(b'[{"when":[{"left":"{{ a }}","right":1}],"then":"continue"}]' + padding)
    assert table.match(b"{}" + padding, None).resume(b"1" + padding).index == 0
    assert engine.redact_text("a " * 50_000 + "hunter2", ("hunter2",)).endswith("[REDACTED]")


def test_fast_way_of_the_pure_engine_is_its_specification() -> None:
    draw = random.Random(20_26)
    for text in [*(number.encode() for number in NUMBERS), *(json_bytes(draw) for _ in range(4_000))]:
        assert _outcome(document.parse, text) == _outcome(_specified, text), text


def _specified(data: bytes) -> Any:
    try:
        text = data.decode("utf-8")
    except UnicodeDecodeError as error:
        raise DocumentError("json_utf8", f"not UTF-8 at byte {error.start}") from None
    return document.DocumentReader(text).document()


def _outcome(parse: Any, data: bytes) -> tuple[str, str]:
    try:
        return "value", repr(parse(data))
    except EngineError as error:
        return error.code, str(error)


@pytest.mark.rust
def test_other_threads_run_while_a_large_document_is_fitted(engines: tuple[Any, Any]) -> None:
    data = b"[" + b",".join([b'{"id":12345,"name":"some words of text"}'] * 400_000) + b"]"
    assert any(_turns_meanwhile(engines[1], data) for _ in range(20)), "holding the lock, it gives nobody a turn"


def _turns_meanwhile(engine: Any, data: bytes) -> int:
    """How often this thread had its turn while another one fitted `data`: nobody is asked to give the lock away."""
    phase: list[str] = []

    def fit() -> None:
        phase.append("begun")
        engine.fit_result(data, SMALL)
        phase.append("done")

    thread, interval, turns = threading.Thread(target=fit), sys.getswitchinterval(), 0
    sys.setswitchinterval(1000.0)
    try:
        thread.start()
        while len(phase) < 2:
            turns += len(phase)
            time.sleep(0)
    finally:
        sys.setswitchinterval(interval)
        thread.join()
    return turns
