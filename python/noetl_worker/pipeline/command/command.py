"""Stage 4: a claim's answer -> a Command: references resolved, JSON-string fields parsed, input bound.

Fields arrive as objects, as JSON text, or as a reference to the result store (protocol/command.md#python-plane); a task
sequence's `tool_config` is {"tasks": [...]} on one plane and a list on the other. Keys that only the worker reads
(`cases`, `input`, the loop's bookkeeping) are taken out here, so that a tool sees its own fields alone.
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
from noetl_worker.models.wire import JsonValue, texts_in
from noetl_worker.pipeline.command.referred_results import with_referred_results
from noetl_worker.process.threads import finished_off_loop
from noetl_worker.remote.plane.client import Plane
from noetl_worker.remote.plane.names import Names
from noetl_worker.remote.plane.patience import COMMAND_TRIES, until_it_passes
from noetl_worker.remote.plane.rules import DialectRules
from noetl_worker.text import json_text
from noetl_worker.text.templates.redacted import check_given, mark_stored
from noetl_worker.text.templates.template import PlainText, has_template

_REFERENCE_KINDS: Final = frozenset({"result_ref", "temp_ref"})
_STORED_CONTEXT: Final = "__context_ref__"
"""Of a context over 512 kB the Rust plane sends this reference alone where its own store does not answer it (source of
server 3.54.0): without what it stands for, the command would run with nothing in it."""
_NAMES: Final = "render_context"
_MAX_HOPS: Final = 4
"""A reference may point to a reference; a longer chain is a loop."""
_CASES: Final = ("cases", "case")
_LOOP: Final = "__loop_"
_MARKS: Final = (("{{", "}}"), ("{%", "%}"))


def is_reference(value: JsonValue) -> bool:
    """Whether a field was moved to the result store: {kind: result_ref | temp_ref, ref: ...}."""
    return isinstance(value, dict) and value.get("kind") in _REFERENCE_KINDS and isinstance(value.get("ref"), str)


def bare_command(body: Mapping[str, JsonValue], envelope: Envelope, plane: Plane) -> Command:
    """Who the command is, without its context: enough to report on it, whatever the context turns out to be."""
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
        loop=plane.rules.loop_of(meta),
        catalog_id=_text_or_none(meta.get("catalog_id")),
    )


async def hydrate(
    body: Mapping[str, JsonValue],
    envelope: Envelope,
    plane: Plane,
    *,
    bare: Command | None = None,
    marks: Marks = ALL,
) -> Command:
    """Make the command.

    Args:
        body: the claim's answer, checked by claim.py to have execution_id, node_name and action.
        bare: the command without its context, where it is made already.
        marks: what the claim may have in it.

    Raises:
        ConfigurationError: a field has a form no plane sends; the text names it.
        RedactedValue: the plane has put "[REDACTED]" in place of a value in the config or the input.
        ControlPlaneError: a reference cannot be resolved (may pass).
    """
    redacted: list[str] = []
    command = bare or bare_command(body, envelope, plane)
    if marks.references:  # what the store has may have anything in it
        marks = ALL
    context = body.get("context") or {}
    if type(context) is dict and _STORED_CONTEXT in context:
        marks, context = ALL, {"kind": "result_ref", "ref": context[_STORED_CONTEXT]}
    if marks.references or type(context) is not dict:
        context = await _object(context, "context", command, plane, redacted)
    config = await _config(context.get("tool_config"), command, plane, redacted)
    variables = await _object(context.get(_NAMES), _NAMES, command, plane, redacted)
    of_step = (
        await _step_input(context, command, plane, redacted) if context.get("args") or context.get("input") else {}
    )
    given = _input(of_step, config, plane.rules)
    cases = _cases(context, config)
    if redacted:
        check_given([config, given, cases])
    is_list = "tasks" in config  # the tasks of a list are as their author wrote them
    if marks.templates and not is_list and has_template([config, given]):
        # Texts of earlier steps and of the workload that look like templates, the longest first.
        data = sorted({text for text in texts_in(variables) if has_template(text)}, key=len, reverse=True)
        config, given = _marked(config, data), _marked(given, data)
    if marks.references:
        variables = await with_referred_results(variables, [config, given], cases, command, plane, redacted)
    names = plane.rules.names
    named = partial(names.of_templates, variables, of_step)
    if names.has_packed(variables):  # the plane may have put it into the config as well, as it does with any value
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
    """References followed, JSON text parsed. `redacted`: where the plane has taken something out is added to it."""
    for _ in range(_MAX_HOPS):
        if is_reference(value):
            ref: str = value["ref"]
            ask = partial(plane.stored_result, ref, value)
            try:
                value, packed = await until_it_passes(name, ask, max_tries=COMMAND_TRIES, ids=command.who)
            except AnswerTooLarge as error:
                text = f"the {name} of step {command.step!r}, with the results of earlier steps in it, is too large"
                raise ToolError(f"{text}: {error}: {LESS_ADVICE}", kind="resource") from error
            below = "" if name == _NAMES else name
            redacted += mark_stored(value, packed, below, redacts=plane.rules.redacts_results)
        elif isinstance(value, str) and value[:1] in ("{", "["):
            try:
                value = json_text.loads(value)
            except DocumentError as error:
                raise ConfigurationError(f"the command's {name} is text that is not JSON: {error}") from error
        else:
            return value
    raise ConfigurationError(f"the command's {name} is a reference to a reference, more than {_MAX_HOPS} deep")


async def _object(value: JsonValue, name: str, command: Command, plane: Plane, redacted: list[str]) -> dict[str, Any]:
    if type(value) is dict and "ref" not in value:
        return dict(value)
    resolved = await _resolved(value, name, command, plane, redacted)
    if resolved is None:
        return {}
    if not isinstance(resolved, dict):
        raise ConfigurationError(f"the command's {name} is {type(resolved).__name__}, expected an object")
    return dict(resolved)


async def _config(value: JsonValue, command: Command, plane: Plane, redacted: list[str]) -> dict[str, Any]:
    config = value
    if type(value) is not dict or "ref" in value:
        config = await _resolved(value, "tool_config", command, plane, redacted)
        if config is None:
            return {}
        if isinstance(config, list):
            return {"tasks": config}
        if not isinstance(config, dict):
            text = f"the command's tool_config is {type(config).__name__}, expected an object or a list"
            raise ConfigurationError(text)
    # Null place holders of the Python plane (`spec`, `output`) say nothing.
    return {key: config[key] for key in config if config[key] is not None}


async def _step_input(
    context: Mapping[str, JsonValue], command: Command, plane: Plane, redacted: list[str]
) -> dict[str, Any]:
    """The step's input with the loop's bookkeeping (`__loop_*`): `context.input`, else `args`."""
    merged: dict[str, Any] = {}
    for name in INPUTS:
        merged.update(await _object(context.get(name), name, command, plane, redacted))
    return merged


def _input(of_step: Mapping[str, Any], config: dict[str, Any], rules: DialectRules) -> dict[str, Any]:
    """The step's input and the tool's own one, which leaves the config.

    Key by key the tool's wins, and on the Python plane the step's (recorded: step-input).
    """
    step = {key: item for key, item in of_step.items() if not key.startswith(_LOOP)} if of_step else {}
    own: dict[str, Any] = {}
    for name in INPUTS:
        if name in config and isinstance(config[name], dict):
            own.update(config.pop(name))
    if not own:
        return step
    return {**own, **step} if rules.step_input_wins else {**step, **own}


def _marked(value: Any, data: Sequence[str]) -> Any:
    """A tool's config with its texts that hold data as PlainText.

    The plane has rendered the config of a single tool: what looks like a template in it came out of a value, or it is
    the author's and the plane could not render it.
    """
    if isinstance(value, str):
        return PlainText(value) if has_template(value) and _is_of_data(value, data) else value
    if isinstance(value, dict):
        return {key: _marked(item, data) for key, item in value.items()}
    return [_marked(item, data) for item in value] if isinstance(value, list) else value


def _is_of_data(text: str, data: Sequence[str]) -> bool:
    left = text
    for item in data:
        if _has_closed_marks(item):
            left = left.replace(item, "")
    if not has_template(left):
        return True
    return not _has_closed_marks(left) and any(item in left for item in data)


def _has_closed_marks(text: str) -> bool:
    """Not a pattern: from each mark on it would look through the rest of a text that closes none."""
    return any((at := text.find(start)) >= 0 and text.find(end, at + 2) >= 0 for start, end in _MARKS)


def _whole(value: Any, names: Names) -> Any:
    """Return a tool's config with the results in it that are packed as they were, their texts as data."""
    if isinstance(value, dict):
        whole = names.whole(value)
        return _as_data(whole) if whole is not value else {key: _whole(item, names) for key, item in value.items()}
    return [_whole(item, names) for item in value] if isinstance(value, list) else value


def _as_data(value: Any) -> Any:
    if isinstance(value, str):
        return PlainText(value) if has_template(value) else value
    if isinstance(value, dict):
        return {key: _as_data(item) for key, item in value.items()}
    return [_as_data(item) for item in value] if isinstance(value, list) else value


def _cases(context: Mapping[str, JsonValue], config: dict[str, Any]) -> Sequence[JsonValue]:
    """`cases` of the context, else of the tool's config (as the recorded playbooks write them); or `case` there."""
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
    """As the notification has it: the planes compare with what they sent (protocol/notification.md#message)."""
    command_id = envelope.command_id
    from_meta = meta.get("command_id")
    if from_meta == command_id:
        return command_id
    if isinstance(from_meta, (int, str)) and not isinstance(from_meta, bool) and str(from_meta) != str(command_id):
        return from_meta
    return command_id


def _attempt(meta: Mapping[str, JsonValue]) -> int:
    """`attempt` on the wire, `attempts` in the published worker's mind (protocol/command.md#python-plane)."""
    value = meta["attempt"] if "attempt" in meta else meta.get("attempts", 1)
    return value if type(value) is int else 1


def _text_or_none(value: JsonValue) -> str | None:
    return None if value is None else str(value)
