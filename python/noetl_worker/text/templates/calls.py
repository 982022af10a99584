"""Calls of functions, methods, filters and tests in a template. Each call is charged to the rendering's budget before
it runs. A call without a known cost is refused."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from functools import wraps
from typing import Any, Final

from jinja2.exceptions import SecurityError
from jinja2.runtime import BlockReference, Context, LoopContext, Macro, Undefined
from jinja2.utils import Cycler, Joiner, pass_context

from noetl_worker.text.templates.costs import LAZY_NODES, METHOD_COSTS, Cost, lazily
from noetl_worker.text.templates.keys import CheckedNamespace, new_object
from noetl_worker.text.templates.limits import CALL_NODES, charge_format, counted, current_budget

_OWN_NODES: Final = 14
"""Nodes (units of work) that any call of a filter or test costs, in addition to the work of the filter or test."""
_GIVEN_NODES: Final = 4
"""Nodes (units of work) that each argument of a call costs. A call may spread a whole list into arguments (`*list`)."""
_STEP_NODES: Final = 10
"""Nodes (units of work) that each `.name` or `[index]` in a format string for `text.format` costs."""
_MAX_PARTS: Final = 8
_OWNERS: Final = (LoopContext, Cycler)
_FUNCTIONS: Final = (BlockReference, Joiner, Undefined)
_SCOPE_ARGUMENTS: Final = {"_loop_vars", "_block_vars"}
"""Keyword arguments that Jinja adds to a call for its own use."""


class Format:
    """The method `format` or `format_map` of a string that a template uses. By this type, `charge_call` recognizes the
    method and charges its call to the rendering's budget."""

    def __init__(self, text: str, function: Callable[..., str]) -> None:
        self.text = text
        self.function = function

    def __call__(self, *arguments: Any, **named: Any) -> str:
        return self.function(*arguments, **named)


def charge_call(
    context: Context, function: Any, arguments: tuple[Any, ...], named: Mapping[str, Any]
) -> tuple[Any, ...]:
    """Charge a call in a template to the rendering's budget, and return the arguments for the call.

    Iterators among the arguments become lists, and each element is charged. The elements of `loop(...)` are charged
    while the loop runs.

    Raises:
        SecurityError: the call exceeds the budget, or templates may not make this call.
    """
    budget = current_budget(context)
    if not _SCOPE_ARGUMENTS.isdisjoint(named):
        named = {name: value for name, value in named.items() if name not in _SCOPE_ARGUMENTS}
    given = _GIVEN_NODES * (len(arguments) + len(named))
    if isinstance(function, Macro):
        budget.charge_round(CALL_NODES + given)
        return arguments
    if isinstance(function, LoopContext):
        if named or len(arguments) != 1:
            raise SecurityError("loop(...) takes the elements and nothing else: write loop(item.children)")
        budget.charge_round(CALL_NODES)
        return (counted(context, arguments[0], budget.heaviest_round),)
    budget.charge(1 + given)
    arguments = tuple(map(budget.as_list, arguments))
    budget.charge_tuples((*arguments, *named.values()))
    if isinstance(function, Format):
        budget.charge(_STEP_NODES * (function.text.count(".") + function.text.count("[")))
        charge_format(budget, function.text, (*arguments, *named.values()))
    elif function is new_object or function is CheckedNamespace:
        budget.charge_value(arguments)
    elif function is str.maketrans:
        METHOD_COSTS[str]["maketrans"](budget, *arguments, **named)
    else:
        _charge_other(context, function, arguments, named)
    return arguments


def _charge_other(context: Context, function: Any, arguments: tuple[Any, ...], named: Mapping[str, Any]) -> None:
    budget = current_budget(context)
    owner, name = getattr(function, "__self__", None), getattr(function, "__name__", "")
    if isinstance(owner, LoopContext) and name == "changed":
        budget.charge_value(arguments, 12)
        return
    for kind, costs in METHOD_COSTS.items():
        if isinstance(owner, kind) and name in costs:
            costs[name](budget, owner, *arguments, **named)
            return
    is_offered = isinstance(owner, _OWNERS) or isinstance(function, _FUNCTIONS) or not callable(function)
    if not is_offered and not any(function is offered for offered in context.environment.globals.values()):
        kind = owner if isinstance(owner, type) else type(function if owner is None else owner)
        raise SecurityError(f"method {name!r} of {kind.__name__!r} is not open to templates: call it in a python step")


_PASSED: Final[dict[str, Callable[[Context], tuple[Any, ...]]]] = {
    "": lambda context: (),
    "context": lambda context: (context,),
    "environment": lambda context: (context.environment,),
    "eval_context": lambda context: (context.eval_ctx,),
}
"""Kind of the extra first argument for which a filter or test asks (such as by Jinja's decorator `pass_context`) ->
function that returns this argument in a tuple. The kind "" has no extra argument, and an empty tuple."""


def charged(function: Callable[..., Any], cost: Cost, attribute_at: int | None = None) -> Callable[..., Any]:
    """Wrap a filter or test so that each call is charged to the rendering's budget before it runs.

    An iterator given as value is charged element by element.

    Args:
        function: the filter or test.
        cost: function that charges the call's work to the budget.
        attribute_at: index of the argument that is an attribute to look up in each element, if there is one.
    """
    kind = getattr(function, "jinja_pass_arg", None)
    own = _PASSED[kind.name if kind is not None else ""]

    @pass_context
    @wraps(function)
    def charging(context: Context, value: Any = "", *arguments: Any, **named: Any) -> Any:
        budget = current_budget(context)
        if cost is lazily and isinstance(value, Iterator):
            value = budget.charge_each(value, LAZY_NODES)
        else:
            value = budget.as_list(value)
        budget.charge(_OWN_NODES + len(arguments) + len(named))
        budget.charge_tuples((value, *arguments, *named.values()))
        if attribute_at is not None:
            _check_attribute(*arguments[attribute_at : attribute_at + 1], named.get("attribute"))
        cost(budget, value, *arguments, **named)
        return function(*own(context), value, *arguments, **named)

    return charging


def _check_attribute(*attributes: Any) -> None:
    for attribute in attributes:
        if isinstance(attribute, str) and attribute.count(".") + attribute.count(",") >= _MAX_PARTS:
            raise SecurityError(
                f"an attribute of over {_MAX_PARTS} parts, as in 'a.b.c': take its parts in a `for` loop"
            )
