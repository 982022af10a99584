"""The Python plane's result store, and for how long it is at what it is given (protocol/results.md#redaction).

The result store of the Python plane looks through what it stores in its event loop, several times, in a time that
grows with the square of each unbroken text: 50 kB take 4.9 s, 200 kB 70 s, and it answers nobody meanwhile. So does a
PUT of 580 kB in texts of 10 kB: 46 s. What a PUT may cost is estimated by the sum of these squares.

It looks for secrets, and what looks like one is "[REDACTED]" in what it stores, and in what it hands out. `may_redact`
knows the rule from its source (`core/sanitize.py` and `core/credential_refs.py` as of May 2026); recorded is of it that
a short text under `password` or `token` is kept (result-get-secret-like).
"""

from __future__ import annotations

import base64
import re
import string
import zlib
from collections.abc import Iterator, Mapping
from typing import Final, NamedTuple

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
_S_PER_SQUARE: Final = 8e-9
"""Of a PUT: 58 texts of 10 kB took 46 s."""
_S_PER_BYTE: Final = 0.5e-6
"""Of words: 580 kB took 0.3 s."""
_LONGEST_UNBROKEN: Final = 20_000
"""Bytes of a text that may be unbroken for a version whose regular expression is not known: 0.8 s at each look."""
_SHORTEST_UNBROKEN: Final = 64
"""What is shorter costs less by its squares than by its bytes."""
_IN_SCHEME: Final = (string.ascii_letters + string.digits + "+.-").encode()
"""What may be the scheme of a link, which is what it looks for (its source): a text of this is read to its end from
each of its characters."""
# Base64 in both alphabets as well, and whatever is beyond ASCII: what that regular expression takes for a letter is not
# known, and a text too many that goes into the event does no harm.
_UNBROKEN: Final = (string.ascii_letters + string.digits + "_-+/=").encode() + bytes(range(0x80, 0x100))
PACKED: Final = "_zlib_base64"
"""The one key of a result that is stored packed."""
_PACKED_START: Final = b'{"_zlib_base64":'
_PIECE: Final = 20
"""Characters of packed text without a space: the store is soon through them, and none looks like a key or token."""
_BYTES_PER_S: Final = 12_500
"""For the deadline of a PUT: forty times slower than words usually are."""
_WORDS_OF_KEYS: Final = (
    *(b"auth", b"bearer", b"cert", b"credential", b"jwt", b"keychain", b"pem", b"pwd", b"secret", b"token"),
    *(b"passw", b"passphrase"),
    *(b"api_key", b"apikey", b"private_key", b"privatekey", b"ssh_key", b"sshkey", b"gcp_key", b"azure_key"),
    *(b"encryption_key", b"decrypt_key", b"master_key", b"connection_string", b"connectionstring"),
)
"""A key that has one of these in it loses an object or a list: `author` and `certificates` too."""
_WHOLE_KEYS: Final = (
    *(b'"authorization"', b'"proxy_authorization"', b'"www_authenticate"', b'"cookie"', b'"set_cookie"'),
    *(b'"x_api_key"', b'"x_auth_token"', b'"x_access_token"', b'"keychain"'),
)
"""These lose whatever they have."""
_SMALL: Final = bytes(range(256)).lower().replace(b"-", b"_")
"""For `translate`: small letters, and `_` for `-`, in one copy."""
_REST_OF_KEY: Final = re.compile(rb'[^"\\]*(?:\\.[^"\\]*)*"(?:\s*:\s*([\[{]))?', re.DOTALL)
_SECRET_TEXTS: Final = (
    (b'"bearer', re.compile(rb'"bearer[ \\\x80-\xff]')),
    (b'"basic', re.compile(rb'"basic[ \\\x80-\xff]')),
    (b'"eyj', re.compile(rb'"eyj[a-z0-9_]+\.eyj')),
    (b"sk_", re.compile(rb"sk_(?:(?<=[^a-z0-9_]sk_)|(?<=\\[a-z]sk_))[a-z0-9][a-z0-9_]{12}")),
    (b"aiza", re.compile(rb"aiza[a-z0-9_]{20}")),
    *((start, re.compile(re.escape(start))) for start in (b"ya29.", b"github_pat_", b"private key_____")),
    *((start, re.compile(start + rb"[a-z0-9_]{20}")) for start in (b"ghp_", b"gho_", b"ghu_", b"ghs_", b"ghr_")),
    (b"xox", re.compile(rb"xox[abprs]_[a-z0-9_]{20}")),
    (b"key=", re.compile(rb"[?&](?:api_?)?key=")),
    (b"token=", re.compile(rb"[?&](?:(?:access|id|refresh)_?)?token=")),
    *((name, re.compile(rb"[?&]" + name)) for name in (b"client_secret=", b"clientsecret=", b"signature=")),
    (b"://", re.compile(rb'://[^/@\s"\\]*(?:\\.[^/@\s"\\]*)*@')),
)
"""Texts that are taken out as a whole, whatever their key: what is looked for first, and what decides. In small letters
and with `_` for `-`, as the keys. `Basic usage` is among them, and a link with `?token=`."""


