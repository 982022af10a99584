"""What a hostile server or author sends: deep, wide, dense, long, packed, broken, in pieces of any size."""

from __future__ import annotations

import gzip
import json
import random
from collections.abc import Callable, Iterator
from typing import Final, NamedTuple

SHAPES: Final[dict[str, Callable[[int], bytes]]] = {
    "deep": lambda size: b"[" * (size // 2) + b"]" * (size // 2),
    "deep objects": lambda size: b'{"a":' * (size // 6) + b"1" + b"}" * (size // 6),
    "dense": lambda size: b"[" + b"[]," * (size // 3) + b"[]]",
    "wide": lambda size: b"{" + b",".join(b'"k%d":%d' % (number, number) for number in range(size // 14)) + b"}",
    "rows": lambda size: b"[" + b",".join(b'{"c%d":1}' % number for number in range(size // 12)) + b"]",
    "long text": lambda size: b'"' + b"a" * size + b'"',
    "escapes": lambda size: b'"' + b"\\u0041" * (size // 6) + b'"',
    "long word": lambda size: b"a" * size,
    "digits": lambda size: b"[" + b"1" * size + b"]",
    "long numbers": lambda size: b"[" + b"12345678901234567890123," * (size // 24) + b"1]",
    "base of 60": lambda size: b"a: " + b"1:" * (size // 2) + b"1",
    "semicolons": lambda size: b"a: multipart/x" + b';"' * (size // 2),
    "lines": lambda size: b"data:\n" * (size // 6),
    "events": lambda size: b"data: {}\n\n" * (size // 10),
    "bullets": lambda size: b"- a\n" * (size // 4),
    "quotes": lambda size: b"''" * (size // 2),
    "comments": lambda size: b"/*" * (size // 2),
    "braces": lambda size: b"{{ " * (size // 3),
    "null": bytes,
    "not text": lambda size: b"\xff\xfe" * (size // 2),
    "packed": lambda size: gzip.compress(b"a" * size * 100, 9),
}
"""By name, what has about so many bytes."""
FRAMES: Final = (
    b"%b",
    b"data: %b",
    b"data: %b\n\n",
    b'{"jsonrpc":"2.0","id":2,"result":%b}',
    b'{"items":%b}',
    b'{"access_token":"t","expires_in":%b}',
    b'{"config":%b,"state":{}}',
    b'{"message":{"subject":"s","seq":1,"time":"2026-01-01T00:00:00Z","data":"","hdrs":%b}}',
    b'{"private_key":%b,"client_email":"a"}',
    b"select %b",
    b"a: %b\n",
    b"NATS/1.0\r\n%b\r\n\r\n",
)
"""What a shape stands in, so that it reaches what is behind the first look."""
_VALUES: Final = (None, True, 7, -1.5, "x", "", [], {}, [{}], {"a": None}, [[7]], {"name": 1, "uid": {}}, 10**30)


class Document(NamedTuple):
    """One input, and the size of the pieces that it comes in."""

    data: bytes
    piece: int

    def pieces(self) -> Iterator[bytes]:
        return (self.data[start : start + self.piece] for start in range(0, len(self.data), self.piece))


def document(dice: random.Random, most: int) -> Document:
    """Return an input of at most about `most` bytes."""
    size = int(2 ** dice.uniform(0, most.bit_length() - 1))
    inner = _odd(dice) if dice.random() < 0.3 else dice.choice(list(SHAPES.values()))(size)
    data = dice.choice(FRAMES).replace(b"%b", inner)
    if dice.random() < 0.3:
        data = _broken(dice, data)
    smallest = 1 if len(data) < 20_000 else len(data) // 20_000
    return Document(data, max(smallest, dice.choice((1, 7, 100, 4096, 65_536))))


def _odd(dice: random.Random) -> bytes:
    """JSON in a form that nobody expects."""
    names = (
        "status",
        "conditions",
        "containerStatuses",
        "metadata",
        "name",
        "uid",
        "tools",
        "content",
        "text",
        "error",
    )
    found = {name: dice.choice(_VALUES) for name in dice.sample(names, dice.randrange(len(names)))}
    return json.dumps(dice.choice((found, [found, found], dice.choice(_VALUES)))).encode()


def _broken(dice: random.Random, data: bytes) -> bytes:
    """Cut, doubled, or with other bytes in it."""
    at, end = sorted((dice.randrange(len(data) + 1), dice.randrange(len(data) + 1)))
    return dice.choice(
        (data[:at], data[:at] + data[end:], data[:end] + data[at:], data[:at] + dice.randbytes(9) + data[at:])
    )
