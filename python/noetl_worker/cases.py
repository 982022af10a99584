"""Public module from which library users import the functions for `when`/`then` cases (docs/library.md)."""

from noetl_worker.pipeline.command.cases import compile_cases, match_cases, parse_action

__all__ = ["compile_cases", "match_cases", "parse_action"]
