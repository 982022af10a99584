"""Checks of the NATS permissions that a worker needs. Each permission is tested with a request that changes nothing."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Final

from noetl_worker.cli.doctor.finding import Finding, State, fine
from noetl_worker.remote.jetstream.connection import Connection
from noetl_worker.remote.jetstream.dead_letter_store import DEAD_LETTER_STREAM
from noetl_worker.remote.jetstream.delivery import IN_PROGRESS
from noetl_worker.remote.jetstream.start_notes import BUCKET
from noetl_worker.remote.jetstream.trial import refused_publish, refused_subscribe
from noetl_worker.settings.nats import DEAD_LETTER_SUBJECT
from noetl_worker.settings.settings import Settings

LOOKS: Final = frozenset(
    {"may receive answers", "may find the stream", "may look at the stream", "may look at the durable"}
)
"""Permission checks on which all other checks of NATS depend. If one fails, `doctor` skips the other checks."""
_MAKES_STREAM: Final = "may make the stream"
_MAKES_DURABLE: Final = "may make the durable"
_NOWHERE: Final = {"Nats-Expected-Stream": "noetl-worker-doctor"}
"""Headers of a message that tests a publish permission. JetStream does not store the message, since the expected stream
does not exist."""


@dataclass(frozen=True, slots=True)
class _Need:
    """A NATS permission that a worker needs, and how to test it."""

    what: str
    """The permitted action, as a verb. With `may` before it, it names the check: `may pull commands`."""
    subject: str
    """Subject with which the permission is tested. It may have placeholders: {stream}, {durable}."""
    without: str
    """Text that tells what happens without the permission."""
    state: State = State.WRONG
    """State that `doctor` reports if the permission is missing."""
    body: bytes = b""
    headers: Mapping[str, str] = field(default_factory=dict)
    grant: str = ""
    """Subject to name in the NATS user's permissions; empty if it is the tested `subject`."""
    is_subscription: bool = False
    """True for a permission to subscribe to the subject, False for one to publish to it."""


_FIRST: Final = (
    _Need("receive answers", "{inbox}", "no request is answered", grant="{inboxes}.>", is_subscription=True),
    _Need("find the stream", "$JS.API.STREAM.NAMES", "the start ends"),
)
_BY_OPERATOR: Final = "an operator has to make it"
_ENDLESS: Final = "a command that crashes every worker is not recognised, and is started for ever"
_REST: Final = (
    _Need(
        "make the stream",
        "$JS.API.STREAM.CREATE.{stream}",
        "only an operator or a control plane can make a missing one",
        State.WARNING,
    ),
    _Need("look at the stream", "$JS.API.STREAM.INFO.{stream}", "the start ends"),
    _Need("look at the durable", "$JS.API.CONSUMER.INFO.{stream}.{durable}", "the start ends"),
    _Need(
        "make the durable",
        "$JS.API.CONSUMER.CREATE.{stream}.{durable}",
        "only an operator can make a missing one (noetl-worker nats ensure --apply)",
        State.WARNING,
    ),
    _Need("pull commands", "$JS.API.CONSUMER.MSG.NEXT.{stream}.{durable}", "no command ever comes", body=b"-"),
    _Need(
        "acknowledge commands",
        "$JS.ACK.{stream}.{durable}.1.0.0.0.0",
        "every command comes again, for ever",
        body=IN_PROGRESS,
        grant="$JS.ACK.{stream}.{durable}.>",
    ),
    _Need(
        "keep dead letters",
        "{dead_letters}",
        "a message that can never run is returned for ever",
        headers=_NOWHERE,
    ),
    _Need(
        "make the stream of dead letters",
        f"$JS.API.STREAM.CREATE.{DEAD_LETTER_STREAM}",
        f"{_BY_OPERATOR} before the first dead letter",
        State.WARNING,
    ),
    _Need(
        "look at the stream of dead letters",
        "$JS.API.STREAM.INFO.{kept_in}",
        "nobody can tell whether it loses dead letters, and how many it has",
        State.WARNING,
    ),
    _Need(
        "read dead letters",
        "$JS.API.STREAM.MSG.GET.{kept_in}",
        "the metrics of dead letters stay 0, and `why` and `dead-letters` find none",
        State.WARNING,
    ),
    # a worker runs without these notes
    _Need("read the notes of starts", f"$JS.API.STREAM.MSG.GET.KV_{BUCKET}", _ENDLESS, State.WARNING),
    _Need(
        "note the start of a command",
        f"$KV.{BUCKET}.noetl-worker-doctor",
        _ENDLESS,
        State.WARNING,
        headers=_NOWHERE,
        grant=f"$KV.{BUCKET}.>",
    ),
    _Need(
        "make the bucket of these notes",
        f"$JS.API.STREAM.CREATE.KV_{BUCKET}",
        f"{_BY_OPERATOR} (noetl-worker nats ensure --apply)",
        State.WARNING,
    ),
)
"""Needed permissions that are tested after those in `_FIRST`. A test request has no reply subject, so JetStream ignores
it."""


async def try_first(connection: Connection) -> list[Finding]:
    """Test the two NATS permissions that all further tests need: to receive answers, and to find the stream.

    Return a finding for each permission.
    """
    inbox = str(connection.client.new_inbox())
    names = {"inbox": inbox, "inboxes": inbox.partition(".")[0]}
    return [await _try(connection, need, names) for need in _FIRST]


async def try_rest(connection: Connection, settings: Settings, stream: str, kept_in: str) -> list[Finding]:
    """Try each needed NATS permission that `try_first` has not tried. Return a finding for each.

    Args:
        stream: name of the stream of commands.
        kept_in: name of the stream of dead letters.
    """
    names = {"stream": stream, "durable": settings.nats_consumer, "kept_in": kept_in}
    names["dead_letters"] = DEAD_LETTER_SUBJECT
    return [await _try(connection, need, names) for need in _REST]


def mark_if_fatal(finding: Finding, *, has_stream: bool, has_durable: bool) -> Finding:
    """Return a permission's finding, changed to the state WRONG if the missing permission keeps a worker from starting.

    A worker does not start if its stream or durable is missing and this login may not create it.
    """
    missing = {_MAKES_STREAM: not has_stream, _MAKES_DURABLE: not has_durable}
    is_fatal = missing.get(finding.check, False) and finding.state is not State.FINE
    return replace(finding, state=State.WRONG) if is_fatal else finding


async def _try(connection: Connection, need: _Need, names: Mapping[str, str]) -> Finding:
    check, subject = f"may {need.what}", need.subject.format_map(names)
    if need.is_subscription:
        refused, verb = await refused_subscribe(connection, subject), "subscribe"
    else:
        refused, verb = await refused_publish(connection, subject, need.body, need.headers), "publish"
    grant = need.grant.format_map(names) or subject
    wanted = f"{verb} to {grant}"
    if refused is None:
        return fine(check, "allowed", wanted)
    fix = f'permissions of the NATS user: {verb} = {{ allow: [..., "{grant}"] }}'
    return Finding(check, need.state, f"refused, so {need.without}", wanted, fix)
