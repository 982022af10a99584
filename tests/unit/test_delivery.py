"""The age of a delivery, whatever the clocks of the NATS server and of the worker show."""

from __future__ import annotations

import time
from unittest.mock import patch

import pytest
from nats.aio.msg import Msg

from noetl_worker.remote.jetstream.client import Client
from noetl_worker.remote.jetstream.delivery import Delivery


def received(stored_at: float, *, wall_offset_s: float = 0.0) -> Delivery:
    """Return a delivery received at monotonic time 1000, which the server stored at `stored_at` in its wall time."""
    reply = f"$JS.ACK.STREAM.durable.1.1.1.{round(stored_at * 1e9)}.0"
    return Delivery(Client(), Msg(_client=Client(), reply=reply), 1000.0, wall_offset_s=wall_offset_s)


@pytest.mark.parametrize("wall_offset_s", [0.0, 1.7e9])
def test_age_counts_from_the_time_at_which_the_stream_stored_the_message(wall_offset_s: float) -> None:
    delivery = received(990.0 + wall_offset_s, wall_offset_s=wall_offset_s)
    with patch.object(time, "monotonic", return_value=1005.0):
        assert delivery.age_s() == 15.0


def test_message_of_a_server_whose_clock_is_ahead_is_as_old_as_its_receipt() -> None:
    """A wait below zero would make the metric's sum fall, and a counter that falls looks like a new worker."""
    delivery = received(1003.0)
    assert delivery.stored_at == delivery.received_at == 1000.0
    with patch.object(time, "monotonic", return_value=1000.5):
        assert delivery.age_s() == 0.5
