"""A call of a function, method, filter or test, charged before it runs. What has no cost is not offered."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from functools import wraps
from typing import Any, Final

from jinja2.exceptions import SecurityError
from jinja2.runtime import BlockReference, Context, LoopContext, Macro, Undefined
from jinja2.utils import Cycler, Joiner, pass_context

from noetl_worker.text.templates.costs import LAZY_NODES, METHOD_COSTS, Cost, lazily
from noetl_worker.text.templates.keys import CheckedNamespace, new_object
from noetl_worker.text.templates.limits import CALL_NODES, budget_of, charge_format, counted

_OWN_NODES: Final = 14
"""Of a filter or test, whatever it does."""
_GIVEN_NODES: Final = 4
"""Of each argument; all of a list may be given as arguments (`*list`)."""
_STEP_NODES: Final = 10
"""Of an attribute or index in a field of `text.format`."""
_MAX_PARTS: Final = 8
_OWNERS: Final = (LoopContext, Cycler)
_FUNCTIONS: Final = (BlockReference, Joiner, Undefined)
_OF_SCOPE: Final = {"_loop_vars", "_block_vars"}
"""What Jinja adds to the names of a call, for itself."""


class Format:
    """`text.format` and `text.format_map`, kept apart from other functions so that a call of them is charged."""

    def __init__(self, text: str, function: Callable[..., str]) -> None:
        self.text = text
        self.function = function

    def __call__(self, *arguments: Any, **named: Any) -> str:
        return self.function(*arguments, **named)


def charge_call(
    context: Context, function: Any, arguments: tuple[Any, ...], named: Mapping[str, Any]
) -> tuple[Any, ...]:
    """Any call in a template, and the arguments to call it with: an iterator has its cost element by element.

    Raises SecurityError: over the budget, or what is not offered.
    """
    budget = budget_of(context)
    if not _OF_SCOPE.isdisjoint(named):
        named = {name: value for name, value in named.items() if name not in _OF_SCOPE}
    given = _GIVEN_NODES * (len(arguments) + len(named))
    if isinstance(function, Macro):
        budget.charge_round(CALL_NODES + given)
        return arguments
    if isinstance(function, LoopContext):
        if named or len(arguments) != 1:
            raise SecurityError("loop(...) takes the elements and nothing else")
        budget.charge_round(CALL_NODES)
        return (counted(context, arguments[0], budget.heaviest_round),)
    budget.charge(1 + given)
    arguments = tuple(map(budget.listed, arguments))
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
    budget = budget_of(context)
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
        raise SecurityError(f"method {name!r} of {kind.__name__!r} is not open to templates")


_PASSED: Final[dict[str, Callable[[Context], tuple[Any, ...]]]] = {
    "": lambda context: (),
    "context": lambda context: (context,),
    "environment": lambda context: (context.environment,),
    "eval_context": lambda context: (context.eval_ctx,),
}
"""What Jinja's own filters and tests get first."""


def charged(function: Callable[..., Any], cost: Cost, attribute_at: int | None = None) -> Callable[..., Any]:
    """A filter or test that is charged before it runs; what it is given without a length, element by element.

    `attribute_at`: which of its arguments is an attribute that is looked up in each element.
    """
    kind = getattr(function, "jinja_pass_arg", None)
    own = _PASSED[kind.name if kind is not None else ""]

    @pass_context
    @wraps(function)
    def charging(context: Context, value: Any = "", *arguments: Any, **named: Any) -> Any:
        budget = budget_of(context)
        if cost is lazily and isinstance(value, Iterator):
            value = budget.charging(value, LAZY_NODES)
        else:
            value = budget.listed(value)
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
            raise SecurityError(f"an attribute of over {_MAX_PARTS} parts: look it up in a loop")
