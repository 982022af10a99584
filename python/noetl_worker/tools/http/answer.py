"""The answer of an HTTP exchange: read and unpacked into bounded memory, and converted to a JSON value.

A small compressed body may unpack to gigabytes, and even a chunk of 64 KiB may unpack to 64 MiB. So the limit is
checked while a chunk is being unpacked, not afterwards.
"""

from __future__ import annotations

import asyncio
import base64
import email.utils
import re
import time
import zlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import partial
from typing import Any, Final

import httpx

from noetl_worker.errors import DocumentError
from noetl_worker.models.tool_result import ToolResult
from noetl_worker.models.wire import JsonValue
from noetl_worker.process.room import room
from noetl_worker.process.threads import LARGE, off_loop
from noetl_worker.text.json_text import loads, loads_exact, loads_in_room
from noetl_worker.tools.contract import ToolForm
from noetl_worker.tools.error_kinds import http_error_kind
from noetl_worker.tools.fields import drop_half_at_end, excerpt
from noetl_worker.tools.http.charsets import decoded, find_codec
from noetl_worker.tools.http.client import without_user

_CODINGS: Final = ("gzip", "x-gzip", "deflate")
_LONGEST_SECRET: Final = 16_384
_LONGEST_WAIT_S: Final = 1e9
"""Longest wait in seconds that a Retry-After header may cause. The value is longer than any command, and finite because
a timer cannot wait for infinity."""
_BOM: Final = b"\xef\xbb\xbf"
_LONGEST_HEADER: Final = 1024
"""Largest number of characters of a Content-Type header that are searched for a charset. A longer Retry-After header is
ignored."""
_CHARSET: Final = re.compile(r";\s*charset\s*=\s*(?:\"([^\"]*)\"|'([^']*)'|([^;\s]*))", re.IGNORECASE)
_CHARGED_AT_ONCE: Final = 1 << 20
_UNPACKED_AT_ONCE: Final = 1 << 20
_GZIP_MAGIC: Final = b"\x1f\x8b"


@dataclass(eq=False)
class Content:
    """Received body of an HTTP answer, cut at `limit` bytes. `is_cut` is True if the answer had more bytes.

    The body is a list of chunks as they arrived. A single growing buffer would need twice its memory whenever Python
    copies it to a larger place.
    """

    limit: int
    size: int = 0
    is_cut: bool = False
    pieces: list[bytes] = field(default_factory=list)
    owner: Any = None
    """Object that owns the memory reservation for the body (`process/room.py`). When Python deletes the owner, the
    reservation ends. None: this Content is the owner."""
    charged: int = 0

    def add(self, piece: bytes) -> None:
        room = self.limit - self.size
        if len(piece) > room:
            self.is_cut = True
            piece = piece[:room]
        self.pieces.append(piece)
        self.size += len(piece)

    async def take_room(self) -> None:
        """Request memory (`process/room.py`) for the bytes received so far. Small bodies need no such reservation."""
        while self.size > max(self.charged, LARGE):
            await room.take(_CHARGED_AT_ONCE, self.owner or self)
            self.charged += _CHARGED_AT_ONCE

    def leave_room(self) -> None:
        """Give the reserved memory back, after the body has been converted."""
        room.release(self.charged, self.owner or self)
        self.charged = 0

    def end_without_half(self) -> None:
        """Remove an incomplete secret from the end of a cut body. Redaction finds only complete secrets, so the
        beginning of a registered secret would stay readable."""
        end = b""
        while self.pieces and len(end) < _LONGEST_SECRET:
            end = self.pieces.pop() + end
        self.pieces.append(drop_half_at_end(end))

    def text(self) -> str:
        """Return the received body as text, decoded as UTF-8, and empty this object."""
        if self.is_cut:
            self.end_without_half()
        return self.take().decode("utf-8", "replace")

    def take(self, ending: bytes = b"") -> bytes:
        """Return the received body and empty this object. The bytes `ending` are appended to the body, such as a note
        that the body was cut."""
        pieces, self.pieces = [*self.pieces, ending], []
        return b"".join(pieces)


