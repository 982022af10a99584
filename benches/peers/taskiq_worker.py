"""The yardstick's work as a task of taskiq, with the pull broker of taskiq-nats.

usage: taskiq_worker.py NATS_URL STUB_URL STREAM SUBJECT SLOTS
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any, Final

import orjson
import uvloop
from nats.js.api import ConsumerConfig
from taskiq import BrokerMessage, TaskiqFormatter, TaskiqMessage
from taskiq.api import run_receiver_task
from taskiq_nats import PullBasedJetStreamBroker

sys.path.append(str(Path(__file__).resolve().parents[1]))
from yardstick import Client, do

TASK: Final = "command"


class Notifications(TaskiqFormatter):
    """A notification of the plane is the one argument of the task."""

    def dumps(self, message: TaskiqMessage) -> BrokerMessage:
        raise NotImplementedError("nothing is sent from here")

    def loads(self, message: bytes) -> TaskiqMessage:
        notification = orjson.loads(message)
        return TaskiqMessage(
            task_id=str(notification["event_id"]), task_name=TASK, labels={}, args=[notification], kwargs={}
        )


async def main(nats_url: str, stub_url: str, stream: str, subject: str, slots: int) -> None:
    broker = PullBasedJetStreamBroker(
        nats_url,
        subject,
        stream_name=stream,
        durable="taskiq",
        consumer_config=ConsumerConfig(durable_name="taskiq", filter_subject=subject),
        pull_consume_batch=slots,
        pull_consume_timeout=1,
    ).with_formatter(Notifications())
    client = Client(stub_url)

    @broker.task(TASK)
    async def command(notification: dict[str, Any]) -> None:
        await do(client, notification)

    await run_receiver_task(broker, max_async_tasks=slots, run_startup=True)


if __name__ == "__main__":
    uvloop.run(main(*sys.argv[1:5], int(sys.argv[5])))
