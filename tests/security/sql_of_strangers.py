"""SQL that reaches for what is not its own, by what it reaches for; names are filled in by the test.

{fd} is a descriptor of the worker, {pid} the worker's process, {own} a file of the worker, {place} a directory of
playbooks with links: `fd` leads to the worker's descriptors, `own` to its files, `proc` to /proc.
"""

from __future__ import annotations

from typing import Final

_DESCRIPTORS: Final = (
    "'/pro' || 'c/self/fd/{fd}'",
    "'/pro' || 'c/{pid}/fd/{fd}'",
    "'/pro' || 'c/thread-self/fd/{fd}'",
    "'/pro' || 'c/{pid}/task/{pid}/fd/{fd}'",
    "'/de' || 'v/fd/{fd}'",
    "'{place}/f' || 'd/{fd}'",
    "'{place}/../' || repeat('../', 20) || 'pro' || 'c/{pid}/fd/{fd}'",
)
"""Names of one descriptor, put together so that no check of the text sees them."""
_OWN: Final = (
    "'{own}' || ''",
    "'{place}/ow' || 'n/secret'",
    "concat('{place}', '/..', replace('{own}', '{base}', ''))",
)
_KERNEL: Final = (
    "'/pro' || 'c/{pid}/environ'",
    "'/pro' || 'c/self/environ'",
    "'/pro' || 'c/{pid}/mem'",
    "'/pro' || 'c/{pid}/maps'",
    "'/pro' || 'c/{pid}/root' || '{own}'",
    "'/pro' || 'c/{pid}/cwd/x'",
    "'/sy' || 's/kernel/notes'",
    "'/de' || 'v/mem'",
    "'{place}/pro' || 'c/{pid}/environ'",
)
_WRITERS: Final = (
    "SET VARIABLE f = {name}; COPY (SELECT repeat('A', 64)) TO (getvariable('f'))",
    "SET VARIABLE f = {name}; COPY (SELECT repeat('A', 64) AS a) TO (getvariable('f')) (FORMAT csv, HEADER false)",
    "SET VARIABLE f = {name}; COPY (SELECT repeat('A', 64) AS a) TO (getvariable('f')) (FORMAT json)",
    "SET VARIABLE f = {name}; COPY (SELECT repeat('A', 64) AS a) TO (getvariable('f')) (FORMAT parquet)",
    "SET VARIABLE f = {name}; COPY (SELECT repeat('A', 64) AS a) TO (getvariable('f')) "
    "(FORMAT csv, USE_TMP_FILE false)",
)
_READERS: Final = (
    "SELECT * FROM read_text({name})",
    "SELECT * FROM read_blob({name})",
    "SELECT * FROM read_csv({name}, delim = '\\x01', header = false, columns = {{'a': 'VARCHAR'}})",
    "SELECT * FROM read_json({name})",
    "SELECT * FROM query('SELECT content FROM read_text(' || chr(39) || {name} || chr(39) || ')')",
)
_TABLES: Final = (
    "SELECT * FROM read_parquet({name})",
    "SELECT * FROM sniff_csv({name})",
    "SELECT * FROM glob({name} || '*')",
    "CREATE MACRO m(f) AS TABLE SELECT * FROM read_text(f); SELECT * FROM m({name})",
)


def _spelled(forms: tuple[str, ...], names: tuple[str, ...]) -> list[str]:
    return [form.replace("{name}", name).replace("{{", "{").replace("}}", "}") for form in forms for name in names]


