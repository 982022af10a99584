"""The parser of JSON documents, with the same values and error codes as its Rust counterpart.

`parse` uses Python's fast decoder for most documents. It uses the slow `DocumentReader`, which is the specification,
for invalid documents and where Python's decoder differs: it has other errors, accepts half of a surrogate pair, and has
its own nesting limit. Rust counterpart: rust/engine/src/document.rs.
"""

from __future__ import annotations

import re
from json.encoder import JSONEncoder
from typing import Any, Final, NoReturn, cast

from noetl_worker.engine.protocol import MAX_DEPTH, MAX_INTEGER_DIGITS
from noetl_worker.errors import DocumentError
from noetl_worker.models.exact_decoder import exact_decoder
from noetl_worker.models.wire import JsonValue

_CAN_BE_SURROGATE: Final = re.compile(rb"\\u[dD][89a-fA-F]")
_HUGE_INTEGER: Final = re.compile(rb"[0-9]{%d}" % (MAX_INTEGER_DIGITS + 1))
_NUMBER: Final = re.compile(r"-?(?:0|[1-9][0-9]*)(\.[0-9]+)?([eE][+-]?[0-9]+)?")
_SPACE: Final = re.compile(r"[ \t\n\r]*")
_PLAIN: Final = re.compile(r'[^"\\\x00-\x1f]*')
_HEX4: Final = re.compile(r"[0-9a-fA-F]{4}")
_ESCAPES: Final = {'"': '"', "\\": "\\", "/": "/", "b": "\b", "f": "\f", "n": "\n", "r": "\r", "t": "\t"}
_INDEX: Final = re.compile(r"\+?[0-9]+")
_INFINITY: Final = float("inf")
_encoder: Final = JSONEncoder(ensure_ascii=False, separators=(",", ":"), allow_nan=False, check_circular=False)


def parse(data: bytes) -> JsonValue:
    """Return the value of a JSON document.

    Integers keep every digit, floats are read as the nearest double, and `1` and `1.0` stay different kinds. A repeated
    key keeps its first position and its last value.

    Raises:
        DocumentError: `json_utf8`, `json_syntax`, `json_depth` (over 512), `json_number` (a float out of range, an
            integer over 4,300 digits), `json_surrogate` (half of a surrogate pair); the text has the byte offset.
    """
    try:
        text = data.decode("utf-8")
    except UnicodeDecodeError as error:
        raise DocumentError("json_utf8", f"not UTF-8 at byte {error.start}") from None
    if _CAN_BE_SURROGATE.search(data) or (len(data) > MAX_INTEGER_DIGITS and _HUGE_INTEGER.search(data)):
        return DocumentReader(text).document()
    try:
        value = exact_decoder.decode(text)
    except (ValueError, RecursionError):
        return DocumentReader(text).document()
    if data.count(b"[") + data.count(b"{") > MAX_DEPTH and _is_too_deep(value):
        return DocumentReader(text).document()
    return value


def _is_too_deep(value: JsonValue) -> bool:
    level: list[JsonValue] = [[value]]
    for _ in range(MAX_DEPTH + 1):
        children = (child for node in level for child in (node.values() if isinstance(node, dict) else node))
        level = [child for child in children if isinstance(child, (dict, list))]
    return level != []


def encode(value: JsonValue) -> bytes:
    """Encode a value as compact JSON in UTF-8, without escapes for non-ASCII characters."""
    return _encoder.encode(value).encode("utf-8")


def walk(value: JsonValue, segments: tuple[str, ...]) -> JsonValue:
    """Return the value at a path of object keys and array indexes in a JSON value, or None if it is missing."""
    for segment in segments:
        if isinstance(value, dict):
            value = value.get(segment)
        elif isinstance(value, list):
            index = _array_index(segment)
            value = value[index] if index is not None and index < len(value) else None
        else:
            return None
    return value


def _array_index(segment: str) -> int | None:
    """Parse an array index as Rust parses a usize, or return None: `01` and `+1` are valid; `-1` and "" are not."""
    if not _INDEX.fullmatch(segment) or len(segment) > 32:
        return None
    return int(segment)


def _closer(container: dict[str, JsonValue] | list[JsonValue]) -> str:
    return "}" if isinstance(container, dict) else "]"


