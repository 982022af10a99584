"""A NATS server that says it is an older one: what its clients go by is the version in INFO."""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress

from integration.wire import serving


@asynccontextmanager
async def older_server(port: int, version: str) -> AsyncIterator[str]:
    """The address of one in front of the server at `port`."""

    async def passed(source: asyncio.StreamReader, sink: asyncio.StreamWriter) -> None:
        with suppress(OSError):
            while data := await source.read(65_536):
                sink.write(data)
                await sink.drain()
        sink.close()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        from_server, to_server = await asyncio.open_connection("127.0.0.1", port)
        info = await from_server.readline()
        writer.write(re.sub(rb'"version":"[^"]*"', b'"version":"%s"' % version.encode(), info))
        await asyncio.gather(passed(reader, to_server), passed(from_server, writer))

    async with serving(serve) as url:
        yield url.replace("http://", "nats://")
