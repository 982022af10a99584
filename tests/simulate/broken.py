"""Deliberate bugs: each breaks one promise of the product, and some seed has to notice."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext, suppress
from typing import Any, Final
from unittest import mock

from noetl_worker.authoring.dev.database import EPOCH_MS
from noetl_worker.errors import ClaimLost
from noetl_worker.models import HeldByOther, Report
from noetl_worker.models.disposition import Disposition, DispositionKind
from noetl_worker.pipeline.command.claimed_command import ClaimedCommand
from noetl_worker.pipeline.command.handover import ClaimOwnership
from noetl_worker.pipeline.delivery import acknowledge
from noetl_worker.pipeline.delivery.dead_letter import DeadLetters
from noetl_worker.pipeline.delivery.in_flight import InFlight, Seen
from noetl_worker.pipeline.delivery.keepalive import InProgress
from noetl_worker.pipeline.outbox.event_set import EventSet
from noetl_worker.pipeline.report import emitter
from noetl_worker.pipeline.report.events import CommandEvents
from noetl_worker.remote.jetstream.delivery import Delivery
from noetl_worker.remote.plane.client import ControlPlaneClient
from noetl_worker.remote.plane.python.rules import PythonRules
from noetl_worker.remote.plane.rust.event_ids import EventIds
from noetl_worker.remote.plane.send_status import SendStatus
from noetl_worker.worker.recovery.recent_batches import RecentBatches


async def _ack_early(command: ClaimedCommand, report: Report) -> Disposition:
    asyncio.ensure_future(_report(command, report))  # noqa: RUF006 - losing it is the bug
    return acknowledge.REPORTED


_report: Final = ClaimedCommand._report


async def _start_late(events: CommandEvents) -> bool:
    return False


async def _say_nothing(*_: Any, **__: Any) -> None:
    return None


def _ack_what_others_hold(disposition: Any, num_delivered: int, **options: Any) -> Disposition:
    if isinstance(disposition, HeldByOther):
        return Disposition(DispositionKind.FINISHED_BEFORE)
    return _answer_to_claim(disposition, num_delivered, **options)


_answer_to_claim: Final = acknowledge.answer_to_claim


def _new_id_each_time(sender: emitter.Emitter, event_set: Any) -> None:
    if event_set.has_own_id:
        event_set.own_id, event_set.was_tried = sender.ids.next_id(), False


async def _try_with_a_new_key(sender: emitter.Emitter, plane: Any, event_set: Any, *rest: Any) -> Any:
    _new_id_each_time(sender, event_set)
    if event_set.idempotency_key is not None:
        event_set.idempotency_key += "x"
    return await _try(sender, plane, event_set, *rest)


_try: Final = emitter.Emitter._try


async def _not_kept(*_: Any, **__: Any) -> bool:
    return True


def _always_new(*_: Any) -> Seen:
    return Seen.NEW


def _take_no_note(*_: Any) -> None:
    return None


def _never_lost(*_: Any) -> bool:
    return False


def _by_the_clock(ids: EventIds, event_id: int) -> int:
    return (int(time.time() * 1000) - EPOCH_MS) << 22 | event_id & 0x3FFFFF


def _never_expired(*_: Any) -> bool:
    return False


def _never_nak(delivery: Delivery, delay_s: float) -> Any:
    return _say_nothing()


def _fail_at_once(rules: Any, answer: Any, **_: Any) -> SendStatus:
    return SendStatus.ACCEPTED if 200 <= answer.status < 300 else SendStatus.REFUSED


def _row_without_result(event_set: EventSet) -> tuple[bytes, bytes | None]:
    upload, event_set.report.upload = event_set.report.upload, None
    try:
        return _packed(event_set)
    finally:
        event_set.report.upload = upload


_packed: Final = EventSet.packed


async def _ask_and_tell_all_the_same(ownership: ClaimOwnership) -> None:
    with suppress(ClaimLost):
        await _confirm(ownership)


_confirm: Final = ClaimOwnership.confirm


async def _within_the_limit(client: ControlPlaneClient, *args: Any, on_sent: Any = None, **options: Any) -> Any:
    return await _send(client, *args, **options)


_send: Final = ControlPlaneClient.send


BUGS: Final[dict[str, Callable[[], Any]]] = {
    "acked_before_the_end_is_accepted": lambda: mock.patch.object(ClaimedCommand, "_report", _ack_early),
    "started_sent_after_the_end": lambda: mock.patch.object(CommandEvents, "_take_held", _start_late),
    "nak_dropped": lambda: mock.patch.object(Delivery, "nak", _never_nak),
    "in_progress_never_sent": lambda: mock.patch.object(InProgress, "_extend", _say_nothing),
    "held_by_another_is_acked": lambda: mock.patch.object(acknowledge, "answer_to_claim", _ack_what_others_hold),
    "another_id_and_key_at_each_try": lambda: mock.patch.object(emitter.Emitter, "_try", _try_with_a_new_key),
    "not_looked_whether_it_is_in_flight": lambda: mock.patch.object(InFlight, "classify", _always_new),
    "ids_follow_the_clock": lambda: mock.patch.object(EventIds, "next_above", _by_the_clock),
    "dead_letter_not_stored": lambda: mock.patch.object(DeadLetters, "store", _not_kept),
    "expired_and_told_unasked": lambda: mock.patch.object(InProgress, "is_expired", _never_expired),
    "result_not_in_the_outbox": lambda: mock.patch.object(EventSet, "packed", _row_without_result),
    "told_although_another_has_it": lambda: mock.patch.object(ClaimOwnership, "confirm", _ask_and_tell_all_the_same),
    "an_end_is_cut_off": lambda: mock.patch.object(ControlPlaneClient, "send", _within_the_limit),
    "accepted_batches_are_not_remembered": lambda: mock.patch.object(RecentBatches, "accepted", _take_no_note),
    "open_batches_are_not_named": lambda: mock.patch.object(RecentBatches, "stop", _say_nothing),
    "what_waits_is_never_lost": lambda: mock.patch.object(RecentBatches, "_is_lost", _never_lost),
    "a_passing_trouble_fails_the_command": lambda: mock.patch.object(PythonRules, "judge", _fail_at_once),
}


@contextmanager
def with_bug(name: str | None) -> Iterator[None]:
    """Inside, the product has this bug; None: it has none."""
    with BUGS[name]() if name is not None else nullcontext():
        yield
