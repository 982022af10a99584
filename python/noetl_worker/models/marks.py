"""Flags that tell what the answer to a claim may contain, so that the worker skips needless searches."""

from __future__ import annotations

from typing import Final, NamedTuple


class Marks(NamedTuple):
    """Flags that tell what the answer to a claim may contain. True means "perhaps", False means "certainly not"."""

    templates: bool = True
    """True if a string in the plane's answer to the claim may contain a template: `{{`, `{%` or `{#`."""
    references: bool = True
    """True if the plane's answer to the claim may contain a reference, to the result store or to a keychain entry."""
    secrets: bool = True
    """True if the plane's answer to the claim may contain a key named like a secret, or a URL. A URL may contain a
    password."""


ALL: Final = Marks()
