"""Interface for what differs between the two planes, such as which events a worker sends and how it reads a claim.

It has defaults, and functions that both dialects use.
"""

from __future__ import annotations

import itertools
import math
import re
import uuid
from collections.abc import Mapping
from typing import Final, NamedTuple, Protocol

from noetl_worker.models.claim import ClaimAnswer
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
NOTED: Final = "command.noted"
"""Name of the event with which the worker sends notes for people to the Python plane. The plane stores events of any
name, and acts only on actionable events (recorded: noted-batch)."""

_PROCESS: Final = uuid.uuid4().hex
_NOT_IN_KEYS: Final = re.compile(r"[^A-Za-z0-9_-]")
_sets = itertools.count(1)


def unique() -> str:
    """Return a new unique string for an Idempotency-Key: a random string of this process, and a counter."""
    return f"{_PROCESS}{next(_sets):x}"


def stored_name(name: str) -> str:
    """Return a name for a result in the store. Characters that NATS forbids in a key are replaced by `_`.

    The Python plane makes a NATS key of the name, and replaces only `/` and `:`. If NATS refuses the key, the plane
    puts the result into one server's memory (read in the plane's source). Results with the same name (all items of a
    loop) do not collide: the plane appends an id (recorded: .../result/start/403da428).
    """
    return _NOT_IN_KEYS.sub("_", name)


def read_preview(fitted: FittedResult) -> JsonValue:
    return json_text.loads(fitted.preview) if fitted.preview else {"_truncated": True}


class EventRequest(NamedTuple):
    """Path and event names of a request that reports terminal events of a command. The request's body is made later."""

    path: str
    events: tuple[str, ...]
    """Names of the events, in order."""
    has_own_id: bool = False
    """True for a terminal event that is posted alone (Rust plane). The worker makes the id of this event. The plane
    issues the next commands inside this request. If the request is cut off, the plane drops the next commands
    (protocol/events.md#rust-plane)."""

    @property
    def last(self) -> str:
        return self.events[-1]


class CommandFields(Protocol):
    """Fields of a command that the command's events contain."""

    execution_id: int
    command_id: CommandId
    step: str
    attempt: int
    loop: LoopPosition | None


class Post(NamedTuple):
    path: str
    headers: Mapping[str, str]
    body: bytes


