"""The Jinja2 environment of `template.py`: sandboxed, with chainable undefined values and NoETL's filters
(protocol/tasks.md#templates)."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from functools import cached_property
from typing import Any, Final

from jinja2 import nodes
from jinja2.compiler import CodeGenerator, Frame
from jinja2.exceptions import SecurityError
from jinja2.runtime import ChainableUndefined, Context, Undefined
from jinja2.sandbox import ImmutableSandboxedEnvironment
from jinja2.utils import missing, pass_context

from noetl_worker.errors import CredentialError
from noetl_worker.text.templates import limits as template_limits
from noetl_worker.text.templates.calls import Format, charge_call, charged
from noetl_worker.text.templates.costs import ATTRIBUTE_AT, FILTER_COSTS, TEST_COSTS
from noetl_worker.text.templates.filters import FILTERS, JSON_SCALARS, to_text
from noetl_worker.text.templates.keys import KEY_TYPES, CheckedNamespace, new_object
from noetl_worker.text.templates.limits import Budget, charge_operation, charge_slice, current_budget, joined_size
from noetl_worker.text.templates.redacted import check_read

_NO_STEPS: Final = frozenset({"ctx", "event", "input", "iter", "job", "keychain", "loop", "output", "vars", "workload"})
"""Names of template variables that never hold a step's data. In them, `name.result` always looks up the key `result`.
In a step's variable without that key, `name.result` gives the whole data."""
_METHOD: Final = "method"
"""Marker in the field `ctx` of a Getattr syntax node: the template calls the attribute as a method."""
_SHORT: Final = 1_000
"""Length in characters up to which a text is compared without a charge to the rendering's budget."""


class _StrictMissing(ChainableUndefined):
    """Undefined value of a strict rendering. A look-up of its fields and `| default(...)` work; any other use raises an
    error."""

    __slots__ = ()
    __iter__ = __str__ = __len__ = Undefined._fail_with_undefined_error
    __eq__ = __ne__ = __bool__ = __hash__ = Undefined._fail_with_undefined_error
    __contains__ = Undefined._fail_with_undefined_error


class WithFallback(dict[str, Any]):
    """A step's result for templates: an object whose missing keys are looked up in another object. `in` sees the keys
    of both objects; loops and printing see only the object's own keys.

    Args:
        own: the object's own keys; they are copied.
        fallback: the other object; it is not copied.
    """

    __slots__ = ("fallback",)

    def __init__(self, own: Mapping[str, Any], fallback: Mapping[str, Any]) -> None:
        super().__init__(own)
        self.fallback = fallback

    def __contains__(self, key: object) -> bool:
        return super().__contains__(key) or key in self.fallback

    def __missing__(self, key: str) -> Any:
        return self.fallback[key]

    def get(self, key: str, default: Any = None) -> Any:
        """Return the value of a key, as a dict does.

        Args:
            key: the key to look up in this object, then in the fallback.
            default: the value if neither has the key.
        """
        return super().get(key, self.fallback.get(key, default))


class MissingSecret(ChainableUndefined):
    """Undefined value in place of a missing keychain entry, or of a field in the missing entry. Printing it raises an
    error.

    An ordinary undefined value prints nothing. Then a request with an empty bearer token would leave the worker.
    """

    __slots__ = ()

    def __str__(self) -> str:
        raise CredentialError(
            f"keychain entry {self._undefined_name!r} is not_found: define it in the playbook's keychain section, "
            "or give a value with `| default(...)`",
            code="keychain_entry",
        )

    def alone(self) -> None:
        """Return None, as the value of a template that is only `{{ keychain.name }}` and whose entry is missing."""


class RequiredSecret(MissingSecret):
    """Undefined value in place of a missing keychain entry on the Rust plane. A template that is only a reference to
    the entry raises an error instead of giving null. `default` and `is defined` still work."""

    __slots__ = ()

    def alone(self) -> None:
        """Raise CredentialError for a template that is only a reference to a missing keychain entry."""
        str(self)


