"""A client of NATS for tests: after its `flush`, the server has read what was sent before it.

`nats.connect` gives one whose `flush` can return before the server has a SUB: what is published then is missed.
"""

from __future__ import annotations

from typing import Any

from noetl_worker.remote.jetstream.client import Client


async def connected(url: str, **options: Any) -> Client:
    client = Client()
    await client.connect(url, **options)
    return client
