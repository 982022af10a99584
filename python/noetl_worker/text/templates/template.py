"""Templates in a tool's config: `render(value, variables)`.

The rules:

* text without `{{` or `{%` is untouched: "10" stays text, "007" stays "007"; one that is only comments is "";
* text that is exactly one expression, white space around it allowed, is evaluated and keeps its type;
  undefined, at any depth, is None, and in an input on the Python plane ""; where it ends in `| tojson`, it is the
  value too (both upstream workers read such text again; `| tojson | string` is the text);
* any other text is always a string; values print as JSON does (`true`, `null`), undefined prints nothing;
* keys are not rendered; values put in are never scanned again, so data holding `{{` stays data, and so does a
  PlainText wherever it stands.

differs-from-upstream: both upstream workers print a template and guess the type from the printed text, which
turns the string "42" into a number (protocol/tasks.md#templates).
"""

from __future__ import annotations

import re
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
from noetl_worker.text.templates.paths import looked_up
from noetl_worker.text.templates.redacted import RedactedValue
from noetl_worker.text.templates.sandbox import LENIENT, STRICT, MissingSecret, TemplateScope, WithFallback

__all__ = ["PlainText", "WithFallback", "has_template", "render", "truthy"]

_CACHED_TEMPLATES: Final = 1_024
_LONGEST_CACHED: Final = 16_384
"""Characters. Longer templates are compiled each time, so that the cache stays below some 20 MB."""
_EXCERPT: Final = 160
_REASON: Final = 500
"""Characters of what an exception says: some quote all that they were given."""
_MISSING: Final = object()
_COMMENT: Final = re.compile(r"\s*\{#.*?#\}", re.DOTALL)
_SCALARS: Final = frozenset({str, int, float, bool, type(None)})
_ENTRY_BYTES: Final = 20
"""Of a name and its value in JSON, but for texts."""
_ITEM_BYTES: Final = 8
_SEQUENCES: Final = (list, tuple, set, frozenset, range, KeysView, ValuesView, ItemsView, Iterator)


class PlainText(str):
    """A text that is data, whatever it looks like: it is never rendered."""

    __slots__ = ()


def has_template(value: JsonValue) -> bool:
    """Whether any text inside a value holds `{{` or `{%` and is not known to be data.

    Args:
        value: any JSON value; keys of objects are not looked at, nor is `PlainText`.
    """
    if isinstance(value, str):
        # One character is looked for sixty times as fast as two, and most texts have no brace.
        return "{" in value and ("{{" in value or "{%" in value) and not isinstance(value, PlainText)
    if isinstance(value, Mapping):
        return any(map(has_template, value.values()))
    return isinstance(value, (list, tuple)) and any(map(has_template, value))


def render(
    value: JsonValue, variables: Mapping[str, JsonValue], *, strict: bool = False, undefined: JsonValue = None
) -> JsonValue:
    """Render every template inside `value`, once.

    Args:
        value: any JSON value; lists and objects are walked, object keys are kept as they are.
        variables: what templates may name; it is not copied and not changed.
        strict: an undefined variable that is printed or evaluated raises, `| default(...)` still works.
        undefined: what a text gives that is one expression and undefined.

    Returns:
        The rendered value. Containers are new, values put in are shared with `variables`: do not change them.

    Raises:
        TemplateError: it does not compile, uses what the sandbox forbids, fails while running, or gives
            something JSON cannot say. Names the template (an excerpt), the line and what to do.
        CredentialError: a keychain entry has no such field.
        RedactedValue: the plane has taken out what it reads.

    Cost: 0.5 us for a cached path (`{{ a.b }}`), some 4 us for another cached expression; 0.2-1 ms to compile.
    """
    return _render(value, variables, strict, undefined, None if isinstance(value, str) else Budget())


def _render(
    value: JsonValue, variables: Mapping[str, JsonValue], strict: bool, undefined: JsonValue, budget: Budget | None
) -> JsonValue:
    """`budget`: None for a single text, which makes its own when it needs one."""
    if isinstance(value, str):
        if isinstance(value, PlainText):
            return str(value)
        if "{" not in value:  # as in `has_template`
            return value
        if "{#" in value and _is_comment(value):
            return ""
        if "{{" in value or "{%" in value:
            return _render_text(value, variables, strict, undefined, budget)
        return value
    if isinstance(value, dict):
        rendered = {}
        for key, item in value.items():  # loops, not comprehensions: one stack frame a level, for deep values
            rendered[key] = _render(item, variables, strict, undefined, budget)
        return rendered
    if isinstance(value, (list, tuple)):
        items = []
        for item in value:
            items.append(_render(item, variables, strict, undefined, budget))  # noqa: PERF401
        return items
    return value


def _is_comment(text: str) -> bool:
    """Whether there is nothing but `{# ... #}` in a text; beside other text `{#` may be a shell's `${#list}`."""
    end = 0
    while found := _COMMENT.match(text, end):
        end = found.end()
    return not text[end:].strip()


def _render_text(
    source: str, variables: Mapping[str, JsonValue], strict: bool, undefined: JsonValue, budget: Budget | None
) -> JsonValue:
    compiled = _KEPT[strict].get(source)
    if compiled is None:
        budget = budget or Budget()
        compiled = _compile(source, strict, budget)
    if compiled.path is not None:
        found = _walk(compiled.path, variables)
        if found is not _MISSING:
            return found
    try:
        return compiled.run(variables, undefined, budget or Budget())
    except (CredentialError, RedactedValue):  # name what is missing; a template's error would hide their kind
        raise
    except Exception as error:  # an expression may raise anything
        _fail(source, error, compiled.template)


