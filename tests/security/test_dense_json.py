"""JSON that takes many times its size in memory, and malformed answers."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from noetl_worker.errors import DocumentError, ToolError
from noetl_worker.testing import arun_tool
from noetl_worker.text import json_text

from .commands import peak_of

DENSE = b"[" + b"[]," * 5_000_000 + b"[]]"
OWN_ANSWER = """
import os, socket
data = memoryview({data})
for number in range(3, 64):
    try:
        socket.socket(fileno=os.dup(number))
    except OSError:
        continue
    while data:
        data = data[os.write(number, data):]
    break
os._exit(0)
"""
"""Code that writes the answer of its process itself, and ends it."""


@pytest.mark.parametrize("read", [json_text.loads, json_text.loads_exact])
@pytest.mark.parametrize("form", [bytes, bytes.decode, b'{"a": 12345678901234567890, "b": %b}'.__mod__])
def test_json_whose_values_would_take_the_memory_is_refused_before_any_is_made(
    read: Callable[[bytes | str], Any], form: Callable[[bytes], bytes | str]
) -> None:
    """62 MB of `[],[],...`: 2.2 GB, and 5 s of the loop."""
    data = form(DENSE)

    def refused() -> None:
        with pytest.raises(DocumentError, match=r"would take .* MiB of memory, over 512: pass on") as error:
            read(data)
        assert error.value.code == "json_size"

    assert peak_of(refused) < 4 * len(data)


def test_text_that_looks_like_dense_json_is_read() -> None:
    text = DENSE.decode() + '"\\' * 3
    assert json_text.loads(json_text.dumps({"text": text})) == {"text": text}


def test_json_of_few_values_is_read_whatever_its_size() -> None:
    assert json_text.loads(b'["' + b"x" * 30_000_000 + b'", 1]')[1] == 1


async def test_result_that_would_take_the_memory_fails_its_command() -> None:
    """The same as a command's result."""
    code = OWN_ANSWER.format(data="b'{\"result\": [' + b'[],' * 5_000_000 + b'[]]}'")
    ended = await _run("python", code)
    assert ended == ("python", ended[1])
    assert "the result of the Python code is 15,000," in ended[1]
    assert "fewer values, or a file" in ended[1]


@pytest.mark.parametrize("error", ['{"type": "E"}', '{"message": "m"}', "{}", '"text"', "[1]", "7"])
async def test_answer_with_an_error_of_no_known_form_is_said_to_be_unreadable(error: str) -> None:
    """Errors without `message`, or as plain text."""
    kind, message = await _run("python", OWN_ANSWER.format(data=f"b'{{\"error\": {error}}}'"))
    assert kind == "process"
    assert "without a result that can be read" in message


async def test_answer_that_is_nested_too_deeply_is_said_to_be_unreadable() -> None:
    """An answer nested too deeply."""
    kind, message = await _run("python", OWN_ANSWER.format(data="b'{\"result\": ' + b'[' * 5000 + b']' * 5000 + b'}'"))
    assert kind == "process"
    assert "without a result that can be read" in message


async def test_result_of_rhai_that_is_nested_too_deeply_is_named() -> None:
    """A `rhai` result nested too deeply."""
    kind, message = await _run("rhai", "let x = []; for i in 0..5000 { x = [x]; } x")
    assert kind == "resource"
    assert "nest values as deep" in message


async def _run(tool: str, code: str) -> tuple[str | None, str]:
    """The kind of a failure, and its text."""
    try:
        result = await arun_tool(tool, {"code": code})
    except ToolError as error:
        return error.kind, str(error)
    assert result.error is not None
    return result.error.kind, result.error.message
