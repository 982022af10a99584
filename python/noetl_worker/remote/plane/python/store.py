"""The Python plane's result store, and the form in which a large result is put there (protocol/results.md#redaction).

The plane looks through what it stores, hands out or puts into a command for secrets, in its event loop, in a time that
grows with the square of each word without a space: 60 kB of hex keep it from answering anybody for half a minute. So
what is large or has a long word is packed, in short words.
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
"""Where the Python plane has its store: v4.0.0 mounts it under a doubled prefix (protocol/results.md#store)."""
IN_MEMORY: Final = "memory"
"""The `store` of a result that only the server which took it has, until it is restarted: what a store falls back to."""
BUDGET_S: Final = 0.25
"""For so long one PUT may hold up the plane, and whom it serves."""
_S_PER_BYTE: Final = 0.5e-6
"""Of words: 580 kB took 0.3 s."""
PACKED: Final = "_zlib_base64"
"""The one key of a result that is stored packed."""
_PACKED_START: Final = b'{"_zlib_base64":'
LONG_WORD: Final = 2_000
"""Bytes of a word that costs the plane some hundredths of a second at each look."""
_OF_WORDS: Final = (string.ascii_letters + string.digits + "+.-").encode()
"""Characters of the scheme of a link, which the plane looks for: it reads on to their end from each of them."""
_WORDS: Final = bytes(ord("x") if code in _OF_WORDS else ord(" ") for code in range(256))
_ONE_WORD: Final = b"x" * LONG_WORD
_NOTHING: Final[Mapping[str, JsonValue]] = {}
_PIECE: Final = 20
"""Characters of packed text without a space: the store is soon through them, and none looks like a key or token."""
_BYTES_PER_S: Final = 12_500
"""For the deadline of a PUT: forty times slower than words usually are."""


def has_long_word(data: bytes) -> bool:
    """Return whether this JSON has a text that the plane would be at for long, however small the whole is."""
    return len(data) >= LONG_WORD and _ONE_WORD in data.translate(_WORDS)


def is_over_budget(data: bytes) -> bool:
    """Return whether a PUT of this is to be the only one of its kind."""
    return len(data) * _S_PER_BYTE > BUDGET_S


def packed_for_store(data: bytes, beside: Mapping[str, JsonValue] = _NOTHING) -> bytes:
    """Return JSON in a form in which the plane is soon through it, however long its words are.

    Args:
        data: the JSON of a result.
        beside: fields of it that the plane's own templates may read.
    """
    text = base64.b64encode(zlib.compress(data, 1))
    words = b" ".join(text[at : at + _PIECE] for at in range(0, len(text), _PIECE)).decode()
    return json_text.dumps({PACKED: words, **beside})


def is_packed(data: bytes) -> bool:
    return data.startswith(_PACKED_START)


def whole_of(data: bytes) -> bytes:
    """The JSON of a stored result, packed or not."""
    return (unpacked(json_text.loads(data)) if is_packed(data) else None) or data


def has_packed(values: Mapping[str, JsonValue]) -> bool:
    """Whether one of these objects is a packed result."""
    for value in values.values():  # noqa: SIM110 - of each command: a generator is a call for each name
        if type(value) is dict and PACKED in value:
            return True
    return False


def unpacked(stored: JsonValue) -> bytes | None:
    """The JSON of a result that was stored packed; None: it was not. Raises ControlPlaneError where it is not whole."""
    text = stored.get(PACKED) if isinstance(stored, dict) else None
    if not isinstance(text, str):
        return None
    reading = zlib.decompressobj()
    try:
        data = reading.decompress(base64.b64decode(text), MAX_BODY_BYTES)
    except (ValueError, zlib.error) as error:
        raise ControlPlaneError(f"a stored result is not as it was packed: {error}") from error
    if not reading.eof:
        raise ControlPlaneError(f"a stored result is not whole, or has more than {MAX_BODY_BYTES} bytes")
    return data


def scrubbing_s(size: int) -> float:
    """For how long the plane may be at a PUT of so many bytes, at most."""
    return size / _BYTES_PER_S


def is_no_route(answer: Response) -> bool:
    """Whether the Python plane has nothing at this path, as against no result of that name."""
    return answer.status == 404 and answer.json() == {"detail": "Not Found"}


def has_expired(answer: Response) -> bool:
    """Whether the Python plane ends an entry of one server's memory with this answer, an hour after its PUT.

    It looks into the store itself at the next question: older versions, and one whose deletion failed, still have the
    data there (NATS keeps them for two hours).
    """
    return answer.status == 404 and b"TempRef expired" in answer.body
