"""A search for encoded secrets that a program broke into lines: `base64`, `xxd`, `xxd -p`, `od -tx1`, `hexdump -C`.

Each line with a part of such a secret is treated as a secret too. Other encodings are not covered, because their number
is unlimited: words of several bytes (`od -x`), `od -c`, base64 in lines under 40 characters.

Rust counterpart: rust/engine/src/wrapped.rs.
"""

from __future__ import annotations

import re
from bisect import bisect_left, bisect_right
from collections.abc import Iterable, Iterator
from itertools import accumulate
from typing import Final, NamedTuple

from noetl_worker.engine.pure.secrets import Secrets
from noetl_worker.models.wire import JsonValue

_DUMPED: Final = re.compile(
    r"[0-9a-fA-F]{6,16}: ((?:[0-9a-fA-F]{2,8} )+) .*"  # xxd
    r"|(?:[0-9a-fA-F]{6,16})?((?: {1,2}[0-9a-fA-F]{2})+) *(?:[|>].*)?"  # od, hexdump
)
_WORD: Final = re.compile(r"[A-Za-z0-9+/=_-]+")
_BLANKS: Final = " \t\r\v\f"
_FIRST_BLANK: Final = re.compile(r"[ \t\r\v\f]")
_MAY_BE_BROKEN: Final = re.compile(
    r"\n(?:(?<=[\w+/-]{40}\n)|(?<=[\w+/-]{40}\r\n)|(?=(?:[0-9a-fA-F]{6,16}:?)? {1,2}[0-9a-fA-F]{2,8} ))", re.ASCII
)
_MAY_BE_ONE_LINE: Final = re.compile(r"(?:0{7,16}:?)? {1,2}[0-9a-fA-F]{2,8} ")
"""Pattern of a hex dump's first line. A text of one line is searched for a dump only if this pattern matches."""


class _Piece(NamedTuple):
    """Part of a text's line that may be base64 or hex. A secret may go over several lines, so redaction searches the
    joined parts."""

    digits: str
    """Characters of this part of a line that may be base64 or hex. The addresses and blanks of a hex dump are left
    out."""
    start: int
    """Position in the whole text at which the redaction begins if a secret begins in this part."""
    end: int
    """Position in the whole text at which the redaction stops if a secret ends in this part."""
    is_dump: bool = False
    """True for a line of a hex dump."""


def with_lines(secrets: Secrets, texts: Iterable[str]) -> Secrets:
    """Return `secrets` plus the lines of `texts` that contain parts of a secret broken into lines, so that these lines
    are replaced too."""
    if not secrets.are_anywhere:
        return secrets
    lines = {line for text in texts for line in _lines_in(text, secrets)}
    return secrets.and_anywhere(lines) if lines else secrets


def broken_texts(root: JsonValue) -> Iterator[str]:
    """Yield the strings and keys of a document that may contain base64 or a hex dump broken into lines."""
    waiting = [root]
    while waiting:
        value = waiting.pop()
        if isinstance(value, str):
            if _MAY_BE_ONE_LINE.match(value) or ("\n" in value and _MAY_BE_BROKEN.search(value)):
                yield value
        elif isinstance(value, dict):
            waiting += value
            waiting += value.values()
        elif isinstance(value, list):
            waiting += value


def _lines_in(text: str, secrets: Secrets) -> Iterator[str]:
    """Yield the parts of a text to redact, as strings. Each part is several lines that together contain an encoded
    secret, or lines of a hex dump with a secret. Overlapping parts are joined."""
    if "\n" not in text and _DUMPED.fullmatch(text) is None:
        return
    pieces = _pieces(text)
    joined = "".join(piece.digits for piece in pieces)
    ends = list(accumulate(len(piece.digits) for piece in pieces))
    start = end = 0
    for first_digit, last_digit in secrets.anywhere_in(joined):
        first, last = bisect_right(ends, first_digit), bisect_left(ends, last_digit)
        if first == last and not pieces[first].is_dump:
            continue  # the secret is within one line and found without this module
        if pieces[first].start >= end:
            if end:
                yield text[start:end]
            start = pieces[first].start
        end = max(end, pieces[last].end)
    if end:
        yield text[start:end]


def _pieces(text: str) -> list[_Piece]:
    """Return the parts of a text's lines that may belong to a base64 or hex text that was broken into several lines.

    A line with one word, or a line of a hex dump, is one part. A line with several words gives two parts. The first
    word may end a broken text, and the last word may begin a broken text.
    """
    pieces: list[_Piece] = []
    start = 0
    for line in text.split("\n"):
        end, bare = start + len(line), line.rstrip("\r")
        if _WORD.fullmatch(bare):
            pieces.append(_Piece(bare, start, end))
        elif (dumped := _DUMPED.fullmatch(bare)) is not None:
            pieces.append(_Piece(dumped[dumped.lastindex or 1].replace(" ", ""), start, end, is_dump=True))
        else:
            words = bare.strip(_BLANKS)
            first = _FIRST_BLANK.split(words, 1)[0]
            last = words[max(words.rfind(blank) for blank in _BLANKS) + 1 :]
            first_end, last_start = line.index(first) + len(first), line.rindex(last)
            pieces += (
                _Piece(first, start, start + first_end),
                _Piece("\0", end, end),
                _Piece(last, start + last_start, end),
            )
        start = end + 1
    return pieces