SQL: Final[dict[str, list[str]]] = {
    "writes into a descriptor": _spelled(_WRITERS, _DESCRIPTORS),
    "reads a descriptor": _spelled((*_READERS, *_TABLES), _DESCRIPTORS),
    "reads a file of the worker": _spelled((*_READERS, *_TABLES), _OWN),
    "writes a file of the worker": _spelled(_WRITERS[:2], _OWN),
    "reads the kernel's files": _spelled(_READERS, _KERNEL),
    "attaches what is not its own": [
        "ATTACH '/pro{nothing}c/self/fd/{fd}' AS a",
        "ATTACH '{place}/fd/{fd}' AS a; CREATE TABLE a.t AS SELECT 1",
        "ATTACH '{place}/own/secret' AS a",
        "ATTACH '{place}/own/new.db' AS a; CREATE TABLE a.t AS SELECT 1; CHECKPOINT a",
        "ATTACH '{place}/proc/{pid}/mem' AS a (READ_ONLY)",
        "ATTACH '{own}' AS a (TYPE sqlite)",
        "ATTACH 'host=/pro' AS a (TYPE postgres)",
        "CREATE TABLE t (a VARCHAR); COPY t FROM '{place}/own/secret' (DELIMITER '\\x01'); FROM t",
        "CREATE TABLE t (a VARCHAR); COPY t FROM '{place}/fd/{fd}' (DELIMITER '\\x01'); FROM t",
        "IMPORT DATABASE '{place}/own'",
        "EXPORT DATABASE '{place}/own/copy'",
        "EXPORT DATABASE '{place}/fd/{fd}'",
        "COPY FROM DATABASE memory TO nowhere",
        "COPY (SELECT 1 AS a) TO '{place}/own' (FORMAT csv, PARTITION_BY (a), OVERWRITE_OR_IGNORE)",
        "COPY (SELECT 1 AS a) TO '{place}/own/many' (FORMAT csv, PER_THREAD_OUTPUT)",
    ],
    "settings that name a file": [
        "SET temp_directory = '{place}/own'; SET memory_limit = '20MB'; "
        "SELECT count(DISTINCT i) FROM range(4000000) r(i)",
        "SET temp_directory = '{place}/fd/{fd}'",
        "SET secret_directory = '{place}/own'; CREATE PERSISTENT SECRET s (TYPE http, BEARER_TOKEN 'x')",
        "SET allow_persistent_secrets = true; CREATE PERSISTENT SECRET s (TYPE http, BEARER_TOKEN 'x')",
        "SET home_directory = '{base}'; SELECT * FROM read_text('~/worker/secret')",
        "SET extension_directory = '{place}/own'; INSTALL nothing_like_it",
        "SET log_query_path = '{place}/own/log'; SELECT 1",
        "SET log_query_path = '{place}/fd/{fd}'; SELECT 1",
        "SET enable_profiling = 'json'; SET profiling_output = '{place}/own/profile'; SELECT 1",
        "SET enable_profiling = 'json'; SET profiling_output = '{place}/fd/{fd}'; SELECT 1",
        "CALL enable_logging(storage = 'file', storage_config = {'path': '{place}/own'}); SELECT 1",
        "CALL enable_logging(storage = 'file', storage_config = {'path': '{place}/fd'}); SELECT 1",
        "CALL enable_logging(storage = 'stdout'); SELECT 1",
        "SET file_search_path = '{place}/own'; SELECT * FROM read_text('secret')",
        "SET custom_extension_repository = '{place}/own'; INSTALL secret",
        "SET python_enable_replacements = true; SELECT * FROM os",
        "SET python_scan_all_frames = true; SET python_enable_replacements = true; SELECT * FROM request",
        "SET lock_configuration = false; SET enable_external_access = true; "
        "SELECT * FROM read_text('{place}/own/secret')",
    ],
    "extensions": [
        "LOAD '{own}'",
        "LOAD '{place}/own/secret'",
        "LOAD '{place}/fd/{fd}'",
        "LOAD '/pro{nothing}c/self/fd/{fd}'",
        "INSTALL '{place}/own/secret'",
        "INSTALL '{place}/fd/{fd}'",
        "SET allow_unsigned_extensions = true; LOAD '{own}'",
        "INSTALL nothing_like_it FROM '{place}/own'",
        "INSTALL nothing_like_it FROM 'http://127.0.0.1:9'",
        "FORCE INSTALL nothing_like_it FROM '{place}/own'",
        "UPDATE EXTENSIONS (nothing_like_it)",
        "SET autoinstall_known_extensions = true; SELECT * FROM sqlite_scan('{own}', 't')",
        "SELECT getenv('CANARY')",
        "SELECT getvariable('CANARY')",
        "PRAGMA database_list",
        "SELECT * FROM duckdb_secrets()",
        "SELECT * FROM duckdb_settings()",
        "SELECT * FROM pragma_user_agent()",
    ],
}
"""What a statement does -> statements."""
