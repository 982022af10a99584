"""Which metrics and labels a dashboard or a file of rules reads, taken from its PromQL."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator, Mapping
from typing import Any, Final

TARGET_LABELS: Final = frozenset({"job", "instance"})
"""What prometheus adds to each sample that it scrapes."""
NATS_EXPORTER: Final = frozenset({"stream_name", "consumer_name"})
"""Labels of what prometheus-nats-exporter says of a durable, as of its 0.17 (collector/jsz.go)."""
_SELECTOR: Final = re.compile(r"\b(noetl_(?:worker|bridge)_\w+)\s*(?:\{([^}]*)\})?")
_MATCHER: Final = re.compile(r'(\w+)\s*(=~|!~|!=|=)\s*"([^"]*)"')
_LABELS: Final = re.compile(r"\b(?:by|without|on|ignoring|group_left|group_right)\s*\(([^)]*)\)")
_SHOWN: Final = re.compile(r"\{\{\s*(?:\$labels\.)?(\w+)\s*\}\}")


def expressions(node: Any) -> Iterator[tuple[str, str]]:
    """(PromQL, text that shows labels of its result) wherever there is one, in a dashboard or in rules."""
    if isinstance(node, Mapping):
        if isinstance(node.get("expr"), str):
            shown = (str(node.get("legendFormat") or ""), *map(str, (node.get("annotations") or {}).values()))
            yield node["expr"], " ".join(shown)
        query = node.get("query")
        if isinstance(query, str) and query.startswith("label_values("):
            selector, _, label = query.removeprefix("label_values(").removesuffix(")").rpartition(",")
            yield selector, f"{{{{{label.strip()}}}}}"
    children = node.values() if isinstance(node, Mapping) else node if isinstance(node, list) else ()
    for child in children:
        yield from expressions(child)


def unknown_in(expression: str, shown: str, scraped: Mapping[str, Mapping[str, Collection[str]]]) -> list[str]:
    """What of it no scrape has.

    Args:
        scraped: sample name -> its labels -> their values.
    """
    found: list[str] = []
    known = set(TARGET_LABELS)
    if "jetstream_consumer_" in expression:
        known |= NATS_EXPORTER
    selectors = _SELECTOR.findall(expression)
    if not selectors:
        found.append(f"no metric of the worker in {expression!r}")
    for name, matchers in selectors:
        labels = scraped.get(name)
        if labels is None:
            found.append(f"metric {name}")
            continue
        known |= labels.keys()
        for label, how, value in _MATCHER.findall(matchers):
            if label not in labels.keys() | TARGET_LABELS:
                found.append(f"label {label} of {name}")
            elif label in labels and how in ("=", "!=") and value not in labels[label]:
                found.append(f"value {label}={value} of {name}")
    named = {part.strip() for group in _LABELS.findall(expression) for part in group.split(",") if part.strip()}
    return found + [
        f"label {label} in {expression!r}" for label in sorted((named | set(_SHOWN.findall(shown))) - known)
    ]
