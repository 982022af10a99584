"""The Jinja2 environment behind `template.py`: sandboxed, chainable, with NoETL's filters (tools.md 3.1).

Where the two upstream workers differ, the choice is noted at the filter; `tests/tools/test_template.py` has
each as a case.
"""

from __future__ import annotations

import base64
import binascii
import json
from collections.abc import Callable, Iterable, Mapping
from functools import cached_property, wraps
from typing import Any, Final

from jinja2 import nodes
from jinja2.compiler import CodeGenerator, Frame
from jinja2.exceptions import SecurityError
from jinja2.filters import FILTERS, make_attrgetter
from jinja2.runtime import ChainableUndefined, Context, Undefined
from jinja2.sandbox import ImmutableSandboxedEnvironment
from jinja2.utils import missing, pass_environment
from markupsafe import escape as markup_escape

from noetl_worker import template_limits
from noetl_worker.errors import CredentialError
from noetl_worker.json_text import plain
from noetl_worker.models import JsonValue
from noetl_worker.template_limits import Budget

__all__ = ["LENIENT", "STRICT", "Environment", "Scope", "SecretEntry", "to_text", "truthy"]

_FALSY_WORDS: Final = frozenset({"", "false", "0", "no", "none", "null", "off", "{}", "[]"})


_NO_STEPS: Final = frozenset({"ctx", "event", "input", "iter", "job", "keychain", "loop", "output", "vars", "workload"})
"""Variables that are no step's result: their `result` is a key or nothing."""


def truthy(value: JsonValue) -> bool:
    """Whether a condition's value holds: Python truthiness, and the falsy words of the planes for text.

    Falsy text, after trim and lower case: "" false 0 no none null off {} [] (tools.md 3.4).
    """
    if isinstance(value, str):
        return value.strip().lower() not in _FALSY_WORDS
    return bool(value)


def to_text(value: Any) -> str:
    """How a value prints inside text: as JSON would, but strings bare and undefined as nothing.

    differs-from-upstream: null prints `null`; the Rust worker prints `none`, the Python worker `None`. JSON
    bodies and SQL, where such text ends up, know only `null`, `true` and `false`.
    """
    if isinstance(value, str):
        return str.__str__(value)
    if isinstance(value, Undefined):
        return str(value)
    if value is None or isinstance(value, (bool, dict, list, tuple)):
        return json.dumps(_printable(value), ensure_ascii=False)
    return str(value)


