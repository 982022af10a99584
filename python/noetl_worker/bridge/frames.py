"""Frames of upstream's feed: the length in four bytes, big-endian, then so many bytes of JSON
(protocol/feed.md#frames)."""

from __future__ import annotations

from typing import Final

from noetl_worker.errors import NoetlWorkerError

MOST_BYTES: Final = 1024 * 1024
"""Largest frame that is read. The recorded ones have 400 bytes."""
_HEAD: Final = 4


class FrameTooLarge(NoetlWorkerError):
    """A frame whose length is above MOST_BYTES."""


def framed(body: bytes) -> bytes:
    """Return the body with its length in front."""
    return len(body).to_bytes(_HEAD, "big") + body


class FrameReader:
    """Cuts the bytes of one connection into frames."""

    def __init__(self) -> None:
        self._buffer = bytearray()
        self._at = 0
        """Start of the next frame."""

    def feed(self, data: bytes) -> None:
        """Add received bytes."""
        if self._at:
            del self._buffer[: self._at]
            self._at = 0
        self._buffer += data

    def next(self) -> bytes | None:
        """Return the body of the next frame, or None until it is complete. Raise FrameTooLarge."""
        begin = self._at + _HEAD
        if len(self._buffer) < begin:
            return None
        size = int.from_bytes(self._buffer[self._at : begin], "big")
        if size > MOST_BYTES:
            raise FrameTooLarge(f"a frame of {size:,} bytes; at most {MOST_BYTES:,} are taken")
        if len(self._buffer) < begin + size:
            return None
        self._at = begin + size
        return bytes(self._buffer[begin : self._at])