def _walk(path: tuple[str, ...], variables: Mapping[str, JsonValue]) -> Any:
    """The value at a plain path of object keys, or _MISSING: then Jinja decides what it is."""
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
    """Set when the expression is only a path: the fast way, and data that needs no conversion."""

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
            return result.alone()  # never `undefined`, which may be an empty text
        value = native(result, budget)  # strict: raises, naming the variable
        return undefined if isinstance(result, Undefined) else value


def _charged(pieces: Iterable[str], budget: Budget) -> Iterator[str]:
    for piece in pieces:
        budget.charge(1, text_size(piece))
        yield piece


def _charged_block(block: Callable[[Context], Iterator[str]], budget: Budget) -> Callable[[Context], Iterator[str]]:
    """A block can be called as often as one likes (`self.name()`)."""
    return lambda context: _charged(block(context), budget)


def _compile(source: str, strict: bool, budget: Budget) -> _Compiled:
    """A template that is not kept compiled yet; the one that was made first makes room for it."""
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
    compiled, kept = _Compiled(template, expression is not None, _path(expression)), _KEPT[strict]
    if len(source) <= _LONGEST_CACHED:
        if len(kept) >= _CACHED_TEMPLATES:
            del kept[next(iter(kept))]
        kept[source] = compiled
    return compiled


_KEPT: Final[dict[bool, dict[str, _Compiled]]] = {False: {}, True: {}}
"""By whether they are strict: the templates that are compiled."""


def only_expression(tree: nodes.Template) -> nodes.Expr | None:
    """The expression of a text that is one `{{ }}` with nothing but white space around it."""
    if len(tree.body) != 1 or not isinstance(tree.body[0], nodes.Output):
        return None
    parts = [
        part for part in tree.body[0].nodes if not (isinstance(part, nodes.TemplateData) and not part.data.strip())
    ]
    if len(parts) != 1 or isinstance(parts[0], nodes.TemplateData):
        return None
    return parts[0]


def _path(expression: nodes.Expr | None) -> tuple[str, ...] | None:
    root, keys, computed = looked_up(expression)
    if not isinstance(root, nodes.Name) or computed or not all(isinstance(key, str) for key in keys):
        return None
    return (root.name, *map(str, keys))


def native(value: Any, budget: Budget) -> JsonValue:
    """A Jinja result as JSON value: undefined -> None, tuples and iterators -> lists.

    What is in it several times counts as often: it is written out as often. Lists and objects of scalars stay the
    same objects, which are looked at without Python code.
    """
    kind = type(value)
    if kind in _SCALARS:
        if kind is str:
            budget.charge(1, len(value))
        elif kind is int:
            budget.charge_number(value)
        return value
    if kind is list or kind is dict:
        return _native_container(value, budget)
    if isinstance(value, Undefined):
        str(value)  # strict: raises, naming the variable
        return None
    if isinstance(value, str):
        budget.charge(1, len(value))
        return str.__str__(value)
    if isinstance(value, Mapping):
        return _native_container(dict(value), budget)
    if isinstance(value, _SEQUENCES):
        return _native_container(list(budget.charging(value, CONTAINER_NODES)), budget)
    if isinstance(value, (int, float)):
        return value
    raise TypeError(f"the expression gives {type(value).__name__!r}, which JSON cannot say; call it or pick a field")


def _native_container(value: Any, budget: Budget) -> JsonValue:
    count = len(value)
    if type(value) is list:
        budget.charge(CONTAINER_NODES + count // 4, _ITEM_BYTES * count)
        if _is_flat(value, budget):
            return value
        budget.charge(CONTAINER_NODES * count)
        return [native(item, budget) for item in value]
    budget.charge(CONTAINER_NODES + count // 2, _ENTRY_BYTES * count)
    if _is_flat(value.values(), budget) and {str}.issuperset(map(type, value)):
        return value
    budget.charge(CONTAINER_NODES * count)
    return {str(key): native(item, budget) for key, item in value.items()}


def _is_flat(items: Collection[Any], budget: Budget) -> bool:
    kinds = set(map(type, items))
    if not kinds <= _SCALARS:
        return False
    if int in kinds:
        budget.charge_numbers(items, are_all=kinds == {int})
    if kinds == {str}:
        budget.charge(size=sum(map(len, items)))
    elif str in kinds:
        texts = [item for item in items if type(item) is str]
        budget.charge(len(texts) // 8, sum(map(len, texts)))
    return True


# ── errors ──────────────────────────────────────────────────────────────────────────────────────


def _fail(source: str, error: Exception, template: Template | None) -> NoReturn:
    line = error.lineno if isinstance(error, TemplateSyntaxError) else _line_of(error, template)
    where = f" at line {line}" if line and "\n" in source.strip() else ""
    raise TemplateError(f"template {_excerpt(source, line)!r}{where}: {_reason(error)}") from error


def _reason(error: Exception) -> str:
    said = error.message if isinstance(error, TemplateSyntaxError) else str(error)  # without its line: `_fail` has it
    text = excerpt(said or type(error).__name__, _REASON).rstrip(".")
    if isinstance(error, TemplateSyntaxError):
        return f"{text}. Text that only looks like a template goes between {{% raw %}} and {{% endraw %}}"
    if "is undefined" in text or "has no attribute" in text:
        return f"{text}. Set it before, or give it a value with `| default(...)`"
    return text


def _line_of(error: Exception, template: Template | None) -> int | None:
    """The template's line a failed expression stands in, from the generated code's traceback."""
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
