"""The stage `preparing`: makes a Command from a claim's answer. References are resolved, JSON texts parsed, and the
input merged.

Fields arrive as objects, as JSON text, or as references to the result store (protocol/command.md#python-plane). A task
sequence's `tool_config` is {"tasks": [...]} on one plane and a list on the other. Keys for the worker only (`cases`,
`input`) are removed from the config, and the loop's bookkeeping from the input, so a tool sees only its own fields.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any, Final

from noetl_worker.errors import AnswerTooLarge, ConfigurationError, DocumentError, ToolError
from noetl_worker.models.command import Command
from noetl_worker.models.fit import LESS_ADVICE
from noetl_worker.models.marks import ALL, Marks
from noetl_worker.models.notification import Envelope
from noetl_worker.models.spellings import INPUTS
from noetl_worker.models.wire import JsonValue, texts_in, with_scalars
from noetl_worker.pipeline.command.referred_results import fill_referred_results
from noetl_worker.process.threads import finished_off_loop, off_loop
from noetl_worker.remote.plane.client import Plane
from noetl_worker.remote.plane.names import Names
from noetl_worker.remote.plane.patience import COMMAND_TRIES, retry_while_passing
from noetl_worker.remote.plane.rules import DialectRules
from noetl_worker.text import json_text
from noetl_worker.text.templates.redacted import check_given, mark_stored
from noetl_worker.text.templates.template import PlainText, has_template

_REFERENCE_KINDS: Final = frozenset({"result_ref", "temp_ref"})
_STORED_CONTEXT: Final = "__context_ref__"
"""Key under which the Rust plane's answer to a claim may have a reference instead of the command's context. The reason
is that the plane failed to read a large context from its own result store (source of server 3.54.0). The worker then
asks the store for the context."""
_NAMES: Final = "render_context"
_MAX_HOPS: Final = 4
"""Number of look-ups after which the worker refuses a field of a command. Each look-up fetches the value behind a
reference, or parses a JSON string. The new value may again be a reference or a JSON string, without end."""
_CASES: Final = ("cases", "case")
_LOOP: Final = "__loop_"
_MOST_COMPARED: Final = 10_000_000
"""Largest number of string comparisons for one command, about a second of work. The comparisons find strings
that have template marks but are data, not templates."""
_TOO_MANY_TEMPLATES: Final = (
    "this command's fields and variables have too many different texts with template marks ({{ or {%), and the worker "
    "cannot tell which texts are data: pass fewer of them to one step, or let the tool read the texts from their source"
)
_MARKS: Final = (("{{", "}}"), ("{%", "%}"))


def is_reference(value: JsonValue) -> bool:
    """Return whether a value is a reference to a value in the result store: `{kind: result_ref, ref: ...}`. The kind
    may also be `temp_ref`."""
    return isinstance(value, dict) and value.get("kind") in _REFERENCE_KINDS and isinstance(value.get("ref"), str)


def bare_command(body: Mapping[str, JsonValue], envelope: Envelope, plane: Plane) -> Command:
    """Return the command with empty config, input, variables and cases. With this command, the worker can report a
    failure even if those parts of the claim are invalid."""
    meta: Mapping[str, JsonValue] = body.get("meta") or {}
    return Command(
        execution_id=envelope.execution_id,
        event_id=envelope.event_id,
        command_id=_command_id(meta, envelope),
        step=str(body["node_name"]),
        kind=str(body["action"]),
        config={},
        input={},
        variables={},
        cases=(),
        meta=meta,
        server_url=plane.url,
        dialect=plane.dialect,
        attempt=_attempt(meta),
        loop=plane.rules.loop_position(meta),
        catalog_id=_text_or_none(meta.get("catalog_id")),
    )


async def hydrate(
    body: Mapping[str, JsonValue],
    envelope: Envelope,
    plane: Plane,
    *,
    bare: Command | None = None,
    marks: Marks = ALL,
    size: int = 0,
) -> Command:
    """Return the complete command: with the config, input, variables and cases from the claim's answer.

    Args:
        body: the claim's answer; claim.py has checked that execution_id, node_name and action are there.
        bare: the command without config, input, variables and cases (`bare_command`), if the caller has made it.
        marks: tells whether the claim may contain templates, references or secrets.
        size: bytes of the claim's answer. A large command is read in threads, so that the event loop goes on.

    Raises:
        ConfigurationError: a field has a form that no plane sends; the text names the field.
        RedactedValue: the plane has replaced a value in the config or the input by "[REDACTED]".
        ControlPlaneError: a reference cannot be resolved now.
    """
    redacted: list[str] = []
    command = bare or bare_command(body, envelope, plane)
    command.size = size
    if marks.references:  # a stored result may contain anything
        marks = ALL
    context = body.get("context") or {}
    if type(context) is dict and _STORED_CONTEXT in context:
        marks, context = ALL, {"kind": "result_ref", "ref": context[_STORED_CONTEXT]}
    if marks.references or type(context) is not dict:
        context = await _object(context, "context", command, plane, redacted)
    config = await _config(context.get("tool_config"), command, plane, redacted)
    variables = await _object(context.get(_NAMES), _NAMES, command, plane, redacted)
    step_input = (
        await _step_input(context, command, plane, redacted) if context.get("args") or context.get("input") else {}
    )
    given = _input(step_input, config, plane.rules)
    cases = _cases(context, config)
    if redacted:
        await off_loop(command.size, partial(check_given, [config, given, cases]))
    if marks.templates and "tasks" not in config:  # the plane renders no list of tasks, so its marks are no data
        config, given = await _with_data_marked([config, given], variables, command.size)
    if marks.references:
        variables = await fill_referred_results(variables, [config, given], cases, command, plane, redacted)
    names = plane.rules.names
    named = partial(names.make_template_names, variables, step_input)
    if names.has_packed(variables):  # compressed results, which the plane may have copied into the config too
        config, given = await finished_off_loop(lambda: (_whole(config, names), _whole(given, names)))
        variables = await finished_off_loop(named)
    else:
        variables = named()
    if "action" not in variables:
        variables["action"] = command.kind
    if "node_name" not in variables:
        variables["node_name"] = command.step
    command.config, command.input, command.variables, command.cases = config, given, variables, cases
    if not command.catalog_id and plane.rules.variables_have_catalog_id and "catalog_id" in variables:
        command.catalog_id = _text_or_none(variables["catalog_id"])
    command.marks, command.redacted = marks, redacted
    return command


async def _resolved(value: JsonValue, name: str, command: Command, plane: Plane, redacted: list[str]) -> JsonValue:
    """Return the value of a field: follow references to the result store, and parse JSON text.

    Args:
        name: the field's name, for errors.
        redacted: list of paths. The path of each value that the plane has replaced by "[REDACTED]" is added.
    """
    for _ in range(_MAX_HOPS):
        if is_reference(value):
            ref: str = value["ref"]
            ask = partial(plane.stored_result, ref, value)
            try:
                value, packed = await retry_while_passing(name, ask, max_tries=COMMAND_TRIES, ids=command.log_ids)
            except AnswerTooLarge as error:
                text = f"the {name} of step {command.step!r}, with the results of earlier steps in it, is too large"
                raise ToolError(f"{text}: {error}: {LESS_ADVICE}", kind="resource") from error
            below = "" if name == _NAMES else name
            command.size += len(packed)
            mark = partial(mark_stored, value, packed, below, redacts=plane.rules.redacts_results)
            redacted += await off_loop(len(packed), mark)
        elif isinstance(value, str) and value[:1] in ("{", "["):
            try:
                value = await off_loop(len(value), partial(json_text.loads, value))
            except DocumentError as error:
                text = (
                    f"the control plane sent {name} as text that is not JSON ({error}): correct the step, or report "
                    "this as a bug"
                )
                raise ConfigurationError(text) from error
        else:
            return value
    raise ConfigurationError(
        f"the command's {name} is a chain of {_MAX_HOPS} or more references or JSON strings: let the earlier step "
        "return the value itself"
    )


async def _object(value: JsonValue, name: str, command: Command, plane: Plane, redacted: list[str]) -> dict[str, Any]:
    if type(value) is dict and "ref" not in value:
        return dict(value)
    return _require_object(await _resolved(value, name, command, plane, redacted), name, "an object")


def _require_object(value: JsonValue, name: str, expected: str) -> dict[str, Any]:
    """Return a copy of the object `value`, or an empty object for None. Raise ConfigurationError for any other
    value."""
    if value is not None and not isinstance(value, dict):
        text = f"the command's {name} must be {expected}, not {type(value).__name__}"
        raise ConfigurationError(f"{text}: correct the step, or report this as a bug")
    return dict(value or {})


async def _config(value: JsonValue, command: Command, plane: Plane, redacted: list[str]) -> dict[str, Any]:
    config = value
    if type(value) is not dict or "ref" in value:
        config = await _resolved(value, "tool_config", command, plane, redacted)
        if isinstance(config, list):
            return {"tasks": config}
        config = _require_object(config, "tool_config", "an object or a list")
    # The Python plane sends nulls as place holders (`spec`, `output`).
    return {key: config[key] for key in config if config[key] is not None}


async def _step_input(
    context: Mapping[str, JsonValue], command: Command, plane: Plane, redacted: list[str]
) -> dict[str, Any]:
    """Return the step's input, including the loop's bookkeeping (keys `__loop_*`). If `context.args` and
    `context.input` have the same key, the value in `context.input` counts."""
    merged: dict[str, Any] = {}
    for name in INPUTS:
        merged.update(await _object(context.get(name), name, command, plane, redacted))
    return merged


def _input(step_input: Mapping[str, Any], config: dict[str, Any], rules: DialectRules) -> dict[str, Any]:
    """Return the step's input merged with the tool's own input, and remove the tool's input from the config.

    If both inputs have a key, the step's value counts on the Python plane (recorded: step-input). On the Rust plane the
    tool's value counts.
    """
    step = {key: item for key, item in step_input.items() if not key.startswith(_LOOP)} if step_input else {}
    own: dict[str, Any] = {}
    for name in INPUTS:
        if name in config and isinstance(config[name], dict):
            own.update(config.pop(name))
    if not own:
        return step
    return {**own, **step} if rules.step_input_wins else {**step, **own}


async def _with_data_marked(
    fields: list[dict[str, Any]], variables: Mapping[str, JsonValue], size: int
) -> list[dict[str, Any]]:
    """Return the tool's config and input. Each string that looks like a template but is data becomes a PlainText, which
    is never rendered.

    The plane has already rendered the config of a single tool. A string that still has template marks is data from a
    variable, or a template that the plane could not render.

    Raises:
        ConfigurationError: there are too many template-like strings to compare.
    """
    find = partial(_template_like_data, fields, variables)
    data = await off_loop(size, find)
    return await finished_off_loop(partial(_marked, fields, data)) if data else fields


def _template_like_data(fields: JsonValue, variables: Mapping[str, JsonValue]) -> list[str]:
    """Return the strings in the variables (results of earlier steps, the workload) that have template marks. The
    longest string comes first. The strings are data, so a copy in the config or input must not be rendered (`_marked`).

    Return an empty list if the config and input (`fields`) have no template marks, because they then have no such copy.
    """
    if not has_template(fields):
        return []
    return sorted({text for text in texts_in(variables) if has_template(text)}, key=len, reverse=True)


def _marked(fields: Sequence[dict[str, Any]], data: Sequence[str]) -> list[dict[str, Any]]:
    """Return the config and the input, protected from rendering data as a template. Each string whose template marks
    come from strings in `data` becomes a PlainText, which is never rendered.

    Args:
        fields: the config and the input.
        data: the strings with template marks in the command's variables, the longest first.
    """
    equal, closed = frozenset(data), list(filter(_has_closed_marks, data))
    compared = 0

    def is_data(text: str) -> bool:
        nonlocal compared
        if text in equal:
            return True
        compared += len(data)
        if compared > _MOST_COMPARED:
            raise ConfigurationError(_TOO_MANY_TEMPLATES)
        left = text
        for item in closed:
            left = left.replace(item, "")
        return not has_template(left) or (not _has_closed_marks(left) and any(item in left for item in data))

    def marked(item: JsonValue) -> JsonValue:
        return PlainText(item) if has_template(item) and is_data(item) else item

    return [with_scalars(value, marked) for value in fields]


def _has_closed_marks(text: str) -> bool:
    """Return whether a string has an opening template mark and later the closing mark, as in `{{ name }}`. A regular
    expression would take quadratic time."""
    return any((at := text.find(start)) >= 0 and text.find(end, at + 2) >= 0 for start, end in _MARKS)


def _whole(value: Any, names: Names) -> Any:
    """Return a tool's config or input with each packed result unpacked (`Names.unpack`). On the Python plane, the
    worker stores some results packed, that is, compressed. Template-like strings in these results become PlainText,
    which is never rendered."""
    if isinstance(value, dict):
        whole = names.unpack(value)
        if whole is not value:
            return with_scalars(whole, lambda item: PlainText(item) if has_template(item) else item)
        return {key: _whole(item, names) for key, item in value.items()}
    return [_whole(item, names) for item in value] if isinstance(value, list) else value


def _cases(context: Mapping[str, JsonValue], config: dict[str, Any]) -> Sequence[JsonValue]:
    """Return the cases from the context, or from the config if the context has none. The key is `cases` or `case`.
    Remove both keys from the config."""
    found: JsonValue = None
    for name in _CASES:
        if name in context and found is None:
            found = context[name]
    for name in _CASES:
        if name in config:
            own = config.pop(name)
            found = own if found is None else found
    return found if isinstance(found, list) else []


def _command_id(meta: Mapping[str, JsonValue], envelope: Envelope) -> int | str:
    """Return the command's id as the notification has it: as a number or as a string, because the planes distinguish
    the two (protocol/notification.md#message). If the claim's metadata (`meta`) has a different id, return that id."""
    command_id = envelope.command_id
    from_meta = meta.get("command_id")
    if from_meta == command_id:
        return command_id
    if isinstance(from_meta, (int, str)) and not isinstance(from_meta, bool) and str(from_meta) != str(command_id):
        return from_meta
    return command_id


def _attempt(meta: Mapping[str, JsonValue]) -> int:
    """Return the number of the attempt, or 1 if the plane sent no number. The plane sends `attempt`; NoETL's
    published worker reads `attempts` (protocol/command.md#python-plane)."""
    value = meta["attempt"] if "attempt" in meta else meta.get("attempts", 1)
    return value if type(value) is int else 1


def _text_or_none(value: JsonValue) -> str | None:
    return None if value is None else str(value)
