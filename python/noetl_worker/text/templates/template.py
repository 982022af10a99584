"""Templates in a tool's config: `render(value, variables)`.

The rules:

* a text without `{{` or `{%` is unchanged: "10" stays a text, "007" stays "007"; a text of only comments becomes "";
* a text that is exactly one expression, with white space around it allowed, is evaluated and keeps its type.
  Undefined, at any depth, becomes None, or "" in an input on the Python plane. An expression that
  ends with `| tojson` gives the value too (the planes' own workers parse such text again), and one that ends with
  `| tojson | string` gives the JSON text;
* any other text stays a text; values print as in JSON (`true`, `null`), and undefined prints nothing;
* keys are not rendered. Inserted values are never rendered again, so data that contains `{{` stays data, and so does
  a PlainText anywhere.

differs-from-upstream: the planes' own workers print a template and guess the type from the printed text, which
turns the string "42" into a number (protocol/tasks.md#templates).
"""

from __future__ import annotations

from collections.abc import Callable, Collection, ItemsView, Iterable, Iterator, KeysView, Mapping, ValuesView
from dataclasses import dataclass
from typing import Any, Final, NoReturn

from jinja2 import TemplateSyntaxError, nodes
from jinja2.environment import Template
from jinja2.runtime import Context, Undefined

from noetl_worker.errors import CredentialError, TemplateError
from noetl_worker.models.wire import JsonValue
from noetl_worker.text.secrets.redaction import excerpt
from noetl_worker.text.templates.filters import truthy
from noetl_worker.text.templates.limits import CONTAINER_NODES, Budget, charge_source, text_size
from noetl_worker.text.templates.paths import split_lookup
from noetl_worker.text.templates.redacted import RedactedValue
from noetl_worker.text.templates.sandbox import LENIENT, STRICT, MissingSecret, TemplateScope, WithFallback

__all__ = ["PlainText", "WithFallback", "has_template", "render", "truthy"]

_CACHED_TEMPLATES: Final = 1_024
_LONGEST_CACHED: Final = 16_384
"""Largest number of characters of a cached template. Longer ones are compiled each time, so the cache stays below some
20 MB."""
_EXCERPT: Final = 160
"""Largest number of characters of a template that an error quotes."""
_REASON: Final = 500
"""Largest number of characters of an exception's text that an error quotes. Some exceptions quote their whole input."""
_MISSING: Final = object()
_SCALARS: Final = frozenset({str, int, float, bool, type(None)})
_ENTRY_BYTES: Final = 20
"""Bytes charged to a rendering's budget for each entry of an object in the result, not counting texts in its value."""
_ITEM_BYTES: Final = 8
_SEQUENCES: Final = (list, tuple, set, frozenset, range, KeysView, ValuesView, ItemsView, Iterator)


class PlainText(str):
    """A text that is data and is never rendered, even if it looks like a template."""

    __slots__ = ()


def has_template(value: JsonValue) -> bool:
    """Return True if any text inside a value contains `{{` or `{%`. A PlainText never counts, because it is never
    rendered.

    Args:
        value: any JSON value; keys of objects and `PlainText` do not count.
    """
    if isinstance(value, str):
        # A search for one character is sixty times as fast as for two, and most texts have no brace.
        return "{" in value and ("{{" in value or "{%" in value) and not isinstance(value, PlainText)
    if isinstance(value, Mapping):
        return any(map(has_template, value.values()))
    return isinstance(value, (list, tuple)) and any(map(has_template, value))


def render(
    value: JsonValue, variables: Mapping[str, JsonValue], *, strict: bool = False, undefined: JsonValue = None
) -> JsonValue:
    """Render every template inside `value`, once.

    Args:
        value: any JSON value; lists and objects are rendered in depth, object keys are kept as they are.
        variables: the variables of the templates; they are neither copied nor changed.
        strict: True to raise for an undefined variable that is printed or evaluated; `| default(...)` still works.
        undefined: the result of a text that is exactly one expression whose value is undefined.

    Returns:
        The rendered value. Containers are new; inserted values are shared with `variables`, so do not change them.

    Raises:
        TemplateError: a template does not compile, uses something that the sandbox forbids, fails while running, or
            gives a value that JSON does not have. The text has an excerpt of the template, the line and what to do.
        CredentialError: a keychain entry has no such field.
        RedactedValue: a template reads a value that the plane has redacted.

    Cost: 0.5 us for a cached path (`{{ a.b }}`), some 4 us for another cached expression; 0.2-1 ms to compile.
    """
    return _render(value, variables, strict, undefined, None if isinstance(value, str) else Budget())


