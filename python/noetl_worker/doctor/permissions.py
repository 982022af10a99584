"""Each thing that a worker does with NATS, tried under this login; made so that nothing comes of the trial."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Final

from noetl_worker.doctor.finding import Finding, State, fine
from noetl_worker.jetstream.connection import Connection
from noetl_worker.jetstream.dead_letter_store import DEAD_LETTER_STREAM
from noetl_worker.jetstream.delivery import IN_PROGRESS
from noetl_worker.jetstream.start_notes import BUCKET
from noetl_worker.jetstream.trial import refused_publish, refused_subscribe
from noetl_worker.settings.settings import Settings

LOOKS: Final = frozenset(
    {"may receive answers", "may find the stream", "may look at the stream", "may look at the durable"}
)
"""Without these nothing more can be found out."""
_MAKES_STREAM: Final = "may make the stream"
_MAKES_DURABLE: Final = "may make the durable"
_NOWHERE: Final = {"Nats-Expected-Stream": "noetl-worker-doctor"}
"""JetStream stores no message that expects another stream than it would go to."""


@dataclass(frozen=True, slots=True)
class _Need:
    what: str
    subject: str
    """What is tried."""
    without: str
    state: State = State.WRONG
    body: bytes = b""
    headers: Mapping[str, str] = field(default_factory=dict)
    grant: str = ""
    """What the user needs; empty: the subject."""
    is_subscription: bool = False


def _first_needs(inbox: str) -> list[_Need]:
    return [
        _Need(
            "receive answers", inbox, "no request is answered", grant=f"{inbox.split('.')[0]}.>", is_subscription=True
        ),
        _Need("find the stream", "$JS.API.STREAM.NAMES", "the start ends"),
    ]


def _needs(settings: Settings, stream: str, kept_in: str) -> list[_Need]:
    """Requests go without a reply subject, which JetStream does nothing with."""
    durable, api = settings.nats_consumer, "$JS.API"
    return [
        _Need(
            "make the stream",
            f"{api}.STREAM.CREATE.{stream}",
            "one that is missing is made by an operator or a control plane alone",
            State.WARNING,
        ),
        _Need("look at the stream", f"{api}.STREAM.INFO.{stream}", "the start ends"),
        _Need("look at the durable", f"{api}.CONSUMER.INFO.{stream}.{durable}", "the start ends"),
        _Need(
            "make the durable",
            f"{api}.CONSUMER.CREATE.{stream}.{durable}",
            "one that is missing is made by an operator alone (noetl-worker nats ensure --apply)",
            State.WARNING,
        ),
        _Need(
            "pull commands",
            f"{api}.CONSUMER.MSG.NEXT.{stream}.{durable}",
            "no command ever comes",
            body=b"-",
        ),
        _Need(
            "acknowledge commands",
            f"$JS.ACK.{stream}.{durable}.1.0.0.0.0",
            "every command comes again, for ever",
            body=IN_PROGRESS,
            grant=f"$JS.ACK.{stream}.{durable}.>",
        ),
        *_needs_of_dead_letters(settings, api, kept_in),
        *_needs_of_the_notes(api),
    ]


def _needs_of_dead_letters(settings: Settings, api: str, kept_in: str) -> list[_Need]:
    return [
        _Need(
            "keep dead letters",
            settings.dead_letter_subject,
            "a message that can never run is returned for ever",
            headers=_NOWHERE,
        ),
        _Need(
            "make the stream of dead letters",
            f"{api}.STREAM.CREATE.{DEAD_LETTER_STREAM}",
            "it is to be made by an operator before the first dead letter",
            State.WARNING,
        ),
        _Need(
            "look at the stream of dead letters",
            f"{api}.STREAM.INFO.{kept_in}",
            "it is not known whether it loses some, and how many it keeps",
            State.WARNING,
        ),
        _Need(
            "read dead letters",
            f"{api}.STREAM.MSG.GET.{kept_in}",
            "the metrics of kept ones stay 0, and `why` and `dead-letters` find none",
            State.WARNING,
        ),
    ]


def _needs_of_the_notes(api: str) -> list[_Need]:
    """A worker runs without them."""
    not_found = "a command that ends each worker it runs in is not found, and is started for ever"
    return [
        _Need("read the notes of starts", f"{api}.STREAM.MSG.GET.KV_{BUCKET}", not_found, State.WARNING),
        _Need(
            "note the start of a command",
            f"$KV.{BUCKET}.noetl-worker-doctor",
            not_found,
            State.WARNING,
            headers=_NOWHERE,
            grant=f"$KV.{BUCKET}.>",
        ),
        _Need(
            "make the bucket of these notes",
            f"{api}.STREAM.CREATE.KV_{BUCKET}",
            "it is to be made by an operator (noetl-worker nats ensure --apply)",
            State.WARNING,
        ),
    ]


async def first_tried(connection: Connection) -> list[Finding]:
    """What it takes to ask anything at all."""
    return [await _try(connection, need) for need in _first_needs(str(connection.client.new_inbox()))]


async def tried(connection: Connection, settings: Settings, stream: str, kept_in: str) -> list[Finding]:
    """The rest, one finding for each thing; `kept_in`: the stream of dead letters."""
    return [await _try(connection, need) for need in _needs(settings, stream, kept_in)]


def before_the_start(finding: Finding, *, has_stream: bool, has_durable: bool) -> Finding:
    """As it is where one of the two is missing: who may not make it does not start."""
    missing = {_MAKES_STREAM: not has_stream, _MAKES_DURABLE: not has_durable}
    is_fatal = missing.get(finding.check, False) and finding.state is not State.FINE
    return replace(finding, state=State.WRONG) if is_fatal else finding


async def _try(connection: Connection, need: _Need) -> Finding:
    check = f"may {need.what}"
    if need.is_subscription:
        refused, verb = await refused_subscribe(connection, need.subject), "subscribe"
    else:
        refused, verb = await refused_publish(connection, need.subject, need.body, need.headers), "publish"
    grant = need.grant or need.subject
    wanted = f"{verb} to {grant}"
    if refused is None:
        return fine(check, "allowed", wanted)
    fix = f'permissions of the NATS user: {verb} = {{ allow: [..., "{grant}"] }}'
    return Finding(check, need.state, f"refused, so {need.without}", wanted, fix)
