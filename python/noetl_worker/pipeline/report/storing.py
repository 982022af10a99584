"""The request that stores a result that is too large for an event: a PUT to the result store, before the events."""

from __future__ import annotations

from noetl_worker.errors import NotSent, TransportError
from noetl_worker.models.report import Upload
from noetl_worker.models.wire import fields_of
from noetl_worker.pipeline.outbox.event_set import EventSet
from noetl_worker.remote.plane.answers import CUT_BY_A_PROXY, not_found
from noetl_worker.remote.plane.client import Plane, refusal
from noetl_worker.remote.plane.send_status import SendStatus, judge
from noetl_worker.remote.transport.transport import Response


async def try_to_store(
    plane: Plane, event_set: EventSet, upload: Upload, patience_s: float | None
) -> tuple[Response | None, SendStatus, str]:
    """Send a result to the result store once. Return the store's answer or None, its meaning, and the reason why the
    result is not stored.

    The Python plane may still be processing a PUT that got no answer. A second PUT would block the plane for all
    clients for the same time again (protocol/results.md#redaction). So the worker sends no second PUT.
    """
    execution_id, may_still_run = event_set.execution_id, event_set.rules.may_still_store
    if event_set.was_tried and may_still_run:
        return None, SendStatus.REFUSED, "it was sent before, and the control plane may still be processing it"
    event_set.was_tried = True
    try:
        answer = await plane.store_result(
            execution_id, upload.name, upload.data, source_step=upload.source_step, patience_s=patience_s
        )
    except NotSent as error:
        event_set.was_tried = False
        return None, SendStatus.PASSING, str(error)
    except TransportError as error:
        return None, SendStatus.REFUSED if may_still_run else SendStatus.PASSING, str(error)
    event_set.was_tried = answer.status in CUT_BY_A_PROXY
    if event_set.was_tried and may_still_run:
        return answer, SendStatus.REFUSED, str(refusal("PUT result", answer))
    how = judge(answer)
    if how is SendStatus.ACCEPTED and not isinstance(fields_of(answer.json()).get("ref"), str):
        how = SendStatus.UNCERTAIN  # an answer without a `ref` is not the store's: the result is not stored
    # A 413 is final, even from a proxy. A 404 of the plane itself means: no result store.
    if how is SendStatus.UNCERTAIN and (answer.status == 413 or not_found(answer)):
        how = SendStatus.REFUSED
    return answer, how, str(refusal("PUT result", answer))
