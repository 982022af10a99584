"""A server or an author sends the worst input for a reader."""

from __future__ import annotations

import random
import tracemalloc
from collections.abc import Iterator

import pytest

from fuzz.documents import FRAMES, SHAPES, Document, document
from fuzz.readers import MOST_LAG_S, READERS, complaint, watched
from holds import HOLDS_TIMES

SIZE = 70_000
"""So much is read off the loop."""


@pytest.fixture(autouse=True)
def memory_is_watched() -> Iterator[None]:
    tracemalloc.start()
    yield
    tracemalloc.stop()


async def require_little(reader: str, given: Document) -> None:
    taken = await watched(reader, given)
    shown = f"{reader}, {given.data[:100]!r} by {given.piece}"
    assert complaint(given, taken) is None, shown
    if HOLDS_TIMES:
        assert taken.lag_s <= MOST_LAG_S, shown


@pytest.mark.heavy_on_loop(reason="the memory of each object is traced")
@pytest.mark.parametrize("reader", READERS)
async def test_worst_input_of_each_shape_is_read_or_refused_within_bounds(reader: str) -> None:
    """For each reader: deep, wide, dense, long words and texts, large or in tiny pieces; `make faults` tries all."""
    shapes = list(enumerate(SHAPES.values()))
    for number, shape in shapes if HOLDS_TIMES else shapes[[*READERS].index(reader) % 4 :: 4]:
        inner, frame = shape(SIZE), FRAMES[number % len(FRAMES)]
        whole, pieces = Document(inner, 65_536), Document(frame.replace(b"%b", inner), 11)
        await require_little(reader, pieces if number % 2 else whole)


@pytest.mark.heavy_on_loop(reason="the memory of each object is traced")
@pytest.mark.parametrize("reader", READERS)
async def test_any_input_is_read_or_refused_within_bounds(reader: str) -> None:
    """(no attack) Four random inputs for each reader; 10,000 are the night's."""
    for number in range(4):
        await require_little(reader, document(random.Random(f"suite:{reader}:{number}"), 1 << 16))