def _render(
    value: JsonValue, variables: Mapping[str, JsonValue], strict: bool, undefined: JsonValue, budget: Budget | None
) -> JsonValue:
    """Render a value within a budget. Pass None as `budget` for a single text: `_render_text` then makes a budget only
    if Jinja has to compile or evaluate the text."""
    if isinstance(value, str):
        if isinstance(value, PlainText):
            return str(value)
        if "{" not in value:  # a fast check, as in `has_template`
            return value
        if "{{" in value or "{%" in value:
            return _render_text(value, variables, strict, undefined, budget)
        return _strip_comments(value) if "{#" in value else value
    if isinstance(value, dict):
        rendered = {}
        for key, item in value.items():  # loops, because comprehensions take two stack frames per level of a deep value
            rendered[key] = _render(item, variables, strict, undefined, budget)
        return rendered
    if isinstance(value, (list, tuple)):
        items = []
        for item in value:
            items.append(_render(item, variables, strict, undefined, budget))  # noqa: PERF401
        return items
    return value


def _strip_comments(text: str) -> str:
    """Return a text without its comments `{# ... #}`, for a text that has neither `{{` nor `{%`. `${#` begins no
    comment, because `${#list[@]}` is shell code."""
    kept, at = [], 0
    while (start := text.find("{#", at)) >= 0:
        end = text.find("#}", start + 2)
        if end < 0:
            break
        is_shells = text[start - 1 : start] == "$"
        kept.append(text[at : start + 2 if is_shells else start])
        at = start + 2 if is_shells else end + 2
    left = "".join([*kept, text[at:]])
    return left if left.strip() else ""


def _render_text(
    source: str, variables: Mapping[str, JsonValue], strict: bool, undefined: JsonValue, budget: Budget | None
) -> JsonValue:
    compiled = _CACHED[strict].get(source)
    if compiled is None:
        budget = budget or Budget()
        compiled = _compile(source, strict, budget)
    if compiled.path is not None:
        found = _walk(compiled.path, variables)
        if found is not _MISSING:
            return found
    try:
        return compiled.run(variables, undefined, budget or Budget())
    except (CredentialError, RedactedValue):  # these name the missing value; a TemplateError would hide their kind
        raise
    except Exception as error:  # an expression may raise anything
        _fail(source, error, compiled.template)


def _walk(path: tuple[str, ...], variables: Mapping[str, JsonValue]) -> Any:
    """Return the value at a path of object keys. Return _MISSING if a key is absent, or if a value on the path has a
    type that only Jinja can handle; the caller then evaluates the path with Jinja."""
    value: Any = variables
    for key in path:
        if (type(value) is dict or value is variables) and key in value:
            value = value[key]
        else:
            return _MISSING
    kind = type(value)
    return value if kind in _SCALARS or kind is dict or kind is list else _MISSING


@dataclass(frozen=True, slots=True)
class _Compiled:
    template: Template
    is_expression: bool
    path: tuple[str, ...] | None
    """Keys of the variable path, if the template is only a path such as `{{ a.b }}`; else None. Such a value is looked
    up without Jinja."""

    def run(self, variables: Mapping[str, JsonValue], undefined: JsonValue, budget: Budget) -> JsonValue:
        template = self.template
        blocks = template.blocks and {name: _charged_block(block, budget) for name, block in template.blocks.items()}
        context = TemplateScope(template.environment, variables, template.name, blocks)  # type: ignore[arg-type]
        context.budget = budget
        if not self.is_expression:
            return "".join(_charged(template.root_render_func(context), budget))
        for _ in template.root_render_func(context):
            pass
        result = context.vars["result"]
        if isinstance(result, MissingSecret) and template.environment is LENIENT:
            return result.alone()  # not `undefined`, which may be an empty text
        value = to_json(result, budget)  # in strict mode this raises for undefined and names the variable
        return undefined if isinstance(result, Undefined) else value


def _charged(pieces: Iterable[str], budget: Budget) -> Iterator[str]:
    for piece in pieces:
        budget.charge(1, text_size(piece))
        yield piece


def _charged_block(block: Callable[[Context], Iterator[str]], budget: Budget) -> Callable[[Context], Iterator[str]]:
    """Wrap a Jinja block so that each piece of its output is charged to the rendering's budget. A template may print a
    block any number of times (`self.name()`)."""
    return lambda context: _charged(block(context), budget)


def _compile(source: str, strict: bool, budget: Budget) -> _Compiled:
    """Compile a template and cache it, in place of the oldest one if the cache is full."""
    environment = STRICT if strict else LENIENT
    try:
        charge_source(budget, source, environment.lex(source))
        tree = environment.parse(source)
        expression = only_expression(tree)
        if isinstance(expression, nodes.Filter) and expression.name == "tojson":
            expression = expression.node
        if expression is not None:
            target = nodes.Name("result", "store", lineno=1)
            tree = nodes.Template([nodes.Assign(target, expression, lineno=1)], lineno=1)
            tree.set_environment(environment)
        template = environment.from_string(tree)
    except Exception as error:  # syntax, and constant expressions that fail while being folded
        _fail(source, error, None)
    compiled, cache = _Compiled(template, expression is not None, _path(expression)), _CACHED[strict]
    if len(source) <= _LONGEST_CACHED:
        if len(cache) >= _CACHED_TEMPLATES:
            del cache[next(iter(cache))]
        cache[source] = compiled
    return compiled


