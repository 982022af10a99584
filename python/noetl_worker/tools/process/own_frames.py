"""What of a dump of stacks is the worker's: at a timeout it is written below the stack of the author's code."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Final

_PLACE: Final = f'  File "{Path(__file__).parents[1] / "python"}/'
_FRAME: Final = re.compile(rf"^{re.escape(_PLACE)}.*\n?", re.MULTILINE)


def without_own_frames(text: str) -> str:
    """The dump, or lines of it, as `faulthandler` writes it; any other text is left as it is."""
    return _FRAME.sub("", text) if _PLACE in text else text
