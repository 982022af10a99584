"""What an operator has set for tools, as a value."""

from __future__ import annotations

import os
from collections.abc import Iterable
from pathlib import Path

from noetl_worker.settings.settings import load_settings
from noetl_worker.settings.tools import ToolSettings


def tool_settings(own_files: Iterable[str] = (), **variables: str) -> ToolSettings:
    """Return the settings of these variables and no others."""
    return load_settings(variables, dotenv=Path(os.devnull)).pick_tool_settings(own_files)
