"""Encoded secrets that a program broke into lines: `base64`, `xxd`, `xxd -p`, `od -tx1`, `hexdump -C`.

The lines that hold one together are given as texts to look for, so that the engines know nothing of this. Not covered,
since there is no end to them: words of several bytes (`od -x`), `od -c`, base64 in lines under 40 characters.
"""

from __future__ import annotations

import re
from bisect import bisect_left, bisect_right
from collections.abc import Iterator, Sequence
from itertools import accumulate
from typing import Final

from noetl_worker import json_text
from noetl_worker.models.wire import JsonValue, texts_in

_DUMPED: Final = re.compile(
    r"[0-9a-fA-F]{6,16}: ((?:[0-9a-fA-F]{2,8} )+) .*"  # xxd
    r"|(?:[0-9a-fA-F]{6,16})?((?: {1,2}[0-9a-fA-F]{2})+) *(?:[|>].*)?"  # od, hexdump
)
_WORD: Final = re.compile(r"[A-Za-z0-9+/=_-]+")
_MAY_BE_BROKEN: Final = re.compile(
    rb"\\n(?:(?<=[\w+/-]{40}\\n)|(?<=[\w+/-]{40}\\r\\n)|(?=(?:[0-9a-fA-F]{6,16}:?)? {1,2}[0-9a-fA-F]{2,8} ))"
)
_MAY_BE_ONE_LINE: Final = re.compile(rb'"(?:0{7,16}:?)? {1,2}[0-9a-fA-F]{2,8} ')
"""A dump of up to 16 bytes, or the first line of a longer one."""


def lines_in_text(text: str, secrets: Sequence[str]) -> Iterator[str]:
    """The lines of a text over which one of these secrets is spread, or that are a dump of it."""
    if "\n" not in text and _DUMPED.fullmatch(text) is None:
        return
    pieces = _pieces(text)
    joined = "".join(digits for digits, _ in pieces)
    ends = list(accumulate(len(digits) for digits, _ in pieces))
    for secret in secrets:
        at = joined.find(secret)
        while at >= 0:
            end = at + len(secret)
            lines = "\n".join(line for _, line in pieces[bisect_right(ends, at) : bisect_left(ends, end) + 1])
            if secret not in lines:
                yield lines
            at = joined.find(secret, end)


def lines_in_value(root: JsonValue, secrets: Sequence[str]) -> Iterator[str]:
    """Of each text in a JSON value."""
    for text in texts_in(root):
        yield from lines_in_text(text, secrets)


def lines_in_document(data: bytes, secrets: Sequence[str]) -> Iterator[str]:
    """Of each text in compact JSON. Most documents are only looked through for what a dump begins with."""
    if b"\\" not in data or b"\\n" not in data:
        return
    if _MAY_BE_BROKEN.search(data) is None and _MAY_BE_ONE_LINE.search(data) is None:
        return
    bare = data.replace(b"\\\\", b"\0\0").replace(b'\\"', b"\0\0")  # a quote ends a text, `\n` is a line break
    for pattern in (_MAY_BE_BROKEN, _MAY_BE_ONE_LINE):
        end = 0
        for found in pattern.finditer(bare):
            if found.start() >= end:
                start, end = bare.rfind(b'"', 0, found.start() + 1) + 1, bare.find(b'"', found.end())
                yield from lines_in_text(json_text.loads(b'"%b"' % data[start:end]), secrets)


def _pieces(text: str) -> list[tuple[str, str]]:
    """Of each line its digits, and what is to be taken out for them.

    Of a line with other words the last one may begin what goes on in the next, and the first one end it.
    """
    pieces: list[tuple[str, str]] = []
    for line in text.split("\n"):
        bare = line.rstrip("\r")
        if (dumped := _DUMPED.fullmatch(bare)) is not None:
            pieces.append((dumped[dumped.lastindex or 1].replace(" ", ""), line))
        elif _WORD.fullmatch(bare):
            pieces.append((bare, line))
        else:
            first, last = (bare.split(None, 1) or [""])[0], (bare.rsplit(None, 1) or [""])[-1]
            pieces.append((first, line[: line.index(first) + len(first)]))
            pieces += (("\0", ""), (last, line[line.rindex(last) :]))
    return pieces
