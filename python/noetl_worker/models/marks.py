"""Flags that tell whether a claim's answer may contain templates, references or secrets."""

from __future__ import annotations

from typing import Final, NamedTuple


class Marks(NamedTuple):
    """Flags that tell whether the plane's answer to a claim may contain templates, references or secrets.

    If a flag is False, the answer certainly has no such content. So the worker skips the work for that content.
    """

    templates: bool = True
    """True if a string in the plane's answer to the claim may contain a template: `{{`, `{%` or `{#`."""
    references: bool = True
    """True if the plane's answer to the claim may contain a reference, to the result store or to a keychain entry."""
    secrets: bool = True
    """True if the plane's answer to the claim may contain a key named like a secret, or a URL. A URL may contain a
    password."""


ALL: Final = Marks()
