"""Values that the Python plane has replaced by "[REDACTED]" in its result store.

The store has large results, and the fields of a command above 8 kB (protocol/command.md#python-plane). The store
replaces everything that looks like a secret, even a list under `authors`, because this key contains `auth`.
`authoring/dev/server/stored_form.py` has the same rule, taken from the store's source.

A tool that got "[REDACTED]" would succeed with a wrong value, or would find no credential named "[REDACTED]". So the
worker marks each "[REDACTED]" when it fetches the value. A template that reads a marked text fails.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, Final

from noetl_worker.errors import ToolError
from noetl_worker.models.wire import JsonValue

REDACTED: Final = "[REDACTED]"
_ANSWER_HEADERS: Final = frozenset({"set-cookie", "www-authenticate", "set_cookie", "www_authenticate"})
"""Names of HTTP headers that may be "[REDACTED]" without an error. A playbook that passes on a whole HTTP answer does
not need these headers."""
_MOST_PLACES: Final = 5


class RedactedValue(ToolError):
    """Error for a template or config that reads a value which the plane has redacted.

    The class does not derive from TemplateError. In the condition of a task's rule, a TemplateError only makes the
    condition false, but a redacted value must fail the task.
    """

    default_kind = "configuration"


class RedactedText(str):
    """The text "[REDACTED]" that the plane has put in place of a value. The type distinguishes it from ordinary text,
    so that a template that reads it fails."""

    __slots__ = ("place",)
    place: str
    """Path of the redacted value, as a template would write it: `workload.api.token`."""

    @classmethod
    def create(cls, place: str) -> RedactedText:
        made = cls(REDACTED)
        made.place = place
        return made


def mark_redacted(value: Any, name: str) -> list[str]:
    """Replace each text in `value` that is exactly "[REDACTED]" by a RedactedText, in place.

    Args:
        value: a value that the plane has stored and redacted; it is changed.
        name: name of the value in templates. Empty if templates use the value's own fields as names.

    Returns:
        The paths of the replaced texts, except those of HTTP headers that no playbook needs.
    """
    found: list[str] = []
    waiting: list[tuple[Any, str]] = [(value, name)]
    while waiting:
        holder, place = waiting.pop()
        for key, inner, at in members(holder, place):
            if isinstance(inner, (dict, list)):
                waiting.append((inner, at))
            elif inner == REDACTED:
                holder[key] = RedactedText.create(at)
                if str(key).lower() not in _ANSWER_HEADERS:
                    found.append(at)
    return found


def mark_stored(value: Any, packed: bytes, name: str, *, redacts: bool) -> list[str]:
    """Replace each text "[REDACTED]" in a value from a store by a RedactedText. Return the paths of these texts, except
    those of HTTP headers that no playbook needs.

    If `packed` does not contain "[REDACTED]", the value is not searched. That saves time for most values.

    Args:
        value: the value from the store; it is changed.
        packed: the same value as JSON, for a quick search.
        name: name of the value in templates.
        redacts: True if the store of this plane redacts values (the plane's rules say so).
    """
    return mark_redacted(value, name) if redacts and REDACTED.encode() in packed else []


def members(holder: Any, place: str) -> Iterator[tuple[Any, Any, str]]:
    """Yield each key or index of `holder`, its value, and the value's path in a template. `place` is the path of
    `holder`."""
    if isinstance(holder, dict):
        for key in list(holder):
            yield key, holder[key], f"{place}.{key}" if place else key
    elif isinstance(holder, list):
        for index, inner in enumerate(holder):
            yield index, inner, f"{place}[{index}]"


def check_read(value: Any) -> Any:
    """Return a value that a template has looked up, unless the value is redacted.

    Raises:
        RedactedValue: the plane has redacted the value.
    """
    if isinstance(value, RedactedText):
        raise RedactedValue(_reason([value.place]))
    return value


def check_given(value: JsonValue, places: Sequence[str] = ()) -> None:
    """Check that a tool gets no "[REDACTED]" that the plane has put in place of a value.

    Args:
        value: the tool's config.
        places: paths of redacted values in the template variables. If there are any, each text in the config that
            contains "[REDACTED]" is refused: a template may have copied the text.

    Raises:
        RedactedValue: the config has a redacted value.
    """
    waiting: list[JsonValue] = [value]
    while waiting:
        item = waiting.pop()
        if isinstance(item, dict):
            waiting += [inner for key, inner in item.items() if str(key).lower() not in _ANSWER_HEADERS]
        elif isinstance(item, list):
            waiting += item
        elif isinstance(item, RedactedText):
            raise RedactedValue(_reason([item.place]))
        elif places and isinstance(item, str) and REDACTED in item:
            raise RedactedValue(_reason(places))


def _reason(places: Sequence[str]) -> str:
    more = f" and {len(places) - _MOST_PLACES} more" if len(places) > _MOST_PLACES else ""
    return (
        f"the control plane has put {REDACTED} in place of {', '.join(places[:_MOST_PLACES])}{more}: it stores the "
        "fields of a command above 8 kB, and large results, and takes out what looks like a secret (an object or a "
        "list under a name like auth, token or authors; a text like `Basic ...`, a link with ?token=). Pass on less, "
        "so that all fields stay below 8 kB, or rename the field, or name a credential (auth: its_alias) in place of "
        "the secret"
    )