async def read(response: httpx.Response, limit: int, owner: object = None) -> Content:
    """Read the body to its end or `limit` bytes, unpacking gzip or deflate; then close the answer.

    Args:
        response: an answer whose body has not been read.
        limit: maximum bytes of the unpacked body; the rest of a longer body is dropped.
        owner: object that owns the memory reservation for the body; None: the returned Content. The reservation ends
            when Python deletes the owner, or earlier by a call of `Content.leave_room`.

    Raises:
        httpx.DecodingError: the body is not what its Content-Encoding says.
    """
    content = Content(limit, owner=owner)
    coding = response.headers.get("content-encoding", "").strip().lower()
    unpack = _Unpacking(content) if coding in _CODINGS else None
    if response.is_stream_consumed:  # the transport has read and unpacked the complete answer
        content.add(response.content)
        return content
    stream = response.stream
    assert isinstance(stream, httpx.AsyncByteStream)
    try:
        async for chunk in stream:
            if unpack is None:
                content.add(chunk)
            else:
                await unpack.add(chunk)
            if content.size > LARGE:
                await content.take_room()
            if content.is_cut or (unpack is not None and unpack.is_over):
                break
        if unpack is not None and unpack.is_open and not content.is_cut:
            raise zlib.error("it ends too early")
    except zlib.error as error:
        raise httpx.DecodingError(f"the body is not valid {coding}: {error}", request=response.request) from error
    finally:
        await response.aclose()
    return content


class _Unpacking:
    """Unpacks gzip (also several members) and deflate (with or without the zlib header) into a Content.

    Some servers add padding bytes after the last gzip member. Such bytes are ignored, as the program gzip ignores them.
    """

    def __init__(self, content: Content) -> None:
        self._content = content
        self._stream = zlib.decompressobj(zlib.MAX_WBITS | 32)
        self._is_first = True
        self.is_open = False
        """A gzip member or deflate stream was started and not finished."""
        self.is_over = False
        """The compressed data is complete; any further bytes are ignored."""

    async def add(self, chunk: bytes) -> None:
        more = bool(chunk)
        while more and not self._content.is_cut:
            if self._stream.eof:
                self.is_over = not _GZIP_MAGIC.startswith(chunk[:2])
                if self.is_over:
                    return
                self._stream = zlib.decompressobj(zlib.MAX_WBITS | 16)
            at_most = min(self._content.limit - self._content.size + 1, _UNPACKED_AT_ONCE)
            try:
                unpacked = self._stream.decompress(chunk, at_most)
            except zlib.error:
                if not self._is_first:
                    raise
                self._stream = zlib.decompressobj(-zlib.MAX_WBITS)  # deflate without a header, as some servers send it
                unpacked = self._stream.decompress(chunk, at_most)
            self._is_first = False
            self._content.add(unpacked)
            chunk, more = self._stream.unconsumed_tail, len(unpacked) == at_most
            if self._stream.eof:
                chunk = self._stream.unused_data
                more = bool(chunk)
            self.is_open = not self._stream.eof
            await self._content.take_room()
            await asyncio.sleep(0)  # a small chunk may unpack to a lot: lets other tasks run


async def answer_result(response: httpx.Response, content: Content, response_type: str, elapsed_s: float) -> ToolResult:
    """Return the result for an HTTP answer. `content` is cleared, to free its memory. The data has the fields of
    NoETL's Rust worker and of NoETL's Python worker. `in_plane_form` later removes the fields that only the other
    plane's worker returns."""
    notes: list[str] = []
    headers = dict(response.headers.items())  # httpx would go through all headers at each look-up
    payload = await _payload(headers, content, response_type, notes)
    content.leave_room()
    data: dict[str, Any] = {
        "status_code": response.status_code,
        "headers": headers,
        "body": payload,
        "data": payload,
        "url": without_user(str(response.url)),
        "elapsed": round(elapsed_s, 6),
    }
    if content.is_cut:
        data["truncated"] = True
    if notes:
        data["notes"] = list(notes)
    if response.is_success:
        return ToolResult.success(data, exit_code=0)
    status = response.status_code
    kind, retryable = http_error_kind(status)
    return ToolResult.failure(
        f"HTTP {status} response", kind=kind, retryable=retryable, code=str(status), data=data, exit_code=1
    )


def in_plane_form(result: ToolResult, form: ToolForm) -> ToolResult:
    """Remove from an HTTP result the data fields that NoETL's published worker for this control plane does not return.
    `form` lists these fields. Return the result."""
    if not isinstance(result.data, dict) or result.data.get("status_code") is None:  # there was no answer
        return result
    for name in form.not_of_http:
        result.data.pop(name, None)
    return result


async def _payload(headers: Mapping[str, str], content: Content, response_type: str, notes: list[str]) -> JsonValue:
    size, owner = content.size, content.owner or content
    if content.is_cut:
        notes.append(f"body: cut after {size} bytes; max_response_bytes sets the limit")
        content.end_without_half()
    if response_type == "binary":
        await _charge(2 * size, owner)
        return await off_loop(size, partial(_binary, content.pieces, size))
    charset = _charset(headers, notes)
    body = content.take(_cut_mark(headers, size) if content.is_cut else b"")
    is_json = response_type == "json" and not content.is_cut and not body.isspace()
    if is_json and body:
        try:
            text = await off_loop(size, partial(_json_bytes, body, charset))
            return await loads_in_room(text, owner, loads_exact)
        except (DocumentError, UnicodeDecodeError) as error:  # not JSON, or too large to parse: given as text
            if isinstance(error, DocumentError) and error.code == "json_size":
                notes.append(f"body: {error}; given as text")
    await _charge(size, owner)
    return await off_loop(size, partial(_text, headers, body, charset, notes, is_json=is_json, is_cut=content.is_cut))


