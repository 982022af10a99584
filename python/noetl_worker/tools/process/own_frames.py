"""Removal of the worker's own frames from a stack dump of user code. A playbook author needs only the frames of the
user code."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Final

_PLACE: Final = f'  File "{Path(__file__).parents[1] / "python"}/'
_FRAME: Final = re.compile(rf"^{re.escape(_PLACE)}.*\n?", re.MULTILINE)


def without_own_frames(text: str) -> str:
    """Remove the frames of the worker's own files from a stack dump of `faulthandler`, or from some lines of such a
    dump. Return any other text unchanged."""
    return _FRAME.sub("", text) if _PLACE in text else text
