"""Recorded values that the recording has cut, at their length again: as the playbooks made them."""

from __future__ import annotations

import re
from typing import Any

_TEXT = re.compile(r"(.*)<cut, (\d+) characters>", re.S)
_ITEMS = re.compile(r"<cut, (\d+) items>")
_LONGEST_WORD = 16


def uncut(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: uncut(inner) for key, inner in value.items()}
    if isinstance(value, list):
        cut = _ITEMS.fullmatch(str(value[-1])) if len(value) > 1 else None
        if cut is None:
            return [uncut(inner) for inner in value]
        kept = [uncut(inner) for inner in value[:-1]]
        return kept + [_numbered(kept[-1], len(kept) - 1, index) for index in range(len(kept), int(cut[1]))]
    if isinstance(value, str) and (cut := _TEXT.fullmatch(value)):
        return _repeated(cut[1], int(cut[2]))
    return value


def _numbered(item: Any, index: int, wanted: int) -> Any:
    """The item at another place of its list: a number that says where it stands is another one there."""
    if isinstance(item, dict):
        return {key: wanted if inner == index and key == "id" else inner for key, inner in item.items()}
    if isinstance(item, list):
        return [wanted if at == 0 and inner == index else inner for at, inner in enumerate(item)]
    return item


def _repeated(start: str, length: int) -> str:
    """What a text of one word says over and over; of any other text only its length is known."""
    for size in range(1, _LONGEST_WORD):
        word = start[:size]
        if start == (word * (len(start) // size + 1))[: len(start)]:
            return (word * (length // size + 1))[:length]
    return start.ljust(length, ".")
