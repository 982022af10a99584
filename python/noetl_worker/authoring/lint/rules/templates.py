"""Lint rules NW3: mistakes in templates. The worker's own template engine parses them."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from typing import Final

from noetl_worker.authoring.dev.template_names import Chain, Reading, Word, read_template
from noetl_worker.authoring.lint.findings import Inspected
from noetl_worker.authoring.lint.rules.known_names import OF_EVERY_STEP, items_and_tasks, known_names, result_keys
from noetl_worker.authoring.outline import (
    Path,
    list_or_empty,
    mapping,
    policy_rules,
    step_arcs,
    step_parts,
    texts_below,
    tool_parts,
)
from noetl_worker.text.templates.sandbox import LENIENT
from noetl_worker.text.templates.template import has_template
from noetl_worker.tools.fields import nearest

_METHODS: Final = frozenset(
    name for kind in (str, list, dict, int, float, tuple) for name in dir(kind) if not name.startswith("_")
) | {"cycle", "changed", "next", "reset"}
_FUNCTIONS: Final = frozenset(LENIENT.globals) | {"caller", "super", "self"}
_CODE: Final = frozenset({"code", "script", "code_b64"})
"""Fields of a tool that contain source code, where `{{` does not begin a template."""
TOKEN: Final = "token"
"""Name of a function that the worker provides only in HTTP headers: `{{ token(alias) }}` (docs/tools/http.md)."""
_OF_ITEMS: Final = frozenset({"_index", "_total", "_first", "_last", "loop_event_id", "index", "first", "last"})
"""Keys that a plane adds to the template variable `iter` besides the loop item (protocol/command.md#names)."""
_INSTEAD: Final = {"len": "length", "str": "string", "lower": "lower", "upper": "upper", "json": "tojson"}


def find_templates(inspection: Inspected) -> Iterator[Reading]:
    """Parse each template of the workflow and the workbook, and yield the names in it. Skip fields with source code."""
    document = inspection.document
    for name in ("workflow", "workbook"):
        for path, text in texts_below((name,), document.get(name)):
            if has_template(text) and not (path[-1] in _CODE and "tool" in path):
                yield read_template(path, text)


def check_templates(inspection: Inspected, readings: list[Reading]) -> None:
    known = known_names(inspection.document)
    keys = {step.name: found for step in step_parts(inspection.document) if (found := result_keys(step)) is not None}
    for name in items_and_tasks(inspection.document):
        keys.pop(name, None)
    workload = mapping(inspection.document.get("workload"))
    for reading in readings:
        if reading.error is not None:
            place = inspection.playbook.word_place(reading.path, reading.error.line)
            message = f"template does not compile: {reading.error.reason}"
            inspection.add("NW301", place, message, is_warning=_is_only_warning(inspection, reading.path))
            continue
        _unknown(inspection, reading, reading.filters, LENIENT.filters, "NW302", "filter")
        _unknown(inspection, reading, reading.tests, LENIENT.tests, "NW303", "test")
        _unknown(inspection, reading, reading.methods, _METHODS, "NW304", "method")
        for word in reading.functions:
            if word.name == TOKEN and "headers" in reading.path:
                continue  # the worker provides `token` in HTTP headers
            if word.name in reading.free and word.name not in _FUNCTIONS | known:
                hint = f"; did you mean the filter '| {_INSTEAD[word.name]}'?" if word.name in _INSTEAD else ""
                guess = hint or nearest(word.name, sorted(_FUNCTIONS))
                message = f"no function is named '{word.name}'{guess}"
                is_warning = _is_only_warning(inspection, reading.path)
                inspection.add_word(reading, word, "NW304", message, is_warning=is_warning)
        for chain in reading.chains:
            if not chain.may_be_missing and chain.names[0] in reading.free:
                _check_chain(inspection, reading, chain, known, keys, workload)
    _check_conditions(inspection)


def _is_only_warning(inspection: Inspected, path: Path) -> bool | None:
    """Return True if a mistake in a template is only a warning, or None if its code (NW301, …) decides the severity.

    A mistake in `next`, `set` or `loop` is a warning if only the Python plane is checked. That plane takes an invalid
    condition as false, and leaves any other invalid template unrendered.
    """
    is_of_plane = len(path) > 2 and path[2] in ("next", "set", "loop")
    return True if is_of_plane and inspection.plane == "python" else None


def _unknown(
    inspection: Inspected, reading: Reading, words: list[Word], known: Collection[str], code: str, what: str
) -> None:
    for word in words:
        if word.name not in known:
            guess = nearest(word.name, sorted(known))
            message = f"no {what} is named '{word.name}'{guess}"
            inspection.add_word(reading, word, code, message, is_warning=_is_only_warning(inspection, reading.path))


def _check_chain(
    inspection: Inspected,
    reading: Reading,
    chain: Chain,
    known: frozenset[str],
    keys: dict[str, frozenset[str]],
    workload: Mapping[str, object],
) -> None:
    root, *below = chain.names
    if root not in known and root not in LENIENT.globals:
        guess = nearest(root, sorted(known))
        inspection.add_word(reading, Word(root, chain.line), "NW305", f"nothing makes '{root}'{guess}")
    elif root == "workload" and below:
        if below[0] not in workload and below[0] not in ("server_url", "nats_url"):
            guess = nearest(below[0], sorted(map(str, workload)))
            inspection.add_word(reading, Word(below[0], chain.line), "NW309", f"workload has no '{below[0]}'{guess}")
    elif root in ("ctx", "iter") and below:
        _check_written(inspection, reading, chain, known)
    elif root == "keychain" and below:
        _check_keychain(inspection, reading, chain)
    elif root in keys and below:
        own, name = keys[root], below[0]
        if len(below) > 1 and name in ("data", "result", "context") and name not in own:
            name = below[1]
        if name not in own | OF_EVERY_STEP:
            guess = nearest(name, sorted(own | OF_EVERY_STEP))
            inspection.add_word(
                reading, Word(name, chain.line), "NW306", f"the result of '{root}' has no '{name}'{guess}"
            )


def _check_written(inspection: Inspected, reading: Reading, chain: Chain, known: frozenset[str]) -> None:
    root, name, *_ = chain.names
    if name not in known | _OF_ITEMS:
        guess = nearest(name, sorted(_iterators(inspection.document) | _OF_ITEMS if root == "iter" else known))
        word = Word(name, chain.line)
        inspection.add_word(reading, word, "NW311", f"nothing writes '{root}.{name}'{guess}")


def _iterators(document: Mapping[str, object]) -> set[str]:
    return {str(mapping(step.value.get("loop")).get("iterator")) for step in step_parts(document)}


def _check_keychain(inspection: Inspected, reading: Reading, chain: Chain) -> None:
    entries = {
        str(mapping(entry).get("name")): mapping(entry) for entry in list_or_empty(inspection.document.get("keychain"))
    }
    _, name, *below = chain.names
    if name not in entries:
        message = f"the keychain has no entry '{name}'{nearest(name, sorted(entries))}"
        inspection.add_word(reading, Word(name, chain.line), "NW310", message)
    elif (
        below
        and entries[name].get("kind") == "static"
        and below[0] not in (fields := mapping(entries[name].get("map")))
    ):
        message = f"the keychain's '{name}' has no '{below[0]}'{nearest(below[0], sorted(map(str, fields)))}"
        inspection.add_word(reading, Word(below[0], chain.line), "NW310", message)


# ── conditions ──────────────────────────────────────────────────────────────────────────────────


def _check_conditions(inspection: Inspected) -> None:
    for step in step_parts(inspection.document):
        for path, part in (*step_arcs(step), (step.path, step.value)):
            if (message := _no_condition(mapping(part).get("when"))) is not None:
                inspection.add("NW308", (*path, "when"), message)
    for tool in tool_parts(inspection.document):
        for path, rule in policy_rules(tool):
            when = rule.get("when")
            if isinstance(when, str) and has_template(when) and (message := _no_condition(when)) is not None:
                inspection.add("NW308", (*path, "when"), message)


def _no_condition(when: object) -> str | None:
    if when is None:
        return None
    if not isinstance(when, str):  # both planes refuse it (recorded: arcs-when-bool)
        return f'when must be text, as "{{{{ {str(when).lower()} }}}}"'
    text = when.strip()
    if not has_template(text):  # bare text is an expression for both planes (recorded: arcs-conditions)
        bare = read_template((), "{{ " + text + " }}")
        return None if bare.error is None else f"when is no expression: {bare.error.reason}"
    if "{%" in text or (text.startswith("{{") and text.count("{{") == 1 and text.endswith("}}")):
        return None
    if read_template((), text).has_words:
        return "when is a text, which is true whatever it says: write the whole condition into one pair of braces"
    return None
