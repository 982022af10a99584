"""Splitting of SQL into statements, for database drivers that accept parameters only with a single statement.

Use this module only if the server or the driver cannot split the text: NoETL's own splitters were wrong five times.
This splitter recognises Postgres' strings, E-strings, quoted names, dollar quotes, line comments and nested block
comments.
"""

from __future__ import annotations

import itertools
import re
from collections.abc import Iterator
from typing import Final

_TOKEN: Final = re.compile(
    r"""
      (?P<end>;)
    | (?P<line>--[^\n]*)
    | (?P<block>/\*)
    | (?P<escaped>(?<![\w$])[eE]'(?:[^'\\]|\\.|'')*(?:'|\Z))
    | '(?:[^']|'')*(?:'|\Z)
    | "(?:[^"]|"")*(?:"|\Z)
    | (?P<dollar>(?<![\w$])\$(?:[A-Za-z_\x80-\U0010ffff][\w]*)?\$)
    """,
    re.VERBOSE | re.DOTALL,
)
_WORD: Final = re.compile(r"[A-Za-z_]+")
_COMMENT_MARK: Final = re.compile(r"/\*|\*/")


def statements(text: str) -> list[str]:
    """Return the statements in `text`, without their semicolons. A statement that is only white space and comments is
    left out.

    An unclosed string, quoted name or comment extends to the end of the text. The server will report the mistake.
    """
    found: list[str] = []
    begin = position = 0
    has_code = False
    for mark, start, after in _marks(text):
        has_code = has_code or bool(text[position:start].strip())
        position = after
        if mark == "end":
            if has_code:
                found.append(text[begin:start].strip())
            begin, has_code = position, False
        elif mark == "quoted":
            has_code = True
    if has_code or text[position:].strip():
        found.append(text[begin:].strip())
    return found


def bare(text: str) -> str:
    """Return `text` with a blank in place of each string, quoted name and comment. A search for keywords then cannot
    match inside a value."""
    parts: list[str] = []
    position = 0
    for mark, start, after in _marks(text):
        parts += [text[position:start], ";" if mark == "end" else " "]
        position = after
    return "".join([*parts, text[position:]])


def first_word(text: str) -> str:
    """Return the first word of SQL in `text`, in capitals, or an empty text if there is none."""
    position = 0
    for _, start, after in itertools.chain(_marks(text), [("end", len(text), len(text))]):
        if word := _WORD.search(text, position, start):
            return word.group().upper()
        position = after
    return ""


def _marks(text: str) -> Iterator[tuple[str, int, int]]:
    """Yield each semicolon ("end"), comment ("comment") and string or quoted name ("quoted"), with its start and
    end."""
    position = 0
    while (match := _TOKEN.search(text, position)) is not None:
        position = match.end()
        mark = "end" if match["end"] else "comment" if match["line"] or match["block"] else "quoted"
        if match["block"]:
            position = _after_comment(text, position)
        elif match["dollar"]:
            close = text.find(match["dollar"], position)
            position = len(text) if close < 0 else close + len(match["dollar"])
        yield mark, match.start(), position


def _after_comment(text: str, position: int) -> int:
    depth = 1
    while depth:
        mark = _COMMENT_MARK.search(text, position)
        if mark is None:
            return len(text)
        depth += 1 if mark.group() == "/*" else -1
        position = mark.end()
    return position
