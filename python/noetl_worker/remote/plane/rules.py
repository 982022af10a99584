"""What a dialect decides, and the small things that both of them use."""

from __future__ import annotations

import itertools
import math
import re
import uuid
from collections.abc import Mapping
from typing import Final, NamedTuple, Protocol

from noetl_worker.models.claim import ClaimOutcome
from noetl_worker.models.command import Command, LoopPosition
from noetl_worker.models.fit import MAX_RESULT_BYTES, FittedResult
from noetl_worker.models.report import Report
from noetl_worker.models.tool_result import ToolForm, ToolResult
from noetl_worker.models.wire import CommandId, Dialect, JsonValue
from noetl_worker.remote.plane.names import Names
from noetl_worker.remote.plane.send_status import SendStatus
from noetl_worker.remote.transport.transport import Response
from noetl_worker.text import json_text

SINGLE: Final = "/api/events"
BATCH: Final = "/api/events/batch"
ENDS: Final = ("command.completed", "command.failed")

_PROCESS: Final = uuid.uuid4().hex
_NOT_IN_KEYS: Final = re.compile(r"[^A-Za-z0-9_-]")
_sets = itertools.count(1)


def unique() -> str:
    """A text that no other set of events has: the process's own, and a number."""
    return f"{_PROCESS}{next(_sets):x}"


def stored_name(name: str) -> str:
    """The name that a result is given in the store.

    The Python plane makes a key of NATS of it, and replaces `/` and `:` alone; a result whose key NATS does not take is
    kept in the memory of one server (read in its source). Names that become the same do not meet: behind each the plane
    puts an id of its own (recorded: .../result/start/403da428), as items of a loop have one name anyway.
    """
    return _NOT_IN_KEYS.sub("_", name)


def preview_of(fitted: FittedResult) -> JsonValue:
    return json_text.loads(fitted.preview) if fitted.preview else {"_truncated": True}


class Part(NamedTuple):
    """One request of a command's end, before it is written."""

    path: str
    events: tuple[str, ...]
    """The names of its events, in their order."""
    last: str
    has_own_id: bool
    """Whether it is an end that is posted alone (Rust plane): the plane takes its id from us, and issues the next
    commands inside of this request, work that it drops when it is cut off (protocol/events.md#rust-plane)."""

    @classmethod
    def of(cls, path: str, *events: str, has_own_id: bool = False) -> Part:
        return cls(path, events, events[-1], has_own_id)


class Subject(Protocol):
    """Of a command, what its events say."""

    execution_id: int
    command_id: CommandId
    step: str
    attempt: int
    loop: LoopPosition | None


class Post(NamedTuple):
    """A POST of events."""

    path: str
    headers: Mapping[str, str]
    body: bytes


