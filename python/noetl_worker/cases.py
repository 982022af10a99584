"""`when`/`then`, by the name that docs/library.md gives it: `noetl_worker.pipeline.command.cases`."""

from noetl_worker.pipeline.command.cases import compile_cases, match_cases, parse_action

__all__ = ["compile_cases", "match_cases", "parse_action"]
