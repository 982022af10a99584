"""`noetl-worker tools`: the kinds that are registered."""

from __future__ import annotations

from typing import Annotated

import typer

from noetl_worker.errors import UnknownTool

__all__ = ["tools"]


def tools(
    kind: Annotated[str | None, typer.Argument(help="Show one kind only.")] = None,
    schema: Annotated[bool, typer.Option("--schema", help="Print the JSON Schema of its config.")] = False,
) -> None:
    """List the tool kinds, or print the schema of one."""
    from noetl_worker import json_text
    from noetl_worker.tools.registry import Registry

    registry = Registry()
    try:
        kinds = [kind] if kind else registry.kinds()
        for name in kinds:
            if schema:
                typer.echo(json_text.dumps(registry.schema(name)).decode())
            else:
                typer.echo(name)
    except UnknownTool as error:
        typer.echo(f"noetl-worker: {error}", err=True)
        raise typer.Exit(2) from None
