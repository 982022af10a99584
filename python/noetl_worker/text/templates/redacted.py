"""Values that the Python plane has put "[REDACTED]" in place of, in what its result store keeps for it.

Fields of a command above 8 kB are there (protocol/command.md#python-plane), and so are large results. What looks like a
secret is taken out: a list under `authors` too (read in its source; `authoring/dev/server/stored_form.py` has the
rule). A tool that is given the text in its place is green with a wrong value, or says that a credential of that name is
not there. So each is found when it is fetched, and what reads one fails.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, Final

from noetl_worker.errors import ToolError
from noetl_worker.models.wire import JsonValue

REDACTED: Final = "[REDACTED]"
_OF_ANSWERS: Final = frozenset({"set-cookie", "www-authenticate", "set_cookie", "www_authenticate"})
"""Headers of an HTTP answer, which nobody means who hands on the whole of it."""
_MOST_PLACES: Final = 5


class RedactedValue(ToolError):
    """A value that the plane has taken out is read. No TemplateError, with which a rule of a task does not hold."""

    default_kind = "configuration"


class RedactedText(str):
    """The text, wherever it stands for another value. Its `place` is said as a template would."""

    __slots__ = ("place",)
    place: str

    @classmethod
    def at(cls, place: str) -> RedactedText:
        made = cls(REDACTED)
        made.place = place
        return made


def mark_redacted(value: Any, name: str) -> list[str]:
    """Put a RedactedText in the place of each text that is REDACTED and nothing else; where they are.

    Args:
        value: as it was read from the store; it is changed.
        name: what its fields are below; "" for names of their own.

    Returns:
        Their places, without headers of an HTTP answer.
    """
    found: list[str] = []
    waiting: list[tuple[Any, str]] = [(value, name)]
    while waiting:
        holder, place = waiting.pop()
        for key, inner, at in members(holder, place):
            if isinstance(inner, (dict, list)):
                waiting.append((inner, at))
            elif inner == REDACTED:
                holder[key] = RedactedText.at(at)
                if str(key).lower() not in _OF_ANSWERS:
                    found.append(at)
    return found


def mark_stored(value: Any, packed: bytes, name: str, *, redacts: bool) -> list[str]:
    """The same of what a store gave as `packed`; `redacts`: whether its plane's does so at all (its rules say it)."""
    return mark_redacted(value, name) if redacts and REDACTED.encode() in packed else []


def members(holder: Any, place: str) -> Iterator[tuple[Any, Any, str]]:
    """Of an object or a list each key or index, its value, and where that is, as a template would say it."""
    if isinstance(holder, dict):
        for key in list(holder):
            yield key, holder[key], f"{place}.{key}" if place else key
    elif isinstance(holder, list):
        for index, inner in enumerate(holder):
            yield index, inner, f"{place}[{index}]"


def check_read(value: Any) -> Any:
    """What a template has looked up. Raises RedactedValue where the plane has taken it out."""
    if type(value) is RedactedText:
        raise RedactedValue(_reason([value.place]))
    return value


def check_given(value: JsonValue, places: Sequence[str] = ()) -> None:
    """Raise RedactedValue where a tool would be given a text that the plane has put in place of another value.

    Args:
        value: its config.
        places: where such texts are in what its templates may name: then a text may have one in it.
    """
    waiting: list[JsonValue] = [value]
    while waiting:
        item = waiting.pop()
        if isinstance(item, dict):
            waiting += [inner for key, inner in item.items() if str(key).lower() not in _OF_ANSWERS]
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
        "list under a name like auth, token or authors; a text like `Basic ...`, a link with ?token=). Hand on less, "
        "so that all fields stay below 8 kB, rename it, or name a credential (auth: its_alias) in place of its value"
    )
