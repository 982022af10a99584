"""Playbooks with one mistake each, made at random of right ones: what people do to a file when they edit it."""

from __future__ import annotations

import copy
import random
from collections.abc import Iterator
from typing import Any, Final

import yaml

OTHERS: Final = (
    None,
    True,
    0,
    -1,
    2.5,
    "",
    "text",
    "7",
    "{{ workload.x }}",
    [],
    ["a"],
    {},
    {"a": 1},
    [{"step": "end"}],
)
"""What a value is changed to: one of each type."""
NAMES: Final = (
    "args", "when", "case", "retry", "result", "eval", "outcome", "set_ctx", "vars", "executor", "spec", "policy",
    "max_atempts", "next_mode", "on_no_match", "cursor", "kind", "name", "step",
)  # fmt: skip
"""Keys that are added: of older playbooks, of other places, misspelled."""


def mutated(text: str, seed: int) -> str:
    """Return the playbook with one change; the same one for the same seed."""
    chance = random.Random(seed)
    document = yaml.safe_load(text)
    if chance.random() < 0.1:
        return _doubled(document, chance)
    changed = copy.deepcopy(document)
    places = list(_places(changed))
    container, key = chance.choice(places)
    _CHANGES[chance.choice(list(_CHANGES))](container, key, chance)
    return yaml.safe_dump(changed, sort_keys=False)


def _places(value: Any) -> Iterator[tuple[Any, Any]]:
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, item in list(items):
        yield value, key
        yield from _places(item)


def _drop(container: Any, key: Any, chance: random.Random) -> None:
    del container[key]


def _rename(container: Any, key: Any, chance: random.Random) -> None:
    """Two letters change places, or one is lost."""
    if not isinstance(container, dict) or not isinstance(key, str) or len(key) < 2:
        _retype(container, key, chance)
        return
    at = chance.randrange(len(key) - 1)
    swapped = key[:at] + key[at + 1] + key[at] + key[at + 2 :]
    new = swapped if swapped != key and chance.random() < 0.5 else key[:at] + key[at + 1 :]
    pairs = [(new if name == key else name, item) for name, item in container.items()]
    container.clear()
    container.update(pairs)


def _retype(container: Any, key: Any, chance: random.Random) -> None:
    container[key] = copy.deepcopy(chance.choice(OTHERS))


def _add(container: Any, key: Any, chance: random.Random) -> None:
    if isinstance(container, list):
        container.append(copy.deepcopy(chance.choice(OTHERS)))
    else:
        container[chance.choice(NAMES)] = copy.deepcopy(chance.choice(OTHERS))


def _wrap(container: Any, key: Any, chance: random.Random) -> None:
    """A list around a value, or the first of a list in its place."""
    value = container[key]
    container[key] = value[0] if isinstance(value, list) and value else [value]


_CHANGES: Final = {"drop": _drop, "rename": _rename, "retype": _retype, "add": _add, "wrap": _wrap}


class _Twice(dict[str, Any]):
    """A mapping whose first key is written a second time."""


class _Dumper(yaml.SafeDumper):
    pass


def _represent_twice(dumper: yaml.SafeDumper, data: _Twice) -> yaml.Node:
    return dumper.represent_mapping("tag:yaml.org,2002:map", [*data.items(), next(iter(data.items()))])


_Dumper.add_representer(_Twice, _represent_twice)


def _doubled(document: Any, chance: random.Random) -> str:
    places = [(container, key) for container, key in _places(document) if isinstance(container[key], dict)]
    places = [place for place in places if place[0][place[1]]]
    if places:
        container, key = chance.choice(places)
        container[key] = _Twice(container[key])
    return yaml.dump(document, Dumper=_Dumper, sort_keys=False)
