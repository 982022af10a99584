"""The yardstick's work as a handler of FastStream, with its own pull subscriber and acknowledgement.

usage: faststream_worker.py NATS_URL STUB_URL STREAM SUBJECT SLOTS
"""

from __future__ import annotations

import logging
import sys
from pathlib import Path
from typing import Any

import uvloop
from faststream import AckPolicy, FastStream
from faststream.nats import JStream, NatsBroker, PullSub

sys.path.append(str(Path(__file__).resolve().parents[1]))
from yardstick import Client, do


async def main(nats_url: str, stub_url: str, stream: str, subject: str, slots: int) -> None:
    broker = NatsBroker(nats_url, logger=None)
    client = Client(stub_url)

    @broker.subscriber(
        subject,
        durable="faststream",
        stream=JStream(stream, declare=False),
        pull_sub=PullSub(batch_size=slots, timeout=1),
        max_workers=slots,
        ack_policy=AckPolicy.NACK_ON_ERROR,
    )
    async def handle(notification: dict[str, Any]) -> None:
        await do(client, notification)

    await FastStream(broker, logger=None).run(log_level=logging.WARNING)


if __name__ == "__main__":
    uvloop.run(main(*sys.argv[1:5], int(sys.argv[5])))