_CACHED: Final[dict[bool, dict[str, _Compiled]]] = {False: {}, True: {}}
"""Cache: value of `strict` -> source of a template -> compiled template."""


def only_expression(tree: nodes.Template) -> nodes.Expr | None:
    """Return the expression of a text that is one `{{ }}` with only white space around it, or None."""
    if len(tree.body) != 1 or not isinstance(tree.body[0], nodes.Output):
        return None
    parts = [
        part for part in tree.body[0].nodes if not (isinstance(part, nodes.TemplateData) and not part.data.strip())
    ]
    if len(parts) != 1 or isinstance(parts[0], nodes.TemplateData):
        return None
    return parts[0]


def _path(expression: nodes.Expr | None) -> tuple[str, ...] | None:
    root, keys, computed = split_lookup(expression)
    if not isinstance(root, nodes.Name) or computed or not all(isinstance(key, str) for key in keys):
        return None
    return (root.name, *map(str, keys))


def to_json(value: Any, budget: Budget) -> JsonValue:
    """Convert a Jinja result to a JSON value: undefined -> None, tuples and iterators -> lists.

    A value that occurs several times in the result is charged to the rendering's budget each time, because JSON
    repeats it. Lists and objects of scalars are returned as they are, which needs no Python code per element.
    """
    kind = type(value)
    if kind in _SCALARS:
        if kind is str:
            budget.charge(1, len(value))
        elif kind is int:
            budget.charge_number(value)
        return value
    if kind is list or kind is dict:
        return _container_to_json(value, budget)
    if isinstance(value, Undefined):
        str(value)  # in strict mode this raises and names the variable
        return None
    if isinstance(value, str):
        budget.charge(1, len(value))
        return str.__str__(value)
    if isinstance(value, Mapping):
        return _container_to_json(dict(value), budget)
    if isinstance(value, _SEQUENCES):
        return _container_to_json(list(budget.charge_each(value, CONTAINER_NODES)), budget)
    if isinstance(value, (int, float)):
        return value
    raise TypeError(
        f"the expression gives {type(value).__name__!r}, which is no value of JSON; call it or pick a field"
    )


def _container_to_json(value: Any, budget: Budget) -> JsonValue:
    count = len(value)
    if isinstance(value, list):
        budget.charge(CONTAINER_NODES + count // 4, _ITEM_BYTES * count)
        if _is_flat(value, budget):
            return value
        budget.charge(CONTAINER_NODES * count)
        return [to_json(item, budget) for item in value]
    budget.charge(CONTAINER_NODES + count // 2, _ENTRY_BYTES * count)
    if _is_flat(value.values(), budget) and {str}.issuperset(map(type, value)):
        return value
    budget.charge(CONTAINER_NODES * count)
    return {str(key): to_json(item, budget) for key, item in value.items()}


def _is_flat(items: Collection[Any], budget: Budget) -> bool:
    kinds = set(map(type, items))
    if not kinds <= _SCALARS:
        return False
    if int in kinds:
        budget.charge_numbers(items, are_all=kinds == {int})
    if kinds == {str}:
        budget.charge(size=sum(map(len, items)))
    elif str in kinds:
        texts = [item for item in items if isinstance(item, str)]
        budget.charge(len(texts) // 8, sum(map(len, texts)))
    return True


# ── errors ──────────────────────────────────────────────────────────────────────────────────────


def _fail(source: str, error: Exception, template: Template | None) -> NoReturn:
    line = error.lineno if isinstance(error, TemplateSyntaxError) else _find_line(error, template)
    where = f" at line {line}" if line and "\n" in source.strip() else ""
    raise TemplateError(f"template {_excerpt(source, line)!r}{where}: {_reason(error)}") from error


def _reason(error: Exception) -> str:
    said = error.message if isinstance(error, TemplateSyntaxError) else str(error)  # `_fail` adds the line
    text = excerpt(said or type(error).__name__, _REASON).rstrip(".")
    if isinstance(error, TemplateSyntaxError):
        return f"{text}. Text that only looks like a template goes between {{% raw %}} and {{% endraw %}}"
    if "is undefined" in text or "has no attribute" in text:
        return f"{text}. Set it before, or give it a value with `| default(...)`"
    return text


def _find_line(error: Exception, template: Template | None) -> int | None:
    """Return the line number of the failed expression in the template, found in the traceback; None if unknown."""
    if template is None:
        return None
    line: int | None = None
    traceback = error.__traceback__
    while traceback is not None:
        generated: Any = traceback.tb_frame.f_globals.get("__jinja_template__")
        if generated is template:
            line = generated.get_corresponding_lineno(traceback.tb_lineno)
        traceback = traceback.tb_next
    return line


def _excerpt(source: str, line: int | None) -> str:
    lines = source.strip("\n").split("\n") if line is None else source.split("\n")
    text = (lines[line - 1] if line and line <= len(lines) and len(source) > _EXCERPT else source).strip()
    return text if len(text) <= _EXCERPT else excerpt(text, _EXCERPT - 1) + "…"