async def _charge(size: int, owner: object) -> None:
    if size > LARGE:
        await room.take(size, owner)


def _text(
    headers: Mapping[str, str], body: bytes, charset: str, notes: list[str], *, is_json: bool, is_cut: bool
) -> JsonValue:
    try:
        return decoded(body, charset)
    except UnicodeDecodeError as error:
        if is_json and _is_binary(headers):
            notes.append("body: neither JSON nor text, given as base64")
            return _binary([body], len(body))
        if not is_cut:  # the cut itself may split a character
            notes.append(f"body: not {charset} at byte {error.start}, unreadable bytes replaced")
        return decoded(body, charset, "replace")


def object_in(body: bytes) -> dict[str, Any] | None:
    """Return the JSON object in a body; None if the body is something else."""
    try:
        value = loads(body)
    except DocumentError:
        return None
    return value if isinstance(value, dict) else None


def part_at(payload: JsonValue, path: str | None) -> Any:
    """Return the value in an answer at a dotted path: `items.0.id`. Raises LookupError with the first name that does
    not exist."""
    part = payload
    for name in path.split(".") if path else ():
        if isinstance(part, list) and name.isdecimal() and int(name) < len(part):
            part = part[int(name)]
        elif isinstance(part, Mapping) and name in part:
            part = part[name]
        else:
            raise LookupError(name)
    return part


def _cut_mark(headers: Mapping[str, str], size: int) -> bytes:
    declared = headers.get("content-length", "")
    of_how_many = f" of {declared}" if declared.isdigit() and "content-encoding" not in headers else ""
    return f"\n[... cut after {size}{of_how_many} bytes ...]".encode()


def _binary(pieces: list[bytes], size: int) -> dict[str, JsonValue]:
    """Encode a body as base64, and remove each chunk from `pieces` once it is encoded. Otherwise the body, its base64
    bytes and its base64 text would be in memory together."""
    texts: list[str] = []
    rest = b""
    pieces.reverse()
    while pieces:
        piece = rest + pieces.pop()
        complete = len(piece) - len(piece) % 3
        texts.append(base64.b64encode(piece[:complete]).decode("ascii"))
        rest = piece[complete:]
    texts.append(base64.b64encode(rest).decode("ascii"))
    return {"base64": "".join(texts), "size": size}


def _json_bytes(data: bytes, charset: str) -> bytes:
    return data.removeprefix(_BOM) if charset in ("utf-8", "ascii") else decoded(data, charset).encode()


def _is_binary(headers: Mapping[str, str]) -> bool:
    """Return True if the Content-Type is not a text type, or is missing."""
    kind = headers.get("content-type", "application/octet-stream").partition(";")[0].strip().lower()
    return not (kind.startswith("text/") or kind.endswith(("json", "xml", "javascript", "x-www-form-urlencoded")))


def _charset(headers: Mapping[str, str], notes: list[str]) -> str:
    """Return the codec for the charset in the Content-Type header, or UTF-8 if the header names no supported charset.
    Only the first 1024 characters of the header are searched. An unsupported charset adds a note to `notes`."""
    found = _CHARSET.search(headers.get("content-type", "")[:_LONGEST_HEADER])
    if found is None or not (declared := found[1] or found[2] or found[3]):
        return "utf-8"
    codec = find_codec(declared)
    if codec is None:
        notes.append(f"body: the charset {excerpt(declared, 40)!r} is not supported, read as UTF-8")
    return codec or "utf-8"


def retry_after_s(data: Any) -> float | None:
    """Return the seconds to wait by the Retry-After header in a result's data. The header is a number or a date. Return
    None if the header is missing or cannot be read."""
    headers = data.get("headers") if isinstance(data, Mapping) else None
    value = headers.get("retry-after") if isinstance(headers, Mapping) else None
    if not isinstance(value, str) or len(value) > _LONGEST_HEADER:
        return None
    if value.strip().isdecimal():  # not isdigit, which accepts `²`
        return min(float(value), _LONGEST_WAIT_S)
    try:
        return max(0.0, email.utils.parsedate_to_datetime(value).timestamp() - time.time())
    except (TypeError, ValueError, OverflowError):  # no date, or an impossible year or zone
        return None
