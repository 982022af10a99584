"""The Rust regular-expression dialect on top of `re`: translate what both have, refuse what the Rust crate refuses.

Twin: the `regex` crate. Only "is there a match" is asked, so groups do not capture and greediness does not matter.
Where the two still differ, the code here is `regex_unsupported` or the row below says what to expect:

| pattern or input                                     | Rust engine      | here                         |
|------------------------------------------------------|------------------|------------------------------|
| script and other named properties (`\\p{Greek}`)      | known ones match | `regex_unsupported`          |
| `(?R)` CRLF mode, `(?-u)`, `\\b{start-half}`          | supported        | `regex_unsupported`          |
| set operations or nested negation under `(?i)`       | supported        | `regex_unsupported`          |
| compiled size over 10 MiB                            | `invalid_regex`  | estimated; may be accepted   |
| nested repetition as in `(a+)+$` on a long text      | linear time      | may take exponential time    |
| characters newer than the interpreter's Unicode      | crate's tables   | `unicodedata`'s tables       |
| case folding of a few letters (U+0130, U+1E9E)       | simple folding   | `re`'s folding               |
"""

from __future__ import annotations

import re
import string
from dataclasses import dataclass, field, replace
from typing import Final, NoReturn

from noetl_worker.engine.pure import code_points
from noetl_worker.engine.pure.code_points import Ranges
from noetl_worker.errors import ConditionError

__all__ = ["Pattern", "compile_pattern"]

_NEST_LIMIT: Final = 250
_SIZE_LIMIT: Final = 300_000
"""Expanded characters; the crate's limit is 10 MiB of compiled program, about this many single letters."""
_MAX_COUNT: Final = 2**32 - 1
_FLAGS: Final = "imsURux"
_FLAGS_ITEM: Final = ("", -1, 0)  # `(?i)` by itself: part of the branch, nothing that can be repeated
_CONTROL: Final = {"a": "\a", "f": "\f", "t": "\t", "n": "\n", "r": "\r", "v": "\v"}
_HEX_LENGTH: Final = {"x": 2, "u": 4, "U": 8}
_ESCAPABLE: Final = frozenset(string.punctuation + " ") - {"<", ">"}
_PATTERN_SPACE: Final = "\t\n\v\f\r \x85\u200e\u200f\u2028\u2029"


class Pattern:
    """A compiled pattern. ASCII texts use small classes; the Unicode form is built when a text needs it."""

    __slots__ = ("_ascii", "_source", "_unicode")

    def __init__(self, source: str) -> None:
        self._source = source
        self._ascii = _compile(source, only_ascii=True)
        self._unicode: re.Pattern[str] | None = None

    def is_found_in(self, text: str) -> bool:
        if text.isascii():
            return self._ascii.search(text) is not None
        if self._unicode is None:
            self._unicode = _compile(self._source, only_ascii=False)
        return self._unicode.search(text) is not None


def compile_pattern(source: str) -> Pattern:
    """Compile a pattern of the Rust dialect.

    Raises:
        ConditionError: `invalid_regex` where the Rust crate refuses it, `regex_unsupported` where only this engine
            does; the text starts with `Invalid regex: `.
    """
    return Pattern(source)


def _compile(source: str, *, only_ascii: bool) -> re.Pattern[str]:
    translated = _Translator(source, only_ascii).pattern()
    try:
        return re.compile(translated)
    except (re.error, RecursionError, OverflowError) as error:
        raise ConditionError(
            "regex_unsupported", f"Invalid regex: the Python engine cannot compile it: {error}"
        ) from error


@dataclass(frozen=True, slots=True)
class _Modes:
    ignore_case: bool = False
    multi_line: bool = False
    dot_all: bool = False
    swap_greed: bool = False
    verbose: bool = False


@dataclass(slots=True)
class _Group:
    """An open group: the modes to go back to, finished branches, and the items of the current branch."""

    outer_modes: _Modes
    branches: list[str] = field(default_factory=list)
    items: list[tuple[str, int, int]] = field(default_factory=list)  # source, depth, expanded size
    depth: int = 0
    size: int = 0


