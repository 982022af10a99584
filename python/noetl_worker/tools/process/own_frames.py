"""Removal of the worker's own frames from a stack dump. In the dump they follow the frames of the author's code."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Final

_PLACE: Final = f'  File "{Path(__file__).parents[1] / "python"}/'
_FRAME: Final = re.compile(rf"^{re.escape(_PLACE)}.*\n?", re.MULTILINE)


def without_own_frames(text: str) -> str:
    """Return the dump of `faulthandler`, or lines of it, without our frames. Any other text is unchanged."""
    return _FRAME.sub("", text) if _PLACE in text else text
