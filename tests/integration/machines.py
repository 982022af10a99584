"""A machine with a network of its own, as far as a process can tell: a network namespace with loopback alone."""

from __future__ import annotations

import asyncio
import contextlib
import ctypes
import fcntl
import os
import socket
import struct
from collections.abc import AsyncIterator, Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Final, TypeVar

import pytest

T = TypeVar("T")
_NEW_NETWORK: Final = 0x4000_0000
_SET_FLAGS: Final = 0x8914
_UP: Final = 0x1


class Machine:
    """Runs calls in its network. A process that one of them starts stays there."""

    def __init__(self) -> None:
        self._inside: Final = ThreadPoolExecutor(1)

    async def run(self, call: Callable[[], T]) -> T:
        return await asyncio.get_running_loop().run_in_executor(self._inside, call)

    async def reach(self, port: int, stack: AsyncExitStack) -> None:
        """Lead a port of its loopback to the same one of ours, which it could not reach otherwise."""
        listening = await self.run(lambda: socket.create_server(("127.0.0.1", port)))

        async def lead(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            there, back = await asyncio.open_connection("127.0.0.1", port)
            await asyncio.gather(_copied(reader, back), _copied(there, writer))

        server = await asyncio.start_server(lead, sock=listening)
        stack.callback(server.close)

    def close(self) -> None:
        self._inside.shutdown()


async def _copied(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    with contextlib.suppress(ConnectionError):
        while data := await reader.read(65_536):
            writer.write(data)
            await writer.drain()
    writer.close()


def _begin() -> None:
    if ctypes.CDLL(None, use_errno=True).unshare(_NEW_NETWORK) != 0:
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))
    with socket.socket() as any_socket:
        fcntl.ioctl(any_socket, _SET_FLAGS, struct.pack("16sh14x", b"lo", _UP))


@asynccontextmanager
async def machine(*ports: int) -> AsyncIterator[Machine]:
    """A machine that reaches these ports of ours. Skips the test where no network can be made."""
    made = Machine()
    async with AsyncExitStack() as stack:
        stack.callback(made.close)
        try:
            await made.run(_begin)
        except (OSError, AttributeError) as error:
            pytest.skip(f"no network namespace: {error}")
        for port in ports:
            await made.reach(port, stack)
        yield made
