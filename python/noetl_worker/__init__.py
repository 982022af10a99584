"""A worker for NoETL: pulls command notifications, runs one tool for each, reports what happened."""

from __future__ import annotations

__version__ = "0.1.0"