class SecretEntry(dict[str, Any]):
    """A keychain entry, or the whole keychain (`entry` is ""). Reading a missing field raises an error that names it.

    Args:
        fields: the fields of the entry, or the entries of the keychain.
        entry: name of the entry.
        missing: names of the entries that the plane was asked for and does not have.
        required: class of the undefined value that stands in place of a missing entry.
    """

    __slots__ = ("entry", "missing", "required")

    def __init__(
        self,
        fields: Mapping[str, Any],
        entry: str,
        missing: frozenset[str] = frozenset(),
        required: type[MissingSecret] = MissingSecret,
    ) -> None:
        super().__init__(fields)
        self.entry = entry
        self.missing, self.required = missing, required

    def field(self, name: str) -> Any:
        """Return the value of a field.

        Raises:
            CredentialError: there is no such field, or it is null or empty.
        """
        if name in self.missing:
            return self.required(name=name)
        value = self.get(name)
        if value is None or value == "":
            state = "is empty" if name in self else "does not exist"
            known = f"; it has {', '.join(sorted(self))}" if self else ""
            what = f"keychain entry {self.entry!r}: field {name!r}" if self.entry else f"keychain entry {name!r}"
            # Entries are fetched before a template is rendered, so an entry with a computed name is never fetched.
            advice = "" if self.entry else "; write its name out, as keychain.name or keychain['name']"
            raise CredentialError(f"{what} {state}{known}{advice}", code="keychain_field")
        return SecretEntry(value, f"{self.entry}.{name}") if type(value) is dict else value


class TemplateScope(Context):
    """A Jinja context over variables that are not copied. Globals are looked up after the variables."""

    @cached_property
    def budget(self) -> Budget:
        """Limits of work, size and time for the rendering that uses this context; `template.render` sets them."""
        return Budget()

    def derived(self, locals: dict[str, Any] | None = None) -> Context:  # noqa: A002 - as Jinja's own
        """Return the context of a scoped block of the template. The new context shares this context's budget: the work,
        size and time that the rendering has left."""
        inner = super().derived(locals)
        inner.__dict__["budget"] = self.budget
        return inner

    def concat(self, pieces: list[str]) -> str:
        """Join the pieces of a `set` block, a macro or a call block. First charge the text's size to the rendering's
        budget."""
        self.budget.charge(len(pieces), joined_size(pieces))
        return "".join(pieces)

    def resolve_or_missing(self, key: str) -> Any:
        if key in self.vars:
            return self.vars[key]
        if key in self.parent:
            return check_read(self.parent[key])
        return self.environment.globals.get(key, missing)