class _Translator:
    def __init__(self, source: str, only_ascii: bool) -> None:
        self._source = source
        self._at = 0
        self._only_ascii = only_ascii
        self._modes = _Modes()
        self._groups = [_Group(self._modes)]
        self._names: set[str] = set()

    def pattern(self) -> str:
        while self._at < len(self._source):
            self._item()
        if len(self._groups) > 1:
            self._refuse("unclosed group")
        return self._close()[0]

    # ── items ───────────────────────────────────────────────────────────────────────────────────

    def _item(self) -> None:
        char = self._source[self._at]
        if self._modes.verbose and self._skip_verbose(char):
            return
        if char == "(":
            self._open()
        elif char == ")":
            if len(self._groups) == 1:
                self._refuse("unopened group")
            self._at += 1
            modes = self._groups[-1].outer_modes
            self._add(*self._close())
            self._modes = modes
        elif char == "|":
            self._at += 1
            self._end_branch()
        elif char in "*+?{":
            self._repeat(char)
        elif char == "[":
            self._bracket()
        else:
            self._at += 1
            self._add_atom(char)

    def _add_atom(self, char: str) -> None:
        if char == "\\":
            self._escape()
        elif char == ".":
            self._add("(?s:.)" if self._modes.dot_all else r"[^\n]")
        elif char == "^":
            self._add("(?m:^)" if self._modes.multi_line else r"\A")
        elif char == "$":
            self._add("(?m:$)" if self._modes.multi_line else r"\Z")
        else:
            self._add_literal(char)

    def _add(self, source: str, depth: int = 0, size: int = 1) -> None:
        self._groups[-1].items.append((source, depth, size))

    def _add_literal(self, char: str) -> None:
        escaped = re.escape(char)
        self._add(f"(?i:{escaped})" if self._modes.ignore_case and char.lower() != char.upper() else escaped)

    def _add_ranges(self, ranges: Ranges, *, negated: bool = False) -> None:
        inner = code_points.as_class(ranges)
        if not inner:
            self._add("(?s:.)" if negated else "(?!)")
            return
        source = f"[^{inner}]" if negated else f"[{inner}]"
        self._add(f"(?i:{source})" if self._modes.ignore_case else source)

    def _skip_verbose(self, char: str) -> bool:
        if char in _PATTERN_SPACE:
            self._at += 1
            return True
        if char == "#":
            end = self._source.find("\n", self._at)
            self._at = len(self._source) if end < 0 else end + 1
            return True
        return False

    # ── groups ──────────────────────────────────────────────────────────────────────────────────

    def _open(self) -> None:
        rest = self._source[self._at + 1 : self._at + 4]
        outer = self._modes
        if rest.startswith(("?=", "?!", "?<=", "?<!")):
            self._refuse("look-around is not supported")
        if rest.startswith(("?P<", "?<")):
            self._at += 4 if rest.startswith("?P<") else 3
            self._name()
        elif rest.startswith("?"):
            self._at += 2
            if not self._read_flags():
                self._add(*_FLAGS_ITEM)
                return
        else:
            self._at += 1
        self._groups.append(_Group(outer))

    def _name(self) -> None:
        end = self._source.find(">", self._at)
        name = self._source[self._at : end]
        rest_ok = all(char.isalnum() or char in "_.[]" for char in name[1:])
        if end < 0 or not name or not (name[0] == "_" or name[0].isalpha()) or not rest_ok or name in self._names:
            self._refuse("a capture group's name is empty, malformed or used twice")
        self._names.add(name)
        self._at = end + 1

    def _read_flags(self) -> bool:
        """Read `flags:` (True: a group opens) or `flags)` (False: they hold until the current group ends)."""
        seen: set[str] = set()
        modes, on = self._modes, True
        while True:
            last, char = self._source[self._at - 1], self._source[self._at : self._at + 1]
            self._at += 1
            if char and char in ":)":
                if last == "-" or (char == ")" and not seen):
                    self._refuse("flags are missing")
                self._modes = modes
                return char == ":"
            if char == "-" and on:
                on = False
            elif char and char in _FLAGS and char not in seen:
                seen.add(char)
                modes = self._with_flag(modes, char, on)
            else:
                self._refuse("unknown or repeated flag, or an unclosed group")

    def _with_flag(self, modes: _Modes, flag: str, on: bool) -> _Modes:
        if (flag == "R" and on) or (flag == "u" and not on):
            self._unsupported(f"flag {flag}")
        names = {"i": "ignore_case", "m": "multi_line", "s": "dot_all", "U": "swap_greed", "x": "verbose"}
        return replace(modes, **{names[flag]: on}) if flag in names else modes

    def _end_branch(self) -> None:
        group = self._groups[-1]
        depth = max((depth for _, depth, _ in group.items), default=0)
        group.depth = max(group.depth, depth + (len(group.items) > 1))
        group.size += sum(size for _, _, size in group.items)
        group.branches.append("".join(source for source, _, _ in group.items))
        group.items = []

    def _close(self) -> tuple[str, int, int]:
        self._end_branch()
        group = self._groups.pop()
        depth = group.depth + (len(group.branches) > 1) + bool(self._groups)
        if depth > _NEST_LIMIT:
            self._refuse(f"nested deeper than {_NEST_LIMIT}")
        return f"(?:{'|'.join(group.branches)})", depth, max(group.size, 1)

    # ── repetition ──────────────────────────────────────────────────────────────────────────────

    def _repeat(self, char: str) -> None:
        if not self._groups[-1].items or self._groups[-1].items[-1] == _FLAGS_ITEM:
            self._refuse("repetition operator without an expression")
        if char == "{":
            low, high = self._counts()
        else:
            self._at += 1
            low, high = {"*": (0, None), "+": (1, None), "?": (0, 1)}[char]
        if self._modes.verbose:
            while self._at < len(self._source) and self._skip_verbose(self._source[self._at]):
                pass
        if self._source.startswith("?", self._at):
            self._at += 1
        source, depth, size = self._groups[-1].items.pop()
        expanded = size * max(low if high is None else high, 1)
        if depth + 1 > _NEST_LIMIT or expanded > _SIZE_LIMIT:
            self._refuse("too deeply nested or too large when expanded")
        counts = f"{{{low},{'' if high is None else high}}}"
        self._add(f"(?:{source}){counts}", depth + 1, expanded)

    def _counts(self) -> tuple[int, int | None]:
        end = self._source.find("}", self._at)
        if end < 0:
            self._refuse("unclosed counted repetition")
        low_text, comma, high_text = self._source[self._at + 1 : end].partition(",")
        low = self._count(low_text)
        high = low if not comma else None if not high_text.strip() else self._count(high_text)
        if high is not None and low > high:
            self._refuse("counted repetition with its ends swapped")
        self._at = end + 1
        return low, high

    def _count(self, text: str) -> int:
        digits = text.strip()
        if not digits or not digits.isascii() or not digits.isdigit() or int(digits[:12]) > _MAX_COUNT:
            self._refuse("a repetition count is no number")
        return int(digits[:12])

    # ── escapes ─────────────────────────────────────────────────────────────────────────────────

    def _escape(self) -> None:
        """After the backslash, outside brackets."""
        char = self._source[self._at : self._at + 1]
        if char in ("b", "B", "<", ">"):
            self._at += 1
            if char == "b" and self._source.startswith("{", self._at):
                self._unsupported("\\b{...}")
            self._add(self._boundary(char))
        elif char in ("A", "z"):
            self._at += 1
            self._add(r"\A" if char == "A" else r"\Z")
        elif char in tuple("dDsSwWpP"):
            ranges, negated = self._class_escape(char)
            self._add_ranges(ranges, negated=negated)
        else:
            self._add_literal(self._literal_escape(char))

    def _boundary(self, kind: str) -> str:
        word = f"[{code_points.as_class(code_points.perl('w', self._only_ascii))}]"
        starts, ends = f"(?<!{word})(?={word})", f"(?<={word})(?!{word})"
        if kind == "<":
            return starts
        if kind == ">":
            return ends
        if kind == "b":
            return f"(?:{starts}|{ends})"
        return f"(?:(?<={word})(?={word})|(?<!{word})(?!{word}))"

    def _class_escape(self, char: str) -> tuple[Ranges, bool]:
        """Read \\d \\s \\w \\p and their negations; the cursor is at the letter."""
        self._at += 1
        if char in "dswDSW":
            return code_points.perl(char.lower(), self._only_ascii), char.isupper()
        negated = char == "P"
        if self._source.startswith("{", self._at):
            end = self._source.find("}", self._at)
            if end < 0:
                self._refuse("unclosed Unicode class")
            name = self._source[self._at + 1 : end]
            self._at = end + 1
        else:
            name = self._source[self._at : self._at + 1]
            self._at += 1
        ranges = code_points.named_property(name)
        if ranges is None:
            self._unsupported(f"Unicode property {name!r}")
        return ranges, negated

    def _literal_escape(self, char: str) -> str:
        if char in _HEX_LENGTH:
            return self._hexadecimal(char)
        self._at += 1
        if char in _CONTROL:
            return _CONTROL[char]
        if char in _ESCAPABLE and char:
            return char
        return self._refuse("unrecognized escape" if char else "a backslash at the end")

    def _hexadecimal(self, kind: str) -> str:
        self._at += 1
        if self._source.startswith("{", self._at):
            end = self._source.find("}", self._at)
            digits = self._source[self._at + 1 : end] if end >= 0 else ""
            self._at = end + 1
        else:
            digits = self._source[self._at : self._at + _HEX_LENGTH[kind]]
            self._at += _HEX_LENGTH[kind]
            if len(digits) != _HEX_LENGTH[kind]:
                self._refuse("an incomplete hexadecimal escape")
        if not digits or not all(digit in string.hexdigits for digit in digits):
            self._refuse("a hexadecimal escape without digits")
        value = int(digits[:16], 16)
        if value > 0x10FFFF or 0xD800 <= value <= 0xDFFF or len(digits) > 16:
            self._refuse("a hexadecimal escape that is no character")
        return chr(value)

    # ── bracketed classes ───────────────────────────────────────────────────────────────────────

    def _bracket(self) -> None:
        ranges, negated, is_plain = self._class()
        if self._modes.ignore_case and not is_plain:
            self._unsupported("set operations under (?i)")
        self._add_ranges(ranges, negated=negated)

    def _class(self, level: int = 1) -> tuple[Ranges, bool, bool]:
        """Read a class from its `[`; returns (ranges, negated, without operations or nested negation)."""
        if level > _NEST_LIMIT:
            self._refuse(f"nested deeper than {_NEST_LIMIT}")
        self._at += 1
        negated = self._source.startswith("^", self._at)
        self._at += negated
        items: Ranges = self._leading_dashes()
        left: Ranges | None = None
        operation, is_plain = "", True
        is_first = not items
        while True:
            self._class_space()
            if self._at >= len(self._source):
                self._refuse("unclosed character class")
            if self._source[self._at] == "]" and not is_first:
                break
            next_two = self._source[self._at : self._at + 2]
            if next_two in ("&&", "--", "~~"):
                left = items if left is None else code_points.combine(operation, left, items)
                operation, items, is_plain = next_two, [], False
                self._at += 2
                is_first = False
                continue
            is_plain &= self._class_item(items, level)
            is_first = False
        self._at += 1
        whole = items if left is None else code_points.combine(operation, left, items)
        return code_points.normalized(whole), bool(negated), is_plain

    def _leading_dashes(self) -> Ranges:
        """Any number of dashes at the start are themselves, and no operator."""
        dashes: Ranges = []
        self._class_space()
        while self._source.startswith("-", self._at):
            dashes.append((ord("-"), ord("-")))
            self._at += 1
            self._class_space()
        return dashes

    def _class_item(self, items: Ranges, level: int) -> bool:
        """Read one member into `items`; False when it is a nested negation."""
        if self._source[self._at] == "[":
            named = code_points.posix(self._source, self._at)
            if named is not None:
                ranges, self._at = named
                items.extend(ranges)
                return True
            ranges, negated, is_plain = self._class(level + 1)
            items.extend(code_points.complement(ranges) if negated else ranges)
            return is_plain and not negated
        low = self._class_char()
        self._class_space()
        is_range = self._source.startswith("-", self._at) and self._source[self._at + 1 : self._at + 2] not in (
            "]",
            "-",
            "",
        )
        if not isinstance(low, str):
            if is_range:
                self._refuse("a character range that starts with a class")
            items.extend(low)
            return True
        high: str | Ranges = low
        if is_range:
            self._at += 1
            self._class_space()
            high = self._class_char()
        if not isinstance(high, str) or low > high:
            self._refuse("a character range with no or swapped ends")
        items.append((ord(low), ord(high)))
        return True

    def _class_char(self) -> str | Ranges:
        char = self._source[self._at : self._at + 1]
        self._at += 1
        if char != "\\":
            return char
        letter = self._source[self._at : self._at + 1]
        if letter in tuple("dDsSwWpP"):
            ranges, negated = self._class_escape(letter)
            return code_points.complement(ranges) if negated else ranges
        return self._literal_escape(letter)

    def _class_space(self) -> None:
        while self._modes.verbose and self._at < len(self._source) and self._skip_verbose(self._source[self._at]):
            pass

    # ── refusals ────────────────────────────────────────────────────────────────────────────────

    def _refuse(self, what: str) -> NoReturn:
        raise ConditionError("invalid_regex", f"Invalid regex: {what}, at character {self._at}")

    def _unsupported(self, what: str) -> NoReturn:
        text = f"Invalid regex: {what} needs the Rust engine, at character {self._at}"
        raise ConditionError("regex_unsupported", text)