def _printable(value: Any) -> Any:
    """`plain`, with undefined as null."""
    if isinstance(value, Undefined):
        return None
    if isinstance(value, Mapping):
        return {str(key): _printable(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_printable(item) for item in value]
    return plain(value)


class _StrictMissing(ChainableUndefined):
    """Undefined that may be walked through and given a default, but not used."""

    __slots__ = ()
    __iter__ = __str__ = __len__ = Undefined._fail_with_undefined_error
    __eq__ = __ne__ = __bool__ = __hash__ = Undefined._fail_with_undefined_error
    __contains__ = Undefined._fail_with_undefined_error


class SecretEntry(dict[str, Any]):
    """A keychain entry, or the whole name space (`entry` is ""): a field it lacks is a failure that names it.

    Undefined would print as nothing, and a request with an empty bearer token would leave the worker
    (production-lessons 17).
    """

    __slots__ = ("entry",)

    def __init__(self, fields: Mapping[str, Any], entry: str) -> None:
        super().__init__(fields)
        self.entry = entry

    def field(self, name: str) -> Any:
        """Raises CredentialError: there is none, or it is null or empty."""
        value = self.get(name)
        if value is None or value == "":
            state = "is empty" if name in self else "does not exist"
            known = f"; it has {', '.join(sorted(self))}" if self else ""
            what = f"keychain entry {self.entry!r}: field {name!r}" if self.entry else f"keychain entry {name!r}"
            # Entries are fetched before a template is rendered: a name that it computes is not among them.
            advice = "" if self.entry else "; write its name out, as keychain.name or keychain['name']"
            raise CredentialError(f"{what} {state}{known}{advice}", code="keychain_field")
        return SecretEntry(value, f"{self.entry}.{name}") if type(value) is dict else value


class Scope(Context):
    """A Jinja context over a mapping that is not copied: the variables first, then the globals."""

    @cached_property
    def budget(self) -> Budget:
        """Made by the first loop: most templates have none."""
        return Budget()

    def resolve_or_missing(self, key: str) -> Any:
        if key in self.vars:
            return self.vars[key]
        if key in self.parent:
            return self.parent[key]
        return self.environment.globals.get(key, missing)


class _Generator(CodeGenerator):
    """Calls look a method up as an attribute; everything else looks a key up. `~` prints as `to_text` does."""

    def visit_Call(self, node: nodes.Call, frame: Frame, forward_caller: bool = False) -> None:  # noqa: N802
        callee = node.node
        if isinstance(callee, nodes.Getattr):
            node = nodes.Call(_Method(callee.node, callee.attr), node.args, node.kwargs, node.dyn_args, node.dyn_kwargs)
        super().visit_Call(node, frame, forward_caller=forward_caller)

    def visit_Getattr(self, node: nodes.Getattr, frame: Frame) -> None:  # noqa: N802
        named = node.node
        if node.attr == "result" and isinstance(named, nodes.Name) and named.name not in _NO_STEPS:
            self.write(f"environment.step_result(context, {named.name!r}, ")
            self.visit(named, frame)
            self.write(")")
        else:
            super().visit_Getattr(node, frame)

    def visit__Method(self, node: _Method, frame: Frame) -> None:  # noqa: N802
        self.write("environment.method(")
        self.visit(node.node, frame)
        self.write(f", {node.attr!r})")

    def visit_Concat(self, node: nodes.Concat, frame: Frame) -> None:  # noqa: N802
        self.write("environment.concat_text((")
        for part in node.nodes:
            self.visit(part, frame)
            self.write(", ")
        self.write("))")


class _Method:
    """The callee of `value.name(...)`; a stand-in for nodes.Getattr that only the generator sees."""

    def __init__(self, node: nodes.Expr, attr: str) -> None:
        self.node = node
        self.attr = attr


class Environment(ImmutableSandboxedEnvironment):
    """Sandboxed; raises SecurityError at once where Jinja's own hands out a silent undefined."""

    code_generator_class = _Generator
    context_class = Scope
    intercepted_binops = frozenset({"*", "**", "+", "%"})

    def __init__(self, undefined: type[Undefined]) -> None:
        super().__init__(
            undefined=undefined, finalize=to_text, keep_trailing_newline=True, autoescape=False, cache_size=0
        )
        self.filters.update(_FILTERS)
        del self.globals["lipsum"]

    def getattr(self, obj: Any, attribute: str) -> Any:
        """`value.name` without a call: the key of an object. `{{ workload.items }}` is data, not a method."""
        if isinstance(obj, SecretEntry):
            return obj.field(attribute)
        if isinstance(obj, dict):
            if attribute in obj:
                return obj[attribute]
        elif not isinstance(obj, (str, int, float, list, tuple, type(None))):
            return super().getattr(obj, attribute)
        if attribute.startswith("_"):
            return self.unsafe_undefined(obj, attribute)
        return self.undefined(obj=obj, name=attribute)

    def step_result(self, context: Context, name: str, obj: Any) -> Any:
        """`step.result`: its key of that name, else the step's own data, which older playbooks write so (tools.md 3.3).

        For a variable of the command only: a row of a loop without a `result` has none.
        """
        if type(obj) is dict and "result" not in obj and context.parent.get(name) is obj:
            return obj
        return self.getattr(obj, "result")

    def getitem(self, obj: Any, argument: Any) -> Any:
        if isinstance(obj, SecretEntry):
            return obj.field(str(argument))
        return super().getitem(obj, argument)

    def method(self, obj: Any, attribute: str) -> Any:
        """`value.name(...)`: the attribute, so that `m.items()` works beside a key of that name."""
        if isinstance(obj, str) and attribute in ("format", "format_map"):
            template_limits.check_format(obj)
        return super().getattr(obj, attribute)

    def unsafe_undefined(self, obj: Any, attribute: str) -> Undefined:
        raise SecurityError(f"attribute {attribute!r} of {type(obj).__name__!r} is not open to templates")

    def call_binop(self, context: Context, operator: str, left: Any, right: Any) -> Any:
        template_limits.check_operation(operator, left, right)
        return super().call_binop(context, operator, left, right)

    def call(__self, __context: Context, __obj: Any, *args: Any, **kwargs: Any) -> Any:  # noqa: N805 - as Jinja's own
        template_limits.check_call(__context, __obj, args)
        return super().call(__context, __obj, *args, **kwargs)

    def _parse(self, source: str, name: str | None, filename: str | None) -> nodes.Template:
        tree = super()._parse(source, name, filename)
        if any(found.name == template_limits.COUNTED for found in tree.find_all(nodes.Filter)):
            raise SecurityError(f"filter {template_limits.COUNTED!r} is not open to templates")
        template_limits.count_loops(tree)
        return tree

    @staticmethod
    def concat_text(parts: Iterable[Any]) -> str:
        texts = [to_text(part) for part in parts]
        template_limits.check_size(sum(map(len, texts)))
        return "".join(texts)


# ── filters ─────────────────────────────────────────────────────────────────────────────────────


def _number(value: Any, convert: Callable[[Any], Any], default: Any) -> Any:
    if value is None or isinstance(value, Undefined):
        return default
    try:
        return convert(value)
    except (TypeError, ValueError, OverflowError):
        return default


def _to_int(value: Any) -> int:
    try:
        return int(value)  # first: a 64-bit id as text keeps every digit
    except ValueError:
        return int(float(value))


def _int(value: Any, default: Any = 0) -> Any:
    return _number(value, _to_int, default)


def _float(value: Any, default: Any = 0.0) -> Any:
    return _number(value, float, default)


def _default(value: Any, default: Any = "", boolean: bool = False) -> Any:
    """Replaces undefined and null, as the Rust worker does (the Python worker leaves null)."""
    if isinstance(value, Undefined) or value is None:
        return default
    return default if boolean and not value else value


def _tojson(value: Any, indent: int | None = None) -> str:
    separators = (",", ":") if indent is None else None
    return json.dumps(_printable(value), ensure_ascii=False, sort_keys=True, indent=indent, separators=separators)


def _fromjson(value: Any) -> Any:
    try:
        return json.loads(to_text(value))
    except ValueError:
        return None


def _length(value: Any) -> int:
    """Characters, elements or keys; 0 for what has no length (the Rust worker counts UTF-8 bytes)."""
    if value is None or isinstance(value, (bool, int, float)):
        return 0
    return len(value) if hasattr(value, "__len__") else sum(1 for _ in value)


def _replace(value: Any, old: Any, new: Any, count: int = -1) -> str:
    text, old, new = to_text(value), to_text(old), to_text(new)
    if count != 0:
        template_limits.check_replacement(text, old, new)
    return text.replace(old, new, count)


def _split(value: Any, separator: str | None = None, maxsplit: int = -1) -> list[str]:
    return to_text(value).split(separator, maxsplit)


@pass_environment
def _join(environment: Environment, value: Any, separator: Any = "", attribute: str | None = None) -> str:
    if value is None or isinstance(value, Undefined):
        return to_text(value) if isinstance(value, Undefined) else ""
    items = map(make_attrgetter(environment, attribute), value) if attribute else value
    texts, between = [to_text(item) for item in _list(items)], to_text(separator)
    template_limits.check_size(sum(map(len, texts)) + len(between) * len(texts))
    return between.join(texts)


@pass_environment
def _first(environment: Environment, value: Any) -> Any:
    return next(iter(value or ()), environment.undefined("the list is empty"))


@pass_environment
def _last(environment: Environment, value: Any) -> Any:
    items = list(value or ())
    return items[-1] if items else environment.undefined("the list is empty")


def _b64encode(value: Any) -> str:
    return base64.b64encode(to_text(value).encode()).decode()


def _b64decode(value: Any) -> str:
    try:
        return base64.b64decode(to_text(value), validate=True).decode()
    except (binascii.Error, UnicodeDecodeError) as error:
        raise ValueError(f"b64decode: {error}") from error


def _keys(value: Any) -> list[Any]:
    return list(value or ())


def _values(value: Any) -> list[Any]:
    return list(value.values()) if value else []


def _items(value: Any) -> list[Any]:
    return [list(pair) for pair in value.items()] if value else []


@pass_environment
def _get(environment: Environment, value: Any, key: Any, default: Any = None) -> Any:
    found = environment.getitem(value, key)
    return default if isinstance(found, Undefined) else found


def _bounded(name: str) -> Callable[..., Any]:
    """Jinja's own filter `name`, refused when a width or count that it is given is over a million."""
    original = FILTERS[name]
    own = 2 if hasattr(original, "jinja_pass_arg") else 1  # the value, after what Jinja itself passes

    @wraps(original)
    def bounded(*arguments: Any, **named: Any) -> Any:
        numbers = [*arguments[own:], *named.values()]
        if any(isinstance(number, int) and number > template_limits.MAX_WIDTH for number in numbers):
            raise SecurityError(f"{name}: an argument of over {template_limits.MAX_WIDTH:,}")
        return original(*arguments, **named)

    return bounded


def _format(value: Any, *arguments: Any, **named: Any) -> str:
    """`%` formatting; the text is the format, as in Jinja."""
    text = to_text(value)
    template_limits.check_format(text)
    return str(text % (named or arguments))


def _list(value: Any) -> list[Any]:
    if hasattr(value, "__len__"):
        template_limits.check_size(len(value), [])
    return list(value)


def _escape(value: Any) -> str:
    """HTML-escaped plain text: Jinja's Markup would escape whatever is added to it later."""
    return str(markup_escape(to_text(value)))


_FILTERS: Final[dict[str, Callable[..., Any]]] = {
    "int": _int,
    "float": _float,
    "default": _default,
    "d": _default,
    "tojson": _tojson,
    "fromjson": _fromjson,
    "length": _length,
    "count": _length,
    "len": _length,
    "string": to_text,
    "bool": truthy,
    "upper": lambda value: to_text(value).upper(),
    "lower": lambda value: to_text(value).lower(),
    "trim": lambda value, chars=None: to_text(value).strip(chars),
    "replace": _replace,
    "split": _split,
    "join": _join,
    "first": _first,
    "last": _last,
    "b64encode": _b64encode,
    "b64decode": _b64decode,
    "keys": _keys,
    "values": _values,
    "items": _items,
    "get": _get,
    "format": _format,
    "list": _list,
    "safe": to_text,
    "escape": _escape,
    "e": _escape,
    "forceescape": _escape,
    "batch": _bounded("batch"),
    "slice": _bounded("slice"),
    "center": _bounded("center"),
    "indent": _bounded("indent"),
    template_limits.COUNTED: template_limits.counted,
}

LENIENT: Final = Environment(ChainableUndefined)
STRICT: Final = Environment(_StrictMissing)
