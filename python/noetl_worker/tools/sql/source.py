"""The source of a step's SQL. `script` takes precedence over `query_b64` and `query`, as in NoETL's Python worker."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from noetl_worker.errors import ConfigurationError
from noetl_worker.tools.contract import ToolContext
from noetl_worker.tools.sources.script_address import check_script
from noetl_worker.tools.sources.sources import Sources
from noetl_worker.tools.sql.sql import sql_text


def check_sql(kind: str, config: Any) -> str | None:
    """Check the SQL fields of a config, for the `__post_init__` of a config model. Return the SQL, or None if the SQL
    must be fetched.

    Args:
        config: config model with the fields `query`, `query_b64` and `script`.

    Raises:
        ConfigurationError: the config has no SQL, or `script` has no usable address.
    """
    if config.script is None:
        return sql_text(config.query, config.query_b64)
    text = check_script(config.script, kind)
    return None if text is None else sql_text(text)


async def read_sql(kind: str, config: Any, sources: Sources, context: ToolContext) -> str:
    """Return the SQL to run. Templates in a fetched text are rendered as in `query`, because playbooks also keep
    statements with templates in files.

    Raises:
        ConfigurationError: the script cannot be read, or has no SQL.
        ToolError: the server does not answer, or answers with a status other than 2xx.
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