class DialectRules(Protocol):
    """Rules of one plane's dialect, such as limits, paths and contents of requests. The values in this class are
    defaults, which a dialect may override."""

    dialect: Dialect
    tools: ToolForm

    # ── claims ──

    accepts_same_worker: bool = False
    """True: a claim never expires, and the same worker id may claim the command again, even after a restart. False: a
    claim is a lease. After the holder has reported the start, the plane refuses a second claim by the holder."""
    claim_limit_s: float = math.inf
    """Age of a claim, in seconds, from which another worker may get the command, even if the holder is healthy."""
    stale_after_s: float = math.inf
    """Seconds without a heartbeat after which the plane gives a worker's commands to other workers."""
    heartbeat_registers: bool = False
    infers_completion: bool = False
    """True if the plane reports an execution as COMPLETED whenever no command is open, even between two steps."""
    keychain_is_credentials: bool = False
    """True if the worker reads a keychain entry by the plane's credentials route, as a credential of the execution
    (protocol/executions.md#credentials)."""
    makes_bare_stream: bool = False
    """True if the plane itself makes the stream of commands, with NATS_SUBJECT as its only subject. The plane then
    publishes to no other subject."""
    copies_have_text_ids: bool = False
    """True if the plane writes the command id as text when the plane publishes a notification again
    (protocol/notification.md#message)."""

    def is_health(self, body: JsonValue) -> bool:
        """Return whether a plane of this dialect answers GET /api/health with this body."""

    def playbook_in(self, entry: Mapping[str, JsonValue]) -> JsonValue:
        """Return the playbook in an entry of the plane's catalog (protocol/executions.md#the-catalog).

        Raises:
            DocumentError: the playbook's text is not YAML.
            ConfigurationError: no YAML reader is installed.
        """

    def read_conflict(self, body: JsonValue, text: str, wait_s: float | None) -> ClaimAnswer:
        """Return the meaning of a 409 that answers a claim.

        Args:
            text: description of the answer, for the log.
            wait_s: Retry-After of the answer.
        """

    # ── the content of a claim ──

    def loop_position(self, meta: Mapping[str, JsonValue]) -> LoopPosition | None:
        """Return the loop position in the `meta` of a claim, or None outside a loop."""

    step_input_wins: bool = False
    """True if the step's input overrides the tool's own input, key by key. False: the tool's own input wins."""
    names: Names
    """Object that finds the results of earlier steps in this plane's answer to a claim, and completes them for
    templates."""
    variables_have_catalog_id: bool = False
    """True if the plane itself puts `catalog_id` into a claim's variables. No workload can replace this value."""
    ids_are_text: bool = False
    """True if templates see an execution's id as text."""

    # ── variables and results ──

    reports_output: bool = False
    """True if the plane's own worker reports the output (stdout) of a tool that succeeded. This worker's notes for
    people then leave the output out."""
    loop_has_last_events: bool = False
    """True if the result of a loop, as later steps see it, consists of each item's last event. If the
    worker put its notes for people into that event, later steps would get the notes too."""
    error_fails_command: bool = False
    """True if an error that a tool returned fails the command, unless a case handled the error. If false, the playbook
    goes on."""
    inlines_unstored_results: bool = False
    """True if a result that the store refuses goes into the event in full, not as a preview."""
    may_still_store: bool = False
    """True if the plane may still store a result whose PUT got no answer. Such a PUT is not repeated."""
    redacts_results: bool = False
    """True if the store replaces whatever looks like a secret by "[REDACTED]" (protocol/results.md#redaction)."""
    store_routes: tuple[str, ...] = ("/api/result",)
    """Possible paths of a server's result store."""
    store_fields: Mapping[str, JsonValue]
    """Further fields in the body of every PUT of a result, such as `scope`."""

    def is_no_route(self, answer: Response) -> bool:
        """Return whether a 404 means that the server has no result store at this path. A 404 for a missing result does
        not count."""
        return False

    def has_expired(self, answer: Response) -> bool:
        """Return whether the answer says that a stored result has expired in one server's memory. The caller then asks
        once more, because the plane may still find the result elsewhere."""
        return False

    def is_in_memory(self, reference: Mapping[str, JsonValue]) -> bool:
        """Return whether this reference is to a result that only one server has, in memory. The next restart of that
        server loses the result."""
        return False

    def is_packed(self, data: bytes) -> bool:
        """Return whether this stored result is packed (compressed), so that `whole_result` has to unpack it."""
        return False

    def whole_result(self, data: bytes) -> bytes:
        """Return the JSON of a stored result. If the stored form is packed (compressed), decompress it first.

        Raises:
            ControlPlaneError: the packed result is damaged, or too large.
        """
        return data

    def variables_body(self, variables: Mapping[str, JsonValue], source_step: str | None) -> dict[str, JsonValue]: ...

    def result_body(self, result: ToolResult) -> JsonValue:
        """Return the value that represents this result in an event or in the result store."""

    long_word_bytes: float = math.inf
    """Number of bytes in a row without a separator that count as a long word. A shorter result needs no check by
    `has_long_word`. Infinite if long words do not slow the plane down."""

    def has_long_word(self, data: bytes) -> bool:
        """Return whether this result has a very long word. The plane's search for secrets in an event with a very long
        word would keep the plane from answering."""
        return False

    def inline(self, command: Command, result: ToolResult, fitted: FittedResult, body: JsonValue) -> Report:
        """Return a report that contains the whole result, for a result that fits into an event.

        Args:
            fitted: `body` after redaction, as JSON.
            body: the result as `result_body` returns it.
        """

    def takes_inline(self, report: Report, fitted: FittedResult, max_bytes: int) -> bool:
        """Return whether the plane would store this report's context unchanged, so that the result may go into the
        event itself. `max_bytes` is the plane's limit on a context, in bytes."""
        return True

    def reference_report(self, command: Command, result: ToolResult, fitted: FittedResult) -> Report:
        """Return a report with a preview of the result, and the result as an upload to the result store. Used for a
        result that does not fit into an event."""

    batch_bytes: int | None = None
    """Largest number of bytes of a batch of events, until a refusal by the plane names another limit. None: no limit is
    known."""

    def batch_limit(self, body: bytes) -> int | None:
        """Return the size limit of a batch of events, in bytes, that the body of a refusal names. Return None if the
        refusal has another reason."""
        return None

    def shrink(self, report: Report, step: str, max_bytes: int) -> bool:
        """Take the result out of a report that is too large for a batch of `max_bytes`. The result goes to the result
        store instead.

        Returns:
            True if the report had a result to take out.
        """
        return False  # results in the events are small enough

    max_stored_bytes: int = MAX_RESULT_BYTES - (64 << 10)
    """Largest number of bytes of a stored result. The plane sends the result to a later command in one answer, and the
    size of an answer is limited."""

    def store_form(self, data: bytes) -> bytes:
        """Return a tool's JSON in the format for the result store. `whole_result` reads this format."""
        return data

    def is_stored_alone(self, data: bytes) -> bool:
        """Return whether the plane takes long to store a result with this JSON. The worker sends such results one at a
        time."""
        return False

    def storing_s(self, size: int) -> float:
        """Return how many extra seconds a request may take to store a result of `size` bytes, beyond its usual time."""
        return 0.0

    # ── events ──

    def started(self, command: CommandFields, worker_id: str) -> Post:
        """Return the request that reports only the start of a command."""

    def requests(self, report: Report, *, with_start: bool) -> tuple[EventRequest, ...]:
        """Return the requests of the terminal events, in order. The plane must accept a request before the next request
        is sent."""

    def judge(self, answer: Response, *, first_try: bool = True, has_own_id: bool = False) -> SendStatus:
        """Return the meaning of the answer to a request with events.

        Args:
            first_try: the request was not sent before.
            has_own_id: the request carried an event id that the worker made.
        """

    def is_stored(self, answer: Response) -> bool:
        """Return whether a server error says that the plane has already stored the event in the request."""
        return False

    def names_result(self, report: Report) -> bool:
        """Return whether the terminal events refer to a stored result."""
        return True

    def new_key(self, execution_id: int) -> str | None:
        """Return an Idempotency-Key for one request and all its tries, or None if the plane does not use such keys."""
        return None

    def body(
        self, command: CommandFields, worker_id: str, report: Report, part: EventRequest, own_id: int = 0
    ) -> bytes:
        """Return the JSON body of one request (`part`) of a report. If `part.has_own_id`, the body has `own_id` as the
        id of its event."""

    def can_rescue(self, command: CommandFields) -> bool:
        """Return whether a new request, made by `rescue`, can replace a batch of the command's events that the plane
        stored but never processed."""
        return False

    def rescue(self, command: CommandFields, worker_id: str, report: Report) -> bytes:
        """Return the body of a request that replaces a batch which the plane never processed. Allowed only if
        `can_rescue` returns True for the command."""
