"""Allow-lists in settings, such as which credentials each playbook may use. An entry has a name and, for this name, the
patterns (with `*`, `?`) of what is allowed."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from fnmatch import fnmatchcase
from typing import Final, TypeAlias

from noetl_worker.settings import values

Patterns: TypeAlias = Mapping[str, tuple[str, ...]]
KUBERNETES_PARTS: Final = ("namespaces", "service-accounts", "secrets")


def patterns_by_name(text: str) -> Patterns | None:
    """Parse an allow-list: `etl/*=pg-*,s3;web=pg-web` gives {"etl/*": ("pg-*", "s3"), "web": ("pg-web",)}. Return None
    for an empty text."""
    entries = [entry.partition("=") for entry in text.strip().removesuffix(";").split(";")]
    found = {name.strip(): values.texts(patterns) for name, _, patterns in entries}
    if not text.strip():
        return None
    if len(found) < len(entries) or not all(found) or not all(found.values()):
        raise ValueError("NAME=PATTERN,PATTERN entries, separated by `;`, each name once: etl/*=pg-*,s3;web=pg-web")
    return found


def kubernetes_names(text: str) -> Patterns | None:
    """Parse an allow-list of Kubernetes objects: `namespaces=jobs,etl-*` gives {"namespaces": ("jobs", "etl-*")}. Only
    names in KUBERNETES_PARTS may stand before `=`. Return None for an empty text."""
    try:
        found = patterns_by_name(text)
        if found is None or found.keys() <= set(KUBERNETES_PARTS):
            return found
    except ValueError:
        pass
    raise ValueError(
        f"{', '.join(KUBERNETES_PARTS)} with patterns of names, each part once: "
        "namespaces=jobs,etl-*;service-accounts=runner;secrets=app-*"
    )


def matches(name: str, patterns: Iterable[str]) -> bool:
    return any(fnmatchcase(name, pattern) for pattern in patterns)
