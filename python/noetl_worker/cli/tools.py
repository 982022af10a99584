"""`noetl-worker tools`: the kinds that are registered, and plug-ins that do not load."""

from __future__ import annotations

import typer

__all__ = ["tools"]


def tools() -> None:
    """List the tool kinds of this installation."""
    from noetl_worker.tools.registry import Registry

    registry = Registry()
    for kind in registry.kinds():
        typer.echo(kind)
    for broken in registry.broken:
        typer.echo(f"noetl-worker: {broken}", err=True)
