"""The format of requests and answers on a command's socket.

A request is a length in 8 bytes and one JSON object. An answer is one JSON object. Before the first answer, the
command's process sends its process id in 8 bytes.

The template process (`python_template.py`), from which commands are forked, reads this file by path. So this file
imports only the standard library.
"""

from __future__ import annotations

import json
import os
import struct
from typing import Any

LENGTH = struct.Struct("!Q")
PROCESS_ID = struct.Struct("!Q")
decode = json.JSONDecoder().raw_decode
"""Decoder for JSON that the worker wrote. It skips the checks of `json.loads`, because the text begins with the value
and nothing follows."""
encode = json.JSONEncoder(separators=(",", ":")).encode


def begin(channel: int, process: int) -> None:
    """Report to the worker that the command begins, before its request is read. Before this report a command has no
    effect. If the worker has closed its end of the socket, the report fails (BrokenPipeError) and the command never
    runs.

    `process` is the process id by which the worker itself can kill the command. The value 0 means that the
    process which starts the command (`python_template.py`) kills it, not the worker.
    """
    os.write(channel, PROCESS_ID.pack(process))


def receive(channel: int) -> Any:
    """Wait for the next request and return it. Raises EOFError if the worker has closed its end of the socket."""
    (length,) = LENGTH.unpack(receive_exactly(channel, LENGTH.size))
    return decode(receive_exactly(channel, length).decode())[0]


def receive_exactly(channel: int, size: int) -> bytes:
    """Read exactly `size` bytes from the descriptor of a socket. The function creates no socket object, because
    creating one writes to further memory pages. The kernel copies each page to which a forked child writes."""
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
