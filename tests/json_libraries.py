"""The JSON module as it is imported where there is no orjson."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from noetl_worker.text import json_text


@contextmanager
def without_orjson() -> Iterator[None]:
    """Inside of it, for all who use the module."""
    try:
        with pytest.MonkeyPatch.context() as patch:
            patch.setitem(sys.modules, "orjson", None)
            importlib.reload(json_text)
        yield
    finally:
        importlib.reload(json_text)