class Unbroken(NamedTuple):
    """What JSON has of texts without a space or a punctuation mark."""

    longest: int
    """Bytes."""
    squares: int
    """The sum of the squares of their lengths, as far as the plane is known to read them so."""

    @classmethod
    def of(cls, data: bytes) -> Unbroken:
        known, any_of_them = _lengths(data, _SCHEME_MARKS), _lengths(data, _UNBROKEN_MARKS)
        return cls(max(any_of_them, default=0), sum(length * length for length in known))

    @property
    def holds_up(self) -> bool:
        """Whether a PUT of it would hold up the plane for longer than the budget."""
        return self.longest > _LONGEST_UNBROKEN or self.squares * _S_PER_SQUARE > BUDGET_S


def _marks(members: bytes) -> bytes:
    return bytes(_IN if code in members else _OUT for code in range(256))


_IN, _OUT = b"x."
_SCHEME_MARKS: Final = _marks(_IN_SCHEME)
_UNBROKEN_MARKS: Final = _marks(_UNBROKEN)
_ONE: Final = bytes([_IN]) * _SHORTEST_UNBROKEN


def _lengths(data: bytes, marks: bytes) -> Iterator[int]:
    """Those of the texts that are not short, without a step of Python for each word."""
    marked = data.translate(marks)
    start = marked.find(_ONE)
    while start >= 0:
        end = marked.find(_OUT, start)
        end = end if end >= 0 else len(marked)
        yield end - start
        start = marked.find(_ONE, end)


def holds_up_plane(data: bytes) -> bool:
    """Whether the plane would be at a PUT of this JSON for longer than the budget, whatever its size."""
    return Unbroken.of(data).holds_up


def why_not_stored(data: bytes) -> str | None:
    """For the error of a step that wants it stored: how large it is, and what to do. None: it can be."""
    found = Unbroken.of(data)
    if not found.holds_up:
        return None
    return (
        f"{len(data)} bytes with texts of up to {found.longest} bytes without a space or punctuation are not stored: "
        "this control plane would look through them for seconds or minutes and answer nobody. Break them into lines, "
        "or keep them elsewhere and pass the address"
    )


def is_over_budget(data: bytes) -> bool:
    """Whether a PUT is to be the only one of its kind, by the estimate of its texts and its size."""
    by_size_s = len(data) * _S_PER_BYTE
    return by_size_s > BUDGET_S or by_size_s + Unbroken.of(data).squares * _S_PER_SQUARE > BUDGET_S


def may_redact(data: bytes) -> bool:
    """Whether the Python plane may take something out of this JSON when it stores it. A wrong yes costs bytes only.

    Linear in the size, and more than a loop should wait for above some 100 kB.
    """
    lower = data.translate(_SMALL)
    if any(word in lower and _is_in_key_of_container(word, lower) for word in _WORDS_OF_KEYS):
        return True
    if any(key in lower and re.search(re.escape(key) + rb"\s*:", lower) for key in _WHOLE_KEYS):
        return True
    return any(start in lower and pattern.search(lower) for start, pattern in _SECRET_TEXTS)


def _is_in_key_of_container(word: bytes, lower: bytes) -> bool:
    at = lower.find(word)
    while at >= 0:
        rest = _REST_OF_KEY.match(lower, at)
        if rest is None:
            return False
        if rest[1]:
            return True
        at = lower.find(word, rest.end())  # not from the next byte on: a long text would be read once for each word
    return False


def packed_for_store(data: bytes) -> bytes:
    """JSON in a form in which this store is soon through it, however long its texts are."""
    text = base64.b64encode(zlib.compress(data, 1))
    return json_text.dumps({PACKED: b" ".join(text[at : at + _PIECE] for at in range(0, len(text), _PIECE)).decode()})


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