class _Generator(CodeGenerator):
    """Jinja's code generator, changed for NoETL. `value.name` looks up a key, and only a call `value.name()` looks up a
    method. `~` converts its operands by `to_text`."""

    def _write_around(self, before: str, parts: Iterable[Any], after: str, frame: Frame) -> None:
        """Write `before`, then the Python code of each expression in `parts` followed by a comma, then `after`."""
        self.write(before)
        for part in parts:
            self.visit(part, frame)
            self.write(", ")
        self.write(after)

    def visit_Call(self, node: nodes.Call, frame: Frame, forward_caller: bool = False) -> None:  # noqa: N802
        callee = node.node
        if isinstance(callee, nodes.Getattr):
            method = nodes.Getattr(callee.node, callee.attr, _METHOD)
            node = nodes.Call(method, node.args, node.kwargs, node.dyn_args, node.dyn_kwargs)
        super().visit_Call(node, frame, forward_caller=forward_caller)

    def visit_Getattr(self, node: nodes.Getattr, frame: Frame) -> None:  # noqa: N802
        named = node.node
        if node.ctx == _METHOD:
            self._write_around("environment.method(", [named], f"{node.attr!r})", frame)
        elif node.attr == "result" and isinstance(named, nodes.Name) and named.name not in _NO_STEPS:
            self._write_around(f"environment.step_result(context, {named.name!r}, ", [named], ")", frame)
        else:
            super().visit_Getattr(node, frame)

    def visit__Compared(self, node: _Compared, frame: Frame) -> None:  # noqa: N802
        self._write_around("environment.compared(context, ", [node.node], ")", frame)

    def visit_Compare(self, node: nodes.Compare, frame: Frame) -> None:  # noqa: N802
        others = [nodes.Operand(operand.op, _Compared(operand.expr)) for operand in node.ops]
        super().visit_Compare(nodes.Compare(_Compared(node.expr), others), frame)

    def visit_Dict(self, node: nodes.Dict, frame: Frame) -> None:  # noqa: N802
        if all(isinstance(pair.key, nodes.Const) and isinstance(pair.key.value, str) for pair in node.items):
            super().visit_Dict(node, frame)
        else:
            pairs = [nodes.Tuple([pair.key, pair.value], "load") for pair in node.items]
            self._write_around("environment.new_object((", pairs, "))", frame)

    def visit_Getitem(self, node: nodes.Getitem, frame: Frame) -> None:  # noqa: N802
        if isinstance(node.arg, nodes.Slice):
            bounds = [part or nodes.Const(None) for part in (node.arg.start, node.arg.stop, node.arg.step)]
            self._write_around("environment.slice(context, ", [node.node, *bounds], ")", frame)
        else:
            super().visit_Getitem(node, frame)

    def visit_Concat(self, node: nodes.Concat, frame: Frame) -> None:  # noqa: N802
        self._write_around("environment.concat_text(context, (", node.nodes, "))", frame)

    def _output_child_to_const(self, node: nodes.Expr, frame: Frame, finalize: Any) -> str:
        """Return the constant for a template's plain text. Raise Impossible for an expression: Jinja then evaluates the
        expression at rendering, within the rendering's budget, and not while compiling."""
        if not isinstance(node, nodes.TemplateData):
            raise nodes.Impossible
        return super()._output_child_to_const(node, frame, finalize)

    def write_commons(self) -> None:
        super().write_commons()
        self.writeline("concat = context.concat")


class _Compared:
    """Syntax node that `_Generator` puts around each operand of a comparison, so that the operand is charged to the
    rendering's budget before the comparison."""

    def __init__(self, node: nodes.Expr) -> None:
        self.node = node


