"""The published vectors: tests/vectors, a JSON object a line."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

VECTORS = Path(__file__).parents[1] / "vectors"


def vectors(*names: str) -> list[dict[str, Any]]:
    """Of these files, in their order."""
    texts = ((VECTORS / f"{name}.jsonl").read_text(encoding="utf-8") for name in names)
    return [json.loads(line) for text in texts for line in text.splitlines() if line.strip()]
