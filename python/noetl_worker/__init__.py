"""A worker for NoETL: pulls command notifications, runs one tool for each, reports the outcome."""

from __future__ import annotations

__version__ = "0.1.0"
