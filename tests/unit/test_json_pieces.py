"""JSON that is read a piece at a time gives the values that it gives when it is read at once."""

from __future__ import annotations

import asyncio
import json
import random
import threading
from collections.abc import Callable
from typing import Any

import pytest

from noetl_worker.errors import DocumentError
from noetl_worker.process.json_pieces import loads_in_pieces
from noetl_worker.process.threads import off_loop, take_turns
from noetl_worker.text import json_text
from patience import PATIENCE_S

LEAVES: tuple[Any, ...] = (
    1,
    -2.5,
    1e30,
    True,
    None,
    "",
    "a,b]",
    "\\",
    '"',
    '\\"',
    "é😀\n",
    "\u2028",
    "x" * 200,
    {},
    [],
)
NAMES = ("a", "é", 'k"q', "😀")
BROKEN = (b",", b"]", b"[", b"}", b"{", b'"', b":", b"\\", b"\xff", b"0", b" ", b"\\ud83d")


def made_up(rng: random.Random, depth: int) -> Any:
    kind = rng.random()
    if depth and kind < 0.3:
        return [made_up(rng, depth - 1) for _ in range(rng.choice((0, 1, 2, 5, 9)))]
    if depth and kind < 0.6:
        names = [rng.choice(NAMES) + str(rng.randrange(9)) for _ in range(rng.choice((0, 1, 3, 6)))]
        return {name: made_up(rng, depth - 1) for name in names}
    return rng.choice(LEAVES)


def spelled(rng: random.Random, value: Any) -> bytes:
    """Its text, or one that has been damaged."""
    text = json.dumps(value, ensure_ascii=rng.random() < 0.5, indent=rng.choice((None, None, 1))).encode()
    if rng.random() < 0.4:
        at, is_replaced = rng.randrange(len(text)), rng.random() < 0.6
        text = text[:at] + rng.choice((b"", *BROKEN)) + text[at + is_replaced :]
    return text


def strict(data: bytes) -> Any:
    """As the standard library, but half of a surrogate pair is refused."""
    value = json.loads(data)
    json.dumps(value, ensure_ascii=False).encode()
    return value


def outcome(read: Callable[[bytes], Any], data: bytes) -> str:
    try:
        return repr(read(data))
    except ValueError:
        return "no JSON"


def test_pieces_give_the_values_and_the_refusals_of_a_text_read_at_once() -> None:
    rng = random.Random(43)
    for _ in range(1000):
        data = spelled(rng, made_up(rng, rng.choice((1, 3, 5))))
        assert outcome(lambda given: loads_in_pieces(given, strict, 64), data) == outcome(strict, data), data


def test_large_text_of_each_shape_is_read_as_the_standard_library_does() -> None:
    row = {"id": 12345, "name": 'ab\\"c', "tags": ["a", "b"], "x": 1.5, "deep": {"y": [1, {"z": None}]}}
    shapes: list[Any] = [
        {"rows": [row] * 20_000, "next": None},
        {str(number): row for number in range(20_000)},
        [[[row] * 5000, "é\n" * 300_000], "tail"],
        {"k" * 200_000: list(range(400_000))},
        [2**70] * 100_000,
    ]
    for shape in shapes:
        data = json.dumps(shape).encode()
        assert json_text.loads_exact(data) == shape


@pytest.mark.parametrize("text", [b"[1,]", b'{"a":1,}', b"[1 2]", b"[", b'["a', b"[]]", b'{"a" 1}', b'["\\ud800"]'])
def test_large_text_that_is_no_json_is_refused(text: bytes) -> None:
    with pytest.raises(DocumentError, match="not JSON") as error:
        json_text.loads(b'[["pad"' + b",[]" * 200_000 + b"]," + text + b"]")
    assert error.value.code == "json_syntax"


async def test_work_in_a_thread_ends_when_nobody_waits_for_it() -> None:
    ended, begun = threading.Event(), threading.Event()

    def work() -> None:
        begun.set()
        try:
            while True:
                take_turns()
        finally:
            ended.set()

    task = asyncio.ensure_future(off_loop(1 << 20, work))
    await asyncio.to_thread(begun.wait, PATIENCE_S)
    task.cancel()
    await asyncio.wait({task})
    assert await asyncio.to_thread(ended.wait, PATIENCE_S)


@pytest.mark.parametrize("damage", [b"\xff", b":", b"]]", b'"'])
def test_text_that_is_not_json_is_given_up_after_a_few_windows(damage: bytes) -> None:
    """Its members were read one by one, each for the cost of a window: 13 s for 180 kB."""
    pieces: list[bytes] = []

    def read(piece: bytes) -> Any:
        pieces.append(piece)
        return json.loads(piece)

    members = b",".join([b"[]"] * 20_000)
    with pytest.raises(ValueError, match=r".+"):
        loads_in_pieces(b'{"key":[%b,[%b],%b]}' % (members, damage, members), read)
    assert len(pieces) < 20