class DialectRules(Protocol):
    """What one plane decides; what stands here holds for the one that says nothing else."""

    dialect: Dialect
    tools: ToolForm

    # ── claims ──

    lets_same_name_in: bool = False
    """A claim is for ever, and its holder's name is accepted at any time: a worker's name outlives its process. Else a
    claim is a lease, and its holder is refused once it has reported the start."""
    claim_limit_s: float = math.inf
    """From so old a claim on, another worker is given the command, whatever the holder does."""
    stale_after_s: float = math.inf
    """Time without a heartbeat after which its claims are given away."""
    heartbeat_registers: bool = False
    infers_completion: bool = False
    """Whether the plane calls an execution COMPLETED while no command is open, which is so between two steps too."""
    keychain_is_credentials: bool = False
    """Whether a keychain entry is asked for as a credential of the execution (protocol/executions.md#credentials)."""
    makes_bare_stream: bool = False
    """Whether the plane makes the stream of commands itself, with the bare subject, which is the only one it uses."""
    copies_have_text_ids: bool = False
    """Whether a notification that is published again has the command's id as text
    (protocol/notification.md#message)."""

    def is_health(self, body: JsonValue) -> bool:
        """Whether a plane of this dialect answers GET /api/health like this."""

    def playbook_in(self, entry: Mapping[str, JsonValue]) -> JsonValue:
        """The playbook of a catalog's entry (protocol/executions.md#the-catalog).

        Raises:
            DocumentError: it is text, and no YAML.
            ConfigurationError: it is text, and what reads YAML is not installed.
        """

    def read_conflict(self, body: JsonValue, text: str, wait_s: float | None) -> ClaimOutcome:
        """What a claim's 409 means."""

    # ── what a claim has in it ──

    def loop_of(self, meta: Mapping[str, JsonValue]) -> LoopPosition | None:
        """Which item of a loop a command is, by the `meta` of its claim; None: of no loop."""

    step_input_wins: bool = False
    """Whether the step's input wins over the tool's own, key by key."""
    names: Names
    """What the claim has under the names of earlier steps."""
    variables_have_catalog_id: bool = False
    """Whether a claim's variables have the plane's own `catalog_id`, which no workload can replace."""
    ids_are_text: bool = False
    """Whether templates see an execution's id as text."""

    # ── variables and results ──

    reports_output: bool = False
    """Whether what its own worker reports of a tool that succeeded has what the tool printed."""
    error_fails_command: bool = False
    """Whether a tool that returned an error, which no case handled, fails its command; else the playbook goes on."""
    inlines_unstored_results: bool = False
    """Whether a result that the store does not take goes into the event as it is, and not as a preview."""
    looks_through_results: bool = False
    """Whether a PUT of a result may still run when it had no answer, so that it is not repeated."""
    redacts_results: bool = False
    """Whether the store puts "[REDACTED]" in place of what looks like a secret (protocol/results.md#redaction)."""
    store_routes: tuple[str, ...] = ("/api/result",)
    """Paths below one of which a server has its result store."""
    store_fields: Mapping[str, JsonValue]
    """What every PUT of a result has beside it."""

    def is_no_route(self, answer: Response) -> bool:
        """Return whether the server has nothing at this path of its result store, as against no result of that name."""
        return False

    def has_expired(self, answer: Response) -> bool:
        """Return whether the store looks for the result again when it is asked once more."""
        return False

    def is_in_memory(self, reference: Mapping[str, JsonValue]) -> bool:
        """Return whether one server alone has this stored result, until it is restarted."""
        return False

    def is_packed(self, data: bytes) -> bool:
        """Return whether this stored result is in the form that `whole_of` reads."""
        return False

    def whole_of(self, data: bytes) -> bytes:
        """Return the JSON of a stored result, packed or not.

        Raises:
            ControlPlaneError: it is not as it was packed, or too large.
        """
        return data

    def variables_body(self, variables: Mapping[str, JsonValue], source_step: str | None) -> dict[str, JsonValue]: ...

    def result_body(self, result: ToolResult) -> JsonValue:
        """What is fitted to an event, and stored."""

    long_word_bytes: float = math.inf
    """Size from which on a result may have a long word."""

    def has_long_word(self, data: bytes) -> bool:
        """Return whether this result keeps the plane from answering, so that no event may have it."""
        return False

    def inline(self, command: Command, result: ToolResult, fitted: FittedResult, body: JsonValue) -> Report:
        """The report of a result that fits into an event.

        Args:
            body: what was fitted.
        """

    def takes_inline(self, report: Report, fitted: FittedResult, max_bytes: int) -> bool:
        """Whether the plane keeps the context of this report of a result that has at most `max_bytes` as it is."""
        return True

    def by_reference(self, command: Command, result: ToolResult, fitted: FittedResult) -> Report:
        """The report of one that does not."""

    batch_bytes: int | None = None
    """What a batch of events may have, unless the plane has said otherwise."""

    def batch_limit(self, body: bytes) -> int | None:
        """What a batch may have, by the body of its refusal; None: it was refused for something else."""
        return None

    def cut(self, report: Report, step: str, max_bytes: int) -> bool:
        """Take a result out of a report for which a batch of `max_bytes` has no room, to be stored where it is not.

        Returns:
            Whether there was one.
        """
        return False  # no result is in its events that is not within the budget

    max_stored_bytes: int = MAX_RESULT_BYTES - (64 << 10)
    """Size of the largest result, as it is stored, that a later command can be given: it reads it in one answer."""

    def for_store(self, data: bytes) -> bytes:
        """Return JSON that a tool wants stored in the form in which the store is given it; `whole_of` reads it."""
        return data

    def is_stored_alone(self, data: bytes) -> bool:
        """Whether the plane is at a PUT of this for so long that it gets one at a time of these."""
        return False

    def storing_s(self, size: int) -> float:
        """For how long the plane may be at a PUT of so many bytes, over what any request takes."""
        return 0.0

    # ── events ──

    def started(self, command: Subject, worker_id: str) -> Post:
        """The start of a command that still runs, alone."""

    def parts(self, report: Report, *, with_start: bool) -> tuple[Part, ...]:
        """The requests of an end, in the order in which they must be accepted."""

    def judge(self, answer: Response, *, first_try: bool = True, has_own_id: bool = False) -> SendStatus:
        """What the answer to a request of events means.

        Args:
            first_try: whether it was not sent before.
            has_own_id: whether it carried an event id of ours.
        """

    def is_stored(self, answer: Response) -> bool:
        """Return whether a server error to a request of events says that the plane has its event already."""
        return False

    def names_result(self, report: Report) -> bool:
        """Whether the events of this end refer to a stored result."""
        return True

    def new_key(self, execution_id: int) -> str | None:
        """An Idempotency-Key for one request and all its tries, where the plane knows them."""
        return None

    def body(self, command: Subject, worker_id: str, report: Report, part: Part, own_id: int = 0) -> bytes:
        """Return the JSON of one request; `own_id` is its event's id, where the plane takes it from us."""

    def can_rescue(self, command: Subject) -> bool:
        """Return whether `rescue` brings on a batch that the plane stored and never processed."""
        return False

    def rescue(self, command: Subject, worker_id: str, report: Report) -> bytes:
        """Return what is sent in place of such a batch."""
