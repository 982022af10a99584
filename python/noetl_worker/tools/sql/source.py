"""The source of a step's SQL: `script` before `query_b64` before `query`, as in the Python worker."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from noetl_worker.errors import ConfigurationError
from noetl_worker.tools.contract import ToolContext
from noetl_worker.tools.sources.script_address import check_script
from noetl_worker.tools.sources.sources import Sources
from noetl_worker.tools.sql.sql import sql_text


def check_sql(kind: str, config: Any) -> str | None:
    """Return the SQL if the config contains it, None if it has to be fetched; for a `__post_init__`.

    Args:
        config: has `query`, `query_b64` and `script`.

    Raises:
        ConfigurationError: there is no SQL, or `script` names no place.
    """
    if config.script is None:
        return sql_text(config.query, config.query_b64)
    text = check_script(config.script, kind)
    return None if text is None else sql_text(text)


async def read_sql(kind: str, config: Any, sources: Sources, context: ToolContext) -> str:
    """Return the SQL to run. A fetched text is rendered like `query`, because playbooks keep such statements in files.

    Raises:
        ConfigurationError: the script cannot be read, or is not text.
        ToolError: an address does not answer, or not with 2xx.
    """
    given = check_sql(kind, config)
    if given is not None or config.script is None:
        return given or ""
    text = context.values.render(await sources.of_script(config.script, context))
    if not isinstance(text, str) or not text.strip():
        raise ConfigurationError(f"{kind}: the script {_name(config.script)!r} has no statement")
    return text


def _name(script: str | Mapping[str, Any]) -> Any:
    return script if isinstance(script, str) else script.get("uri")
