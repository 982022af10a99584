"""Tables of Postgres and of a DuckDB file, and what kind `transfer` moves from one to the other."""

from __future__ import annotations

from typing import Any

import pytest

from noetl_worker.models import ToolStatus

from .databases import Postgres
from .one_template import run_tool

duckdb = pytest.importorskip("duckdb")

OLD = "insert into move.to_t(id, name, note) values (2, 'old', 'kept'), (9, 'stays', 'kept')"


def with_tables(postgres: Postgres) -> Postgres:
    """Its schema `move` is made anew: `from_t` and `to_t`, without rows."""
    postgres.sql(
        "drop schema if exists move cascade; create schema move;"
        " create table move.from_t(id int, name text, amount numeric(10,2), at timestamptz, doc jsonb, tags text[]);"
        " create table move.to_t(id int primary key, name text, amount numeric(10,2), at timestamptz, doc jsonb,"
        " tags text[], note text default 'new')"
    )
    return postgres


def filled(pg: Postgres, rows: int = 5) -> None:
    pg.sql(
        "insert into move.from_t select i, 'n' || i, i + 0.25,"
        " timestamptz '2026-01-02 03:04:05+00' + i * interval '1 d',"
        f" jsonb_build_object('i', i), array['a', i::text] from generate_series(1, {rows}) i"
    )


def in_duckdb(file: str, text: str) -> list[tuple[Any, ...]]:
    with duckdb.connect(file) as connection:
        rows: list[tuple[Any, ...]] = connection.execute(text).fetchall()
        return rows


def move(source: dict[str, Any], target: dict[str, Any], **config: Any) -> dict[str, Any]:
    result = run_tool("transfer", {"source": source, "target": target, **config})
    assert result.status is ToolStatus.SUCCESS
    return result.data


def from_query(pg: Postgres, query: str = "select * from move.from_t order by id") -> dict[str, Any]:
    return {"type": "postgres", "connection_string": pg.uri, "query": query}


def into(file: str, table: str = "t") -> dict[str, Any]:
    return {"type": "duckdb", "database": file, "table": table}


def out_of(file: str, query: str = "select * from t") -> dict[str, Any]:
    return {"type": "duckdb", "database": file, "query": query}


def to(pg: Postgres, table: str = "move.to_t") -> dict[str, Any]:
    return {"type": "postgres", "connection_string": pg.uri, "table": table}
