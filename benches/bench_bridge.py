"""What one bridge process does: records a second, how long one takes, its memory; beside bare publishes to JetStream.

`python benches/bench_bridge.py` writes bridge.json and the page: the bridge as a process, a real nats-server.
"""

from __future__ import annotations

import asyncio
import compileall
import statistics
import sys
import tempfile
import time
from collections import deque
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__, "../../tests").resolve()))

import performance_page
from bench_worker import where_and_when
from bridge.feed import body_of, command, event_ids, framed
from integration.processes import SOURCE, WorkerProcess
from noetl_worker.authoring.dev.nats_server import NatsServer, free_port
from noetl_worker.process import event_loop
from noetl_worker.remote.jetstream.connection import connect
from noetl_worker.settings.settings import load_settings

_RECORDS = 20_000
_WINDOW = 500
"""Records that are sent before the first of them is acknowledged."""


async def records_a_second(port: int, count: int) -> float:
    """Send them as fast as they are acknowledged."""
    frames = [framed(body_of(command(number))) for number in range(count)]
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    began_s = time.perf_counter()
    sent = done = 0
    while done < count:
        if sent < min(done + _WINDOW, count):
            writer.write(b"".join(frames[sent : min(done + _WINDOW, count)]))
            sent = min(done + _WINDOW, count)
        done += len(await reader.readexactly(8 * max(1, min(_WINDOW // 4, count - done)))) // 8
    took_s = time.perf_counter() - began_s
    writer.close()
    return count / took_s


async def times_ms(port: int, count: int, a_second: float) -> list[float]:
    """How long each took at this rate."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    sent_at: deque[float] = deque()
    took: list[float] = []

    async def read() -> None:
        while len(took) < count:
            await reader.readexactly(8)
            took.append((time.perf_counter() - sent_at.popleft()) * 1000)

    reading = asyncio.ensure_future(read())
    began_s = time.perf_counter()
    for number in range(count):
        await asyncio.sleep(max(0.0, began_s + number / a_second - time.perf_counter()))
        frame = framed(body_of(command(5_000_000 + number)))
        sent_at.append(time.perf_counter())
        writer.write(frame)
    await reading
    writer.close()
    return took


async def bare_a_second(url: str, count: int) -> float:
    """Publishes of the same payloads, by nats-py alone, as many in flight."""
    connection = await connect(load_settings({"NATS_URL": url}), "bare")
    jetstream = connection.client.jetstream(publish_async_max_pending=_WINDOW)
    payloads = [command(9_000_000 + number) for number in range(count)]
    began_s = time.perf_counter()
    for one in payloads:
        headers = {"Nats-Msg-Id": str(one["global_sequence"])}
        subject = f"noetl.commands.shared.{one['execution_id']}"
        await jetstream.publish_async(subject, one["payload"].encode(), headers=headers, wait_stall=30)
    await jetstream.publish_async_completed()
    took_s = time.perf_counter() - began_s
    await connection.close()
    return count / took_s


async def measured(records: int) -> dict[str, Any]:
    """All figures of one run."""
    port = free_port()
    with tempfile.TemporaryDirectory() as directory:
        async with NatsServer() as server:
            variables = {"NATS_URL": server.url, "WORKER_METRICS_BIND": "127.0.0.1:0", "LOG_LEVEL": "info"}
            words = ["bridge", "--publish", f"127.0.0.1:{port}"]
            bridge = WorkerProcess(Path(directory), "bridge", variables, words)
            try:
                await bridge.wait_logged("bridge_started")
                idle_mb, _ = bridge.memory_mb()
                rate = await records_a_second(port, records)
                bare = await bare_a_second(server.url, records)
                took = sorted(await times_ms(port, max(500, records // 20), 500.0))
                _, most_mb = bridge.memory_mb()
                assert await bridge.stop() == 0
            finally:
                bridge.end()
            stored = len(await event_ids(server))
    assert stored == 2 * records + len(took), "none is lost"
    return {
        "records": records,
        "window": _WINDOW,
        "records_a_second": rate,
        "bare_publishes_a_second": bare,
        "ms_at_500_a_second": {"p50": statistics.median(took), "p99": took[len(took) * 99 // 100]},
        "rss_mb": [idle_mb, most_mb],
    }


def main() -> None:
    compileall.compile_dir(SOURCE, quiet=1)  # as it is installed; compiling takes 1 to 9 MB of the process's memory
    found = where_and_when()
    performance_page.keep("bridge", {**found, "publish": event_loop.run(measured(_RECORDS))})


if __name__ == "__main__":
    main()
