"""Frames of upstream's command feed: the body's length in four bytes, big-endian, then the body, which is JSON
(protocol/feed.md#frames)."""

from __future__ import annotations

import asyncio
from typing import Final

from noetl_worker.bridge.peer import PeerSilent
from noetl_worker.bridge.record import NotARecord

MOST_BYTES: Final = 1024 * 1024
"""Largest body of a frame that the bridge accepts, in bytes. Bodies in recordings of a real plane have 400 bytes."""
_HEAD: Final = 4


def framed(body: bytes) -> bytes:
    """Return the body as a frame of upstream's command feed: its length in four bytes, then the body."""
    return len(body).to_bytes(_HEAD, "big") + body


async def read_frame(reader: asyncio.StreamReader, most_s: float | None = None) -> bytes:
    """Read the next frame and return its body.

    Args:
        most_s: seconds within which the frame has to begin, or None without a limit.

    Raises:
        NotARecord: the body is larger than MOST_BYTES.
        PeerSilent: the frame does not begin in time.
        OSError, asyncio.IncompleteReadError: the connection has ended.
    """
    try:
        head = await asyncio.wait_for(reader.readexactly(_HEAD), most_s)
    except asyncio.TimeoutError:
        raise PeerSilent(f"no data for {most_s:g} s") from None
    size = int.from_bytes(head, "big")
    if size > MOST_BYTES:
        raise NotARecord(f"the frame has {size:,} bytes, more than the {MOST_BYTES:,} that the bridge takes")
    return await reader.readexactly(size)
