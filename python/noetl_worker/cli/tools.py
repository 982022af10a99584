"""`noetl-worker tools`: list the tool kinds, show a kind's fields, print JSON Schemas, write docs/tools."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.markup import escape
from rich.table import Column, Table

from noetl_worker.cli.completion import kinds
from noetl_worker.errors import ConfigurationError
from noetl_worker.observability.terminal import say

if TYPE_CHECKING:
    from noetl_worker.tools.contract import Tool
    from noetl_worker.tools.registry import Registry


def tools(
    kind: Annotated[
        str | None,
        typer.Argument(help="A tool kind or an alias of one; none: list them all.", autocompletion=kinds),
    ] = None,
    schema: Annotated[
        bool, typer.Option("--schema", help="Print the JSON Schema (2020-12) of the kind, or of all kinds.")
    ] = False,
    strict: Annotated[bool, typer.Option("--strict", help="With --schema: refuse unknown fields.")] = False,
    playbook: Annotated[bool, typer.Option("--playbook", help="With --schema: the schema of a playbook file.")] = False,
    markdown: Annotated[
        Path | None,
        typer.Option("--markdown", help="Write docs/tools into this folder: a page for each built-in kind."),
    ] = None,
) -> None:
    """List the tool kinds of this installation, or show the fields of one."""
    registry = _registry(plugins=markdown is None)
    chosen = [registry.get(name) for name in ([kind] if kind else registry.kinds_that_run())]
    if markdown:
        _write_pages(markdown, chosen, kind)
        return
    if schema and playbook:
        from noetl_worker.tools.docs.playbook_schema import playbook_schema

        say(json.dumps(playbook_schema(chosen, strict=strict), indent=2, default=str))
    elif schema:
        _print_schemas(chosen, strict=strict, by_kind=kind is None)
    elif kind:
        _print_kind(chosen[0])
    else:
        _print_list(registry, chosen)


def _write_pages(folder: Path, tools: list[Tool[Any]], kind: str | None) -> None:
    from noetl_worker.tools.docs.reference import write_pages

    if kind:
        raise ConfigurationError(f"--markdown writes the pages of all kinds: leave out {kind}")
    write_pages(folder, tools)


def _registry(*, plugins: bool) -> Registry:
    """Return a registry of the tools that the settings allow, including plug-ins.

    If `plugins` is False, return all built-in tools only, for the public documentation.
    """
    from noetl_worker.pipeline.command.tool_rules import make_registry
    from noetl_worker.settings.settings import load_settings
    from noetl_worker.tools.registry import Registry

    return make_registry(load_settings()) if plugins else Registry(plugins=False)


def _print_schemas(chosen: list[Tool[Any]], *, strict: bool, by_kind: bool) -> None:
    from noetl_worker.tools.docs.schema import json_schema

    schemas = {tool.kind: json_schema(tool, strict=strict) for tool in chosen}
    say(json.dumps(schemas if by_kind else schemas[chosen[0].kind], indent=2, default=str))


def _print_list(registry: Registry, chosen: list[Tool[Any]]) -> None:
    from noetl_worker.observability.terminal import operator_console
    from noetl_worker.tools.docs.description import describe_kind
    from noetl_worker.tools.requirements import missing

    installed = Column("to be installed", no_wrap=True)  # not folded, since people paste it
    table = Table(Column("kind", no_wrap=True), "also", "what it does", installed)
    for tool in chosen:
        described = describe_kind(tool)
        table.add_row(
            described.kind, ", ".join(described.aliases), escape(described.summary), escape("\n".join(missing(tool)))
        )
    operator_console().print(table, crop=False)
    refused = sorted(set(registry.kinds()) - {tool.kind for tool in chosen})
    if refused:
        say(f"noetl-worker: not run here (NOETL_WORKER_KINDS, _DENY): {', '.join(refused)}", err=True)
    for broken in registry.broken:
        say(f"noetl-worker: {broken}", err=True)


def _print_kind(tool: Tool[Any]) -> None:
    """Print the documentation page of a tool kind, as in docs/tools but without its first and last paragraph."""
    from noetl_worker.tools.docs.reference import reference_pages
    from noetl_worker.tools.requirements import missing

    for what in missing(tool):
        say(f"To be installed: {what}\n")
    page = reference_pages([tool])[f"{tool.kind}.md"]
    say("\n\n".join(page.split("\n\n")[1:-1]))
