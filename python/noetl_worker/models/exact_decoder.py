"""The standard library's JSON decoder, made strict, for the Python engine (`engine/pure`) and `json_text`."""

from __future__ import annotations

import json
import math
from typing import Final

from noetl_worker.models.wire import JsonValue


def read_float(text: str) -> float:
    """Return the text of a JSON number as a 64-bit float.

    Raises:
        ValueError: the number is too large for a finite float.
    """
    value = float(text)
    if math.isinf(value):
        raise ValueError(f"the number {text[:40]} is too large for a float: write it as a text")
    return value


def refuse_constant(text: str) -> JsonValue:
    """Refuse NaN and Infinity. The standard library accepts both, although they are not JSON.

    Raises:
        ValueError: always.
    """
    raise ValueError(f"{text} is not JSON: write null or a text")


exact_decoder: Final = json.JSONDecoder(parse_float=read_float, parse_constant=refuse_constant)
"""JSON decoder that keeps every digit of an integer, and refuses NaN and infinite numbers."""
