"""Result store of the Python plane, and the packed format of large results (protocol/results.md#redaction).

The plane searches each value for secrets: on storing, on returning, and before putting the value into a command. The
search blocks the plane's event loop. The time of the search grows with the square of a word's length (words end at
spaces). For 60 kB of hex the plane does not answer for half a minute.

So the worker packs a result that is large or has a long word: compressed, and written as text of short words.
"""

from __future__ import annotations

import base64
import string
import zlib
from collections.abc import Mapping
from typing import Final

from noetl_worker.errors import ControlPlaneError
from noetl_worker.models.wire import JsonValue
from noetl_worker.remote.transport.transport import MAX_BODY_BYTES, Response
from noetl_worker.text import json_text

ROUTES: Final = ("/api/result", "/api/api/result")
"""Possible paths of the Python plane's result store. Version 4.0.0 serves the store under a doubled prefix
(protocol/results.md#store)."""
IN_MEMORY: Final = "memory"
"""Value of `store` in the reference to a result that only one server's memory has. A restart of that server loses the
result."""
BUDGET_S: Final = 0.25
"""Threshold for slow PUTs of results, in seconds. A PUT is slow if the plane's search for secrets in the result is
estimated to take longer. The worker sends slow PUTs one at a time, because the plane answers nothing during the
search."""
_S_PER_BYTE: Final = 0.5e-6
"""Seconds that the plane's search for secrets needs for one byte of ordinary words: 580 kB took 0.3 s."""
PACKED: Final = "_zlib_base64"
"""Key of the packed text in a stored result: the JSON of the result, compressed and then written as base64."""
_PACKED_START: Final = b'{"_zlib_base64":'
LONG_WORD: Final = 2_000
"""Length in bytes from which a word of a result (characters without a separator) is long. In each search for secrets,
a long word costs the plane some hundredths of a second."""
_WORD_BYTES: Final = (string.ascii_letters + string.digits + "+.-").encode()
"""Characters, as bytes, that the scheme of a link may have (`https` in `https://`). A long word of these
characters makes the plane's search for secrets slow: from each character the search reads to the end of the word."""
_WORDS: Final = bytes(ord("x") if code in _WORD_BYTES else ord(" ") for code in range(256))
_ONE_WORD: Final = b"x" * LONG_WORD
_NOTHING: Final[Mapping[str, JsonValue]] = {}
_PIECE: Final = 20
"""Length, in characters, of the words into which the worker divides a compressed result with spaces. The plane's search
for secrets is fast on short words, and takes no short word for a secret such as a token."""
_UNSEARCHED: Final = "}}"
"""Ending that the worker adds to the text of a compressed result, so that the plane does not search the text for
secrets. The plane takes a text with `}}` for code, which it does not search (noetl v4, `sanitize.py`). `}}` does no
harm, because `}}` begins no template and base64 decoders skip `}}`."""
_BYTES_PER_S: Final = 12_500
"""Speed of the plane's slowest search for secrets, in bytes per second, from which the time limit of a PUT is computed.
Ordinary words are searched 160 times as fast."""


def has_long_word(data: bytes) -> bool:
    """Return whether this JSON has a word of at least LONG_WORD bytes. The plane takes long to search such a word
    for secrets."""
    return len(data) >= LONG_WORD and _ONE_WORD in data.translate(_WORDS)


def is_over_budget(data: bytes) -> bool:
    return len(data) * _S_PER_BYTE > BUDGET_S


def packed_for_store(data: bytes, beside: Mapping[str, JsonValue] = _NOTHING) -> bytes:
    """Compress a result's JSON, and return a JSON object with the compressed bytes as text (key `PACKED`). Spaces
    divide this text into short words, because the plane takes long to search long words for secrets.

    Args:
        data: the JSON of a result.
        beside: fields of the result to put next to the text, uncompressed, because the plane's own templates read them.
    """
    text = base64.b64encode(zlib.compress(data, 1))
    words = b" ".join(text[at : at + _PIECE] for at in range(0, len(text), _PIECE)).decode()
    return json_text.dumps({PACKED: words + _UNSEARCHED, **beside})


def is_packed(data: bytes) -> bool:
    return data.startswith(_PACKED_START)


def whole_result(data: bytes) -> bytes:
    return (unpacked(json_text.loads(data)) if is_packed(data) else None) or data


def has_packed(values: Mapping[str, JsonValue]) -> bool:
    """Return whether one of the variables in the answer to a claim is a packed (compressed) result."""
    for value in values.values():  # noqa: SIM110 - for each command: a generator costs a call per name
        if type(value) is dict and PACKED in value:
            return True
    return False


def unpacked(stored: JsonValue) -> bytes | None:
    """Return the JSON of a packed result, or None for any other value. Raises ControlPlaneError if the packed text is
    damaged or too large."""
    text = stored.get(PACKED) if isinstance(stored, dict) else None
    if not isinstance(text, str):
        return None
    reading = zlib.decompressobj()
    try:
        data = reading.decompress(base64.b64decode(text), MAX_BODY_BYTES)
    except (ValueError, zlib.error) as error:
        raise ControlPlaneError(
            f"a packed result in the store is damaged ({error}): start the execution again"
        ) from error
    if not reading.eof:
        raise ControlPlaneError(
            f"a packed result in the store is incomplete, or has more than {MAX_BODY_BYTES} bytes: start the execution "
            "again, with a smaller result"
        )
    return data


def scrubbing_s(size: int) -> float:
    return size / _BYTES_PER_S


def is_no_route(answer: Response) -> bool:
    return answer.status == 404 and answer.json() == {"detail": "Not Found"}


def has_expired(answer: Response) -> bool:
    """Return whether the answer says that a result has expired in one server's memory. A result expires there an hour
    after its PUT.

    A second request may still find the result, because the plane then looks into its NATS bucket. The bucket keeps the
    result for two hours, if the plane does not delete it there earlier, as newer versions do.
    """
    return answer.status == 404 and b"TempRef expired" in answer.body