class Environment(ImmutableSandboxedEnvironment):
    """Sandboxed Jinja environment of all NoETL templates. It raises SecurityError for forbidden attributes, where
    Jinja's own sandbox returns a silent undefined."""

    code_generator_class = _Generator
    context_class = TemplateScope
    new_object = staticmethod(new_object)
    intercepted_binops = frozenset({"+", "-", "*", "/", "//", "%", "**"})

    def __init__(self, undefined: type[Undefined]) -> None:
        super().__init__(
            undefined=undefined,
            finalize=_printed,
            keep_trailing_newline=True,
            autoescape=False,
            cache_size=0,
            optimized=False,  # the optimizer would compute constants without a budget
        )
        filters: dict[str, Callable[..., Any]] = {**self.filters, **FILTERS}
        self.filters = {
            name: charged(filters[name], cost, ATTRIBUTE_AT.get(name)) for name, cost in FILTER_COSTS.items()
        }
        self.filters[template_limits.COUNTED] = template_limits.counted
        tests: dict[str, Any] = dict(self.tests)
        self.tests = {name: charged(tests[name], cost) for name, cost in TEST_COSTS.items()}
        del self.globals["lipsum"]
        self.globals["dict"] = new_object
        self.globals["namespace"] = CheckedNamespace

    def getattr(self, obj: Any, attribute: str) -> Any:
        """Return the value of `obj.attribute` in a template. In data this is the key `attribute`, never a method:
        `{{ workload.items }}` is the value of the key `items`. For a call, such as `workload.items()`, the template
        uses `method` instead."""
        if isinstance(obj, SecretEntry):
            return obj.field(attribute)
        if isinstance(obj, dict):
            if attribute in obj:
                return check_read(obj[attribute])
        elif not isinstance(obj, (str, int, float, list, tuple, type(None), Undefined)):
            return super().getattr(obj, attribute)
        if attribute.startswith("__"):
            return self.unsafe_undefined(obj, attribute)
        return obj if isinstance(obj, Undefined) else self.undefined(obj=obj, name=attribute)

    def step_result(self, context: Context, name: str, obj: Any) -> Any:
        """Return the value of `NAME.result` in a template: the key `result` of the variable NAME, whose value is `obj`.

        If a variable of the command lacks this key, return its whole value. Such a variable may hold a step's data, for
        which older playbooks write `step.result` (protocol/command.md#names). For a variable that the template itself
        sets (by `for` or `set`), `result` is an ordinary key.
        """
        if type(obj) in (dict, WithFallback) and "result" not in obj and context.parent.get(name) is obj:
            return obj
        return self.getattr(obj, "result")

    def getitem(self, obj: Any, argument: Any) -> Any:
        if not isinstance(argument, KEY_TYPES):  # hashing or printing a container visits everything in it
            raise SecurityError(f"a key is a text or a number, no {type(argument).__name__}; make it a text")
        if isinstance(obj, SecretEntry):
            return obj.field(str(argument))
        if isinstance(argument, str) and isinstance(obj, (str, dict, list, tuple)):
            return self.getattr(obj, argument)  # a key or undefined, as with a dot, never a method
        return check_read(super().getitem(obj, argument))

    def method(self, obj: Any, attribute: str) -> Any:
        """Return the method for a call `value.name(...)`. `m.items()` calls the method even if the object has a key
        `items`."""
        return super().getattr(obj, attribute)

    def wrap_str_format(self, value: Any) -> Callable[..., str] | None:
        wrapped = super().wrap_str_format(value)
        return None if wrapped is None else Format(value.__self__, wrapped)

    def unsafe_undefined(self, obj: Any, attribute: str) -> Undefined:
        raise SecurityError(
            f"attribute {attribute!r} of {type(obj).__name__!r} is not open to templates: read it in a python step"
        )

    def call_binop(self, context: Context, operator: str, left: Any, right: Any) -> Any:
        charge_operation(current_budget(context), operator, left, right)
        return super().call_binop(context, operator, left, right)

    def call(__self, __context: Context, __obj: Any, *args: Any, **kwargs: Any) -> Any:  # noqa: N805 - as Jinja's own
        return super().call(__context, __obj, *charge_call(__context, __obj, args, kwargs), **kwargs)

    def _parse(self, source: str, name: str | None, filename: str | None) -> nodes.Template:
        tree = super()._parse(source, name, filename)
        for found in tree.find_all((nodes.Filter, nodes.EvalContextModifier)):
            if isinstance(found, nodes.EvalContextModifier):
                raise SecurityError("autoescape is not open to templates: use the filter escape")
            if isinstance(found, nodes.Filter) and found.name == template_limits.COUNTED:
                raise SecurityError(f"filter {template_limits.COUNTED!r} is not open to templates: leave it out")
        template_limits.count_loops(tree)
        return tree

    @staticmethod
    def compared(context: Context, value: Any) -> Any:
        """Return an operand of a comparison, after charging the operand to the rendering's budget. All values inside it
        are charged, because the comparison may visit all."""
        if isinstance(value, str):
            if len(value) > _SHORT:
                current_budget(context).charge(1 + len(value) // 64)
        elif type(value) not in JSON_SCALARS:
            current_budget(context).charge_value(value)
        return value

    def slice(self, context: Context, value: Any, start: Any, stop: Any, step: Any) -> Any:
        part = slice(start, stop, step)
        charge_slice(current_budget(context), value, part)
        return value[part]

    @staticmethod
    def concat_text(context: Context, parts: Iterable[Any]) -> str:
        texts = [_printed(context, part) for part in parts]
        current_budget(context).charge(len(texts), joined_size(texts))
        return "".join(texts)


@pass_context
def _printed(context: Context, value: Any) -> str:
    """Return a value as text (`to_text`), and charge the conversion to the rendering's budget."""
    check_read(value)
    if isinstance(value, int):
        current_budget(context).charge_number(value)
    elif not isinstance(value, (str, float, type(None))):
        current_budget(context).charge_printed(value)
    return to_text(value)


LENIENT: Final = Environment(ChainableUndefined)
STRICT: Final = Environment(_StrictMissing)
