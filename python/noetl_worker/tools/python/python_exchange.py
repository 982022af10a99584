"""Request and answer of a command, by its socket: 8 bytes of length and one JSON object in; out, 8 bytes with the id of
its process before anything else, and one JSON object.

Read by path into the template process, as `python_template.py` is: the standard library only.
"""

from __future__ import annotations

import json
import os
import struct
from typing import Any

LENGTH = struct.Struct("!Q")
PROCESS_ID = struct.Struct("!Q")
decode = json.JSONDecoder().raw_decode
"""Of a text that begins with its value, as the worker writes it: without what `json.loads` looks at before."""
encode = json.JSONEncoder(separators=(",", ":")).encode


def begin(channel: int, process: int) -> None:
    """Said before the request is looked at: a command that has not said it has had no effect, and never will when the
    worker has closed its end (BrokenPipeError). `process`: 0 where it is the process above that ends it."""
    os.write(channel, PROCESS_ID.pack(process))


def receive(channel: int) -> Any:
    """Raises EOFError: the worker has closed its end."""
    (length,) = LENGTH.unpack(receive_exactly(channel, LENGTH.size))
    return decode(receive_exactly(channel, length).decode())[0]


def receive_exactly(channel: int, size: int) -> bytes:
    """From the descriptor itself: what a socket object touches would be copied for each child."""
    data = os.read(channel, min(size, 1 << 20))
    if len(data) == size:
        return data
    parts = bytearray(data)
    while len(parts) < size:
        if not data:
            raise EOFError("the worker closed the socket of the command")
        data = os.read(channel, min(size - len(parts), 1 << 20))
        parts += data
    return bytes(parts)


def send(channel: int, answer: dict[str, Any]) -> None:
    send_text(channel, encode(answer))


def send_text(channel: int, text: str) -> None:
    data = text.encode()
    sent = os.write(channel, data)
    while sent < len(data):
        sent += os.write(channel, memoryview(data)[sent:])
