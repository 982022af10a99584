"""The parser of Rust's regular-expression dialect. It refuses every pattern that the Rust crate refuses.

Rust counterpart: the parser of the `regex` crate. Conditions only ask whether a pattern matches, so groups do not
capture and greediness does not matter. The two engines differ in the rows below; `regex_unsupported` is an error code:

| pattern or input                                              | Rust engine           | this module            |
|---------------------------------------------------------------|-----------------------|------------------------|
| script and other named properties (`\\p{Greek}`)               | known ones match      | `regex_unsupported`    |
| `(?R)` CRLF mode, `(?-u)`, `\\b{start-half}`                   | supported             | `regex_unsupported`    |
| a pattern with a class (`\\w`), compiled size of 8 to 10 MiB   | the exact size counts | `regex_unsupported`    |
| a search that needs over a million steps to create its states | supported             | `regex_unsupported`    |
| characters newer than the interpreter's Unicode               | crate's tables        | `unicodedata`'s tables |
"""

from __future__ import annotations

import string
from dataclasses import dataclass, field, replace
from typing import Final, NoReturn, TypeAlias

from noetl_worker.engine.pure import code_points, regex_code
from noetl_worker.engine.pure.code_points import Ranges
from noetl_worker.engine.pure.regex_automaton import KEPT, Automaton
from noetl_worker.engine.pure.regex_code import Piece
from noetl_worker.errors import ConditionError

_NEST_LIMIT: Final = 250
_MAX_COUNT: Final = 2**32 - 1
_FLAGS: Final = "imsURux"
_FLAGS_ITEM: Final = Piece([], -1, 0)  # stands for `(?i)` alone, which cannot be repeated
_CONTROL: Final = {"a": "\a", "f": "\f", "t": "\t", "n": "\n", "r": "\r", "v": "\v"}
_HEX_LENGTH: Final = {"x": 2, "u": 4, "U": 8}
_WORD_ASSERTIONS: Final = {"b": "word edge", "B": "no word edge", "<": "word start", ">": "word end"}
_ESCAPABLE: Final = frozenset(map(chr, range(128))) - frozenset(string.ascii_letters + string.digits + "<>")
_PATTERN_SPACE: Final = "\t\n\v\f\r \x85\u200e\u200f\u2028\u2029"


def compile_pattern(source: str, *, kept: int = KEPT) -> Automaton:
    """Compile a pattern of the Rust dialect.

    Args:
        source: the pattern.
        kept: largest size of the cache of states that searches of the pattern create (see `Automaton`). The size is the
            number of code positions and transitions in all states.

    Raises:
        ConditionError: `invalid_regex` if the Rust crate refuses the pattern, `regex_unsupported` if only this Python
            implementation does; the text starts with `Invalid regex: `.
    """
    return Automaton(_Reader(source).pattern(), kept=kept)


_Modes: TypeAlias = frozenset[str]
"""The regex flags that are on. Only i, m, s and x have a meaning here."""


@dataclass(slots=True)
class _Group:
    """An open group of a pattern: the flags to restore at its end, its finished branches, and the pieces of the current
    branch."""

    outer_modes: _Modes
    captures: bool = False
    branches: list[Piece] = field(default_factory=list)
    items: list[Piece] = field(default_factory=list)


