"""Which deliveries are kept alive, and until when."""

from __future__ import annotations

from typing import Any, cast

from noetl_worker.keepalive import Keepalive
from unit.planes import settings

REPLY = "$JS.ACK.NOETL_COMMANDS.noetl_worker.1.2.2.1790000022953000000.0"


def test_two_deliveries_with_one_reply_subject_are_kept_until_the_second_is_settled() -> None:
    """A durable that is made again counts from 1 again (found by the simulator)."""
    keepalive = Keepalive(settings(), cast(Any, None), cast(Any, None), version="0", engine="rust")
    keepalive.track(REPLY, 0.0)
    keepalive.track(REPLY, 1.0)
    keepalive.untrack(REPLY)
    assert keepalive.is_expired(REPLY)  # it is still known
    keepalive.untrack(REPLY)
    assert not keepalive.is_expired(REPLY)