class DocumentReader:
    """Slow JSON parser for documents that Python's decoder rejects or may parse wrongly.

    The parser reads from left to right, and reports the first mistake. The Rust engine reports the same error codes.
    """

    def __init__(self, text: str) -> None:
        self._text = text
        self._at = 0

    def document(self) -> JsonValue:
        value = self._value()
        self._skip_space()
        if self._at != len(self._text):
            self._fail("json_syntax", "unexpected text after the document")
        return value

    def _value(self) -> JsonValue:
        """Read one value without recursion, so that 512 nested levels never overflow the call stack."""
        open_ones: list[tuple[Any, str | None]] = []  # open containers, each with its key in the parent
        key: str | None = None
        while True:
            value = self._scalar_or_open()
            if isinstance(value, (dict, list)):
                if len(open_ones) == MAX_DEPTH:
                    self._at -= 1
                    self._fail("json_depth", f"more than {MAX_DEPTH} nested arrays and objects")
                open_ones.append((value, key))
                if not self._closes(value):
                    key = self._key() if isinstance(value, dict) else None
                    continue
                value, key = open_ones.pop()
            while open_ones:
                container = open_ones[-1][0]
                if isinstance(container, dict):
                    container[cast(str, key)] = value
                else:
                    container.append(value)
                if not self._ends(container):
                    key = self._key() if isinstance(container, dict) else None
                    break
                value, key = open_ones.pop()
            else:
                return value

    def _scalar_or_open(self) -> JsonValue:
        self._skip_space()
        if self._takes('"'):
            return self._string()
        if found := _NUMBER.match(self._text, self._at):
            return self._number(found)
        if self._takes("{"):
            return {}
        if self._takes("["):
            return []
        for word, value in (("true", True), ("false", False), ("null", None)):
            if self._takes(word):
                return value
        return self._fail("json_syntax", "expected a value")

    def _takes(self, sign: str) -> bool:
        """Step over the string `sign` and return True if it comes next in the JSON text. Otherwise return False."""
        is_next = self._text.startswith(sign, self._at)
        self._at += is_next * len(sign)
        return is_next

    def _closes(self, container: dict[str, JsonValue] | list[JsonValue]) -> bool:
        self._skip_space()
        return self._takes(_closer(container))

    def _ends(self, container: dict[str, JsonValue] | list[JsonValue]) -> bool:
        if self._closes(container):
            return True
        if not self._takes(","):
            self._fail("json_syntax", f"expected ',' or '{_closer(container)}'")
        return False

    def _key(self) -> str:
        self._skip_space()
        if not self._takes('"'):
            self._fail("json_syntax", "expected a key in double quotes")
        key = self._string()
        self._skip_space()
        if not self._takes(":"):
            self._fail("json_syntax", "expected ':'")
        return key

    def _number(self, found: re.Match[str]) -> int | float:
        text = found.group()
        if found.group(1) is None and found.group(2) is None:
            if len(text.lstrip("-")) > MAX_INTEGER_DIGITS:
                self._fail("json_number", f"an integer of more than {MAX_INTEGER_DIGITS} digits")
            self._at = found.end()
            return int(text)
        value = float(text)
        if value in (_INFINITY, -_INFINITY):
            self._fail("json_number", "a number out of range")
        self._at = found.end()
        return value

    def _string(self) -> str:
        """Read the rest of a JSON string, after its opening quote."""
        pieces: list[str] = []
        while True:
            plain = cast("re.Match[str]", _PLAIN.match(self._text, self._at))
            pieces.append(plain.group())
            self._at = plain.end()
            if self._takes('"'):
                return "".join(pieces)
            if not self._text.startswith("\\", self._at):
                is_over = self._at == len(self._text)
                self._fail("json_syntax", "unterminated text" if is_over else "control character in text")
            pieces.append(self._escape())

    def _escape(self) -> str:
        letter = self._text[self._at + 1 : self._at + 2]
        if letter in _ESCAPES:
            self._at += 2
            return _ESCAPES[letter]
        if letter != "u":
            self._fail("json_syntax", "unknown escape")
        high = self._hex4(self._at + 2)
        if not 0xD800 <= high <= 0xDFFF:
            self._at += 6
            return chr(high)
        if high >= 0xDC00 or not self._text.startswith("\\u", self._at + 6):
            self._fail("json_surrogate", "half of a surrogate pair")
        low = self._hex4(self._at + 8)
        if not 0xDC00 <= low <= 0xDFFF:
            self._fail("json_surrogate", "half of a surrogate pair")
        self._at += 12
        return chr(0x10000 + ((high - 0xD800) << 10) + (low - 0xDC00))

    def _hex4(self, at: int) -> int:
        digits = _HEX4.match(self._text, at)
        if digits is None:
            self._fail("json_syntax", "unknown escape")
        return int(digits.group(), 16)

    def _skip_space(self) -> None:
        self._at = cast("re.Match[str]", _SPACE.match(self._text, self._at)).end()

    def _fail(self, code: str, what: str) -> NoReturn:
        offset = len(self._text[: self._at].encode("utf-8"))
        raise DocumentError(code, f"{what} at byte {offset}")