class _Reader:
    def __init__(self, source: str) -> None:
        self._source = source
        self._at = 0
        self._modes: _Modes = frozenset()
        self._groups = [_Group(self._modes)]
        self._names: set[str] = set()
        self._size = 0
        """Estimated compiled size, in bytes, of the pattern as far as it has been read. A pattern above the `regex`
        crate's limit is refused."""
        self._has_tables = False
        """True if the pattern has a character class from Unicode's tables, such as `\\w`. The compiled size of such a
        pattern depends on the version of Unicode."""

    def pattern(self) -> regex_code.Code:
        while self._at < len(self._source):
            self._item()
        if len(self._groups) > 1:
            self._refuse("unclosed group")
        whole = self._close()
        if self._has_tables and whole.size > regex_code.SURE_SIZE:
            self._unsupported(f"a pattern whose size is so near to the limit of {regex_code.SIZE_LIMIT} bytes")
        return whole.code

    # ── items ───────────────────────────────────────────────────────────────────────────────────

    def _item(self) -> None:
        if self._skip_space():
            return
        char = self._source[self._at]
        if char == "(":
            self._open()
        elif char == ")":
            if len(self._groups) == 1:
                self._refuse("unopened group")
            self._at += 1
            modes = self._groups[-1].outer_modes
            self._add(self._close())
            self._modes = modes
        elif char == "|":
            self._at += 1
            self._end_branch()
        elif char in "*+?{":
            self._repeat(char)
        elif char == "[":
            self._add_set(self._class())
        else:
            self._at += 1
            self._add_atom(char)

    def _add_atom(self, char: str) -> None:
        if char == "\\":
            self._escape()
        elif char == ".":
            self._add_set([] if "s" in self._modes else [(10, 10)], negated=True)
        elif char == "^":
            self._add(Piece(["line start" if "m" in self._modes else "text start"]))
        elif char == "$":
            self._add(Piece(["line end" if "m" in self._modes else "text end"]))
        else:
            self._add_literal(char)

    def _add(self, piece: Piece) -> None:
        self._size += piece.size
        if self._size > regex_code.SIZE_LIMIT:
            self._refuse_size()
        self._groups[-1].items.append(piece)

    def _add_literal(self, char: str) -> None:
        self._add_set(self._folded([(ord(char), ord(char))]))

    def _add_set(self, ranges: Ranges, *, negated: bool = False) -> None:
        self._add(regex_code.one_of(code_points.complement(ranges) if negated else ranges))

    def _folded(self, ranges: Ranges) -> Ranges:
        return code_points.folded(ranges) if "i" in self._modes else ranges

    def _skip_space(self) -> bool:
        """Step over white space and comments in verbose mode. Return True if there were any."""
        start = self._at
        while "x" in self._modes and self._at < len(self._source):
            char = self._source[self._at]
            if char == "#":
                end = self._source.find("\n", self._at)
                self._at = len(self._source) if end < 0 else end + 1
            elif char in _PATTERN_SPACE:
                self._at += 1
            else:
                break
        return self._at > start

    # ── groups ──────────────────────────────────────────────────────────────────────────────────

    def _open(self) -> None:
        rest = self._source[self._at + 1 : self._at + 4]
        group = _Group(self._modes, captures=not rest.startswith("?"))
        if rest.startswith(("?=", "?!", "?<=", "?<!")):
            self._refuse("look-around is not supported")
        if rest.startswith(("?P<", "?<")):
            self._at += 4 if rest.startswith("?P<") else 3
            self._name()
            group.captures = True
        elif rest.startswith("?"):
            self._at += 2
            if not self._read_flags():
                self._add(_FLAGS_ITEM)
                return
        else:
            self._at += 1
        self._groups.append(group)

    def _name(self) -> None:
        end = self._source.find(">", self._at)
        name = self._source[self._at : end]
        rest_ok = all(char.isalnum() or char in "_.[]" for char in name[1:])
        if end < 0 or not name or not (name[0] == "_" or name[0].isalpha()) or not rest_ok or name in self._names:
            self._refuse("a capture group's name is empty, malformed or used twice")
        self._names.add(name)
        self._at = end + 1

    def _read_flags(self) -> bool:
        """Read the flags after `(?`. Return True if `:` ends them and opens a group, False if `)` ends them."""
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
        return modes | {flag} if on else modes - {flag}

    def _end_branch(self) -> None:
        group = self._groups[-1]
        group.branches.append(regex_code.row(group.items))
        self._size += group.branches[-1].size - sum(piece.size for piece in group.items)
        group.items = []

    def _close(self) -> Piece:
        self._end_branch()
        group = self._groups.pop()
        self._size -= sum(branch.size for branch in group.branches)
        piece = regex_code.alternatives(group.branches)
        depth = piece.depth + bool(self._groups)
        if depth > _NEST_LIMIT:
            self._refuse_depth()
        piece = replace(piece, depth=depth)
        return regex_code.captured(piece) if group.captures else piece

    # ── repetition ──────────────────────────────────────────────────────────────────────────────

    def _repeat(self, char: str) -> None:
        if not self._groups[-1].items or self._groups[-1].items[-1] is _FLAGS_ITEM:
            self._refuse("repetition operator missing expression")
        if char == "{":
            low, high = self._counts()
        else:
            self._at += 1
            low, high = {"*": (0, None), "+": (1, None), "?": (0, 1)}[char]
        self._skip_space()
        if self._source.startswith("?", self._at):
            self._at += 1
        once = self._groups[-1].items.pop()
        self._size -= once.size
        if once.depth + 1 > _NEST_LIMIT:
            self._refuse_depth()
        piece = regex_code.repeated(once, low, high)
        if piece is None:
            self._refuse_size()
        self._add(piece)

    def _counts(self) -> tuple[int, int | None]:
        end = self._source.find("}", self._at)
        if end < 0:
            self._refuse("unclosed counted repetition")
        low_text, comma, high_text = self._source[self._at + 1 : end].partition(",")
        low = self._count(low_text)
        high = low if not comma else None if not high_text.strip() else self._count(high_text)
        if high is not None and low > high:
            self._refuse("invalid repetition count range, the start must be <= the end")
        self._at = end + 1
        return low, high

    def _count(self, text: str) -> int:
        digits = text.strip()
        if not digits or not digits.isascii() or not digits.isdigit():
            self._refuse("repetition quantifier expects a valid decimal")
        if int(digits[:12]) > _MAX_COUNT:
            self._refuse("decimal literal invalid")
        return int(digits[:12])

    # ── escapes ─────────────────────────────────────────────────────────────────────────────────

    def _escape(self) -> None:
        """Read an escape outside brackets. The cursor is after the backslash."""
        char = self._source[self._at : self._at + 1]
        if char in ("b", "B", "<", ">"):
            self._at += 1
            named = self._source[self._at + 1 : self._at + 2]  # `\b{2}` is a repetition
            is_name = named.isalpha() or named == "-" or ("x" in self._modes and not named.isdigit())
            if char == "b" and self._source.startswith("{", self._at) and is_name:
                self._unsupported("\\b{...}")
            self._add(Piece([_WORD_ASSERTIONS[char]]))
        elif char in ("A", "z"):
            self._at += 1
            self._add(Piece(["text start" if char == "A" else "text end"]))
        elif char in tuple("dDsSwWpP"):
            self._add_set(self._class_escape(char))
        else:
            self._add_literal(self._literal_escape(char))

    def _class_escape(self, char: str) -> Ranges:
        """Read the escape of a character class: \\d, \\s, \\w, \\p, or a negation such as \\D. Return the
        class's ranges. The cursor is at the letter."""
        self._at += 1
        self._has_tables = True
        if char not in "pP":
            return code_points.perl(char)
        ranges = self._folded(self._property())
        return code_points.complement(ranges) if char == "P" else ranges

    def _braced(self, length: int) -> str:
        """Read the text in braces of an escape such as `\\x{41}`, or the next `length` characters if no brace opens
        here."""
        start, end = self._at, self._at + length
        if self._source.startswith("{", start):
            start, end = start + 1, self._source.find("}", start)
            if end < 0:
                self._refuse("unclosed braces of an escape")
            self._at = end + 1
        else:
            self._at = end
        return self._source[start:end]

    def _property(self) -> Ranges:
        name = self._braced(1)
        ranges = code_points.named_property(name)
        if ranges is None:
            self._unsupported(f"Unicode property {name!r}")
        return ranges

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
        is_bare = not self._source.startswith("{", self._at)
        digits = self._braced(_HEX_LENGTH[kind])
        if is_bare and len(digits) != _HEX_LENGTH[kind]:
            self._refuse("an incomplete hexadecimal escape")
        if not digits or not all(digit in string.hexdigits for digit in digits):
            self._refuse("a hexadecimal escape without digits")
        value = int(digits[:16], 16)
        if value > 0x10FFFF or 0xD800 <= value <= 0xDFFF or len(digits) > 16:
            self._refuse("a hexadecimal escape that is no character")
        return chr(value)

    # ── bracketed classes ───────────────────────────────────────────────────────────────────────

    def _class(self, level: int = 1) -> Ranges:
        """Read a bracketed class such as `[a-z]` and return its ranges. The cursor is at the `[`."""
        if level > _NEST_LIMIT:
            self._refuse_depth()
        self._at += 1
        negated = self._source.startswith("^", self._at)
        self._at += negated
        items: Ranges = self._leading_dashes()
        left: Ranges | None = None
        operation = ""
        is_first = not items
        while True:
            self._skip_space()
            if self._at >= len(self._source):
                self._refuse("unclosed character class")
            if self._source[self._at] == "]" and not is_first:
                break
            next_two = self._source[self._at : self._at + 2]
            if next_two in ("&&", "--", "~~"):
                left = self._combined(operation, left, items)
                operation, items = next_two, []
                self._at += 2
            else:
                self._class_item(items, level)
            is_first = False
        self._at += 1
        combined = self._combined(operation, left, items)
        return code_points.complement(combined) if negated else combined

    def _combined(self, operation: str, left: Ranges | None, right: Ranges) -> Ranges:
        """Return the character class that an operation such as `&&` makes of the classes `left` and `right`. Return
        `right` alone if `left` is None. With the flag `i`, the returned class has both cases of each letter."""
        right = code_points.normalized(self._folded(right))
        return right if left is None else self._folded(code_points.combine(operation, left, right))

    def _leading_dashes(self) -> Ranges:
        """Read the dashes at the start of a class. Such a dash is a plain character, not an operator."""
        dashes: Ranges = []
        self._skip_space()
        while self._source.startswith("-", self._at):
            dashes.append((ord("-"), ord("-")))
            self._at += 1
            self._skip_space()
        return dashes

    def _class_item(self, items: Ranges, level: int) -> None:
        """Read one member of a bracketed class, such as `a-z`, and append its ranges to `items`."""
        if self._source[self._at] == "[":
            named = code_points.posix(self._source, self._at)
            if named is None:
                items.extend(self._class(level + 1))
            else:
                ranges, negated, self._at = named
                ranges = self._folded(ranges)
                items.extend(code_points.complement(ranges) if negated else ranges)
            return
        low = self._class_char()
        self._skip_space()
        after_dash = self._source[self._at + 1 : self._at + 2]
        is_range = self._source.startswith("-", self._at) and after_dash not in ("]", "-", "")
        if not isinstance(low, str):
            if is_range:
                self._refuse("a character range that starts with a class")
            items.extend(low)
            return
        high: str | Ranges = low
        if is_range:
            self._at += 1
            self._skip_space()
            high = self._class_char()
        if not isinstance(high, str) or low > high:
            self._refuse("a character range with no or swapped ends")
        items.append((ord(low), ord(high)))

    def _class_char(self) -> str | Ranges:
        char = self._source[self._at : self._at + 1]
        self._at += 1
        if char != "\\":
            return char
        letter = self._source[self._at : self._at + 1]
        if letter in tuple("dDsSwWpP"):
            return self._class_escape(letter)
        return self._literal_escape(letter)

    # ── refusals ────────────────────────────────────────────────────────────────────────────────

    def _refuse(self, what: str) -> NoReturn:
        raise ConditionError("invalid_regex", f"Invalid regex: {what}, at character {self._at}")

    def _refuse_depth(self) -> NoReturn:
        self._refuse(f"exceed the maximum number of nested parentheses/brackets ({_NEST_LIMIT})")

    def _refuse_size(self) -> NoReturn:
        text = f"Invalid regex: Compiled regex exceeds size limit of {regex_code.SIZE_LIMIT} bytes."
        raise ConditionError("invalid_regex", text)

    def _unsupported(self, what: str) -> NoReturn:
        text = f"Invalid regex: {what} needs the Rust engine, at character {self._at}: install it or change the pattern"
        raise ConditionError("regex_unsupported", text)
