"""Removal of the worker's own frames from a stack dump of user code. A playbook author needs only the frames of the
user code."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Final

_PLACE: Final = f'  File "{Path(__file__).parents[1] / "python"}/'
_FRAME: Final = re.compile(rf"^{re.escape(_PLACE)}.*\n?", re.MULTILINE)


def without_own_frames(text: str) -> str:
    """Return a dump of `faulthandler`, or some lines of a dump, without frames of the worker's files. Any other text is
    returned unchanged."""
    return _FRAME.sub("", text) if _PLACE in text else text
