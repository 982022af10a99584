"""Request and answer of a command on its socket.

The request is 8 bytes of length and one JSON object. The answer is 8 bytes with the id of the command's process,
sent before anything else, and one JSON object.

This file is read by path into the template process, like `python_template.py`, so it imports only the standard
library.
"""

from __future__ import annotations

import json
import os
import struct
from typing import Any

LENGTH = struct.Struct("!Q")
PROCESS_ID = struct.Struct("!Q")
decode = json.JSONDecoder().raw_decode
"""Decoder for a text that begins with its value, as the worker writes it, without the checks of `json.loads`."""
encode = json.JSONEncoder(separators=(",", ":")).encode


def begin(channel: int, process: int) -> None:
    """Report that the command begins, before its request is read. Before this report a command has no effect. If the
    worker has closed its end, the report fails (BrokenPipeError) and the command never runs. `process` is 0 if the
    parent process ends the command."""
    os.write(channel, PROCESS_ID.pack(process))


def receive(channel: int) -> Any:
    """Return the next request. Raises EOFError if the worker has closed its end."""
    (length,) = LENGTH.unpack(receive_exactly(channel, LENGTH.size))
    return decode(receive_exactly(channel, length).decode())[0]


def receive_exactly(channel: int, size: int) -> bytes:
    """Read `size` bytes from the descriptor itself: memory that a socket object touches would be copied for each
    child."""
    parts = bytearray()
    while len(parts) < size:
        data = os.read(channel, min(size - len(parts), 1 << 20))
        if not data:
            raise EOFError("the worker closed the socket of the command")
        parts += data
    return bytes(parts)


def send(channel: int, answer: dict[str, Any]) -> None:
    send_text(channel, encode(answer))


def send_text(channel: int, text: str) -> None:
    data = text.encode()
    sent = os.write(channel, data)
    while sent < len(data):
        sent += os.write(channel, memoryview(data)[sent:])
