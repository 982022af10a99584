"""Credentials and keychain entries (protocol/executions.md#credentials). Values are kept in clear: this is a
development plane."""

from __future__ import annotations

import sqlite3
import time
from collections.abc import Mapping
from typing import Final

from noetl_worker.dev.database import Ids, moment
from noetl_worker.dev.routes.answers import HttpAnswer, answer, detail, missing, rust_error
from noetl_worker.dev.settings import PlaneSettings
from noetl_worker.json_text import dumps, loads
from noetl_worker.models.wire import Dialect, JsonValue

DEFAULT_TTL_S: Final = 3600
PLAYBOOK_TTL_S: Final = 86_400


class Credentials:
    """Named credentials."""

    def __init__(self, settings: PlaneSettings, db: sqlite3.Connection, ids: Ids) -> None:
        self._db, self._ids = db, ids
        self._is_rust = settings.dialect is Dialect.RUST

    def write(self, body: JsonValue) -> HttpAnswer:
        if not isinstance(body, dict) or "name" not in body:
            return missing("name", body)
        now = time.time()
        self._db.execute(
            "INSERT INTO credentials VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?) ON CONFLICT (name) DO UPDATE SET"
            " type = excluded.type, data = excluded.data, meta = excluded.meta, tags = excluded.tags,"
            " description = excluded.description, updated_at = excluded.updated_at",
            (
                body["name"],
                self._ids.next(),
                body.get("type"),
                dumps(body.get("data")),
                dumps(body.get("meta")),
                dumps(body.get("tags")),
                body.get("description"),
                now,
                now,
            ),
        )
        row = self._row(body["name"])
        assert row is not None
        return answer(self._shown(row, with_data=False))

    def read(self, name: str, *, with_data: bool) -> HttpAnswer:
        row = self._row(name)
        if row is None:
            if self._is_rust:
                return rust_error(404, f"Credential '{name}' not found")
            return detail(404, "Credential not found")
        return answer(self._shown(row, with_data=with_data))

    def _row(self, name: str) -> sqlite3.Row | None:
        found = self._db.execute("SELECT * FROM credentials WHERE name = ? OR id = ?", (name, name)).fetchone()
        assert found is None or isinstance(found, sqlite3.Row)
        return found

    def _shown(self, row: sqlite3.Row, *, with_data: bool) -> Mapping[str, JsonValue]:
        data, tags = loads(row["data"]), loads(row["tags"])
        if self._is_rust:
            record = {"id": str(row["id"]), "name": row["name"], "type": row["type"], "tags": tags or []}
            if with_data:
                record["data"] = data
            record["created_at"] = moment(row["created_at"], utc="Z")
            record["updated_at"] = moment(row["updated_at"], utc="Z")
            return record
        return {
            "id": str(row["id"]),
            "name": row["name"],
            "meta": loads(row["meta"]),
            "tags": tags,
            "description": row["description"],
            "created_at": moment(row["created_at"]),
            "updated_at": moment(row["updated_at"]),
            "data": data if with_data else None,
            "type": row["type"],
        }


class Keychain:
    """Tokens by catalog entry, name and scope. A read always answers 200; `status` says whether it is there."""

    def __init__(self, settings: PlaneSettings, db: sqlite3.Connection) -> None:
        self._db = db
        self._is_rust = settings.dialect is Dialect.RUST

    def write(self, catalog_id: int, name: str, body: JsonValue) -> HttpAnswer:
        if not isinstance(body, dict) or "token_data" not in body:
            return missing("token_data", body)
        scope = body.get("scope_type") or "global"
        key = _key(catalog_id, name, scope, body.get("execution_id"))
        ttl_s = body.get("ttl_seconds") or DEFAULT_TTL_S
        expires_at = time.time() + ttl_s
        is_renewed = bool(body.get("auto_renew"))
        self._put(
            key, body["token_data"], body.get("credential_type"), body.get("cache_type", "token"), scope, expires_at
        )
        return answer(
            {
                "status": "success",
                "message": f"Keychain entry cached successfully with {ttl_s}s TTL",
                "keychain_name": name,
                "catalog_id": catalog_id,
                "cache_key": key,
                "expires_at": moment(expires_at, utc="Z"),
                "ttl_seconds": ttl_s,
                "auto_renew": is_renewed,
            }
        )

    def add_static(self, catalog_id: int, entry: Mapping[str, JsonValue]) -> None:
        """A `kind: static` entry of a playbook's `keychain`, made when the playbook is executed."""
        token = entry.get("map")
        if entry.get("kind") == "static" and isinstance(token, dict):
            key = _key(catalog_id, str(entry.get("name")), "global", None)
            self._put(key, token, "static", "secret", "global", time.time() + PLAYBOOK_TTL_S)

    def _put(self, key: str, token: JsonValue, kind: str | None, cache: str, scope: str, expires_at: float) -> None:
        self._db.execute(
            "INSERT OR REPLACE INTO keychain VALUES (?, ?, ?, ?, ?, ?, 0, 0)",
            (key, dumps(token), kind, cache, scope, expires_at),
        )

    def read(self, catalog_id: int, name: str, scope: str, execution_id: str | None) -> HttpAnswer:
        key = _key(catalog_id, name, scope, execution_id)
        now = time.time()
        self._db.execute("UPDATE keychain SET access_count = access_count + 1 WHERE cache_key = ?", (key,))
        row = self._db.execute("SELECT * FROM keychain WHERE cache_key = ? AND expires_at > ?", (key, now)).fetchone()
        if row is None and self._is_rust:
            return answer({"status": "not_found"})
        found = row is not None
        return answer(
            {
                "status": "success" if found else "not_found",
                "keychain_name": name,
                "catalog_id": catalog_id,
                "cache_key": key,
                "token_data": loads(row["token_data"]) if found else None,
                "credential_type": row["credential_type"] if found else None,
                "cache_type": row["cache_type"] if found else None,
                "scope_type": row["scope_type"] if found else None,
                "expires_at": moment(row["expires_at"], utc="Z") if found else None,
                "ttl_seconds": row["expires_at"] - now if found else None,
                "accessed_at": moment(now, utc="Z") if found else None,
                "access_count": row["access_count"] if found else None,
                "auto_renew": False,
                "renew_config": None,
                "expired": False,
            }
        )


def _key(catalog_id: int, name: str, scope: str, execution_id: JsonValue) -> str:
    tail = execution_id if scope in ("local", "shared") and execution_id is not None else "global"
    return f"{name}:{catalog_id}:{tail}"
