"""Public name of the `when`/`then` cases (docs/library.md), in `noetl_worker.pipeline.command.cases`."""

from noetl_worker.pipeline.command.cases import compile_cases, match_cases, parse_action

__all__ = ["compile_cases", "match_cases", "parse_action"]
