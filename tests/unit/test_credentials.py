"""Secrets of one command: resolved or a failure that names them; kept for whom they are for."""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable
from typing import Any

import pytest
import structlog

import virtual_time
from bridge.feed import recorded
from noetl_worker.errors import ConfigurationError, CredentialError, NotSent
from noetl_worker.models import Dialect, JsonValue
from noetl_worker.pipeline.command.credentials import CommandCredentials, keychain_names_in
from noetl_worker.remote.plane.client import ControlPlaneClient, Plane
from noetl_worker.text.templates import template
from unit.planes import URL, Script, ScriptedTransport, answer, command, plane, settings

anyio_backend = virtual_time.anyio_backend

RECORD = {"id": "1", "name": "pg", "type": "postgres", "data": {"db_host": "h", "db_password": "s3cr3t-value"}}
TOKEN = {"status": "success", "token_data": {"token": "tok-12345"}, "expires_at": None, "ttl_seconds": 3600}
MISSING = {"status": "not_found", "token_data": None}


async def use(
    script: Script, *uses: Callable[[CommandCredentials], Awaitable[Any]], **changes: Any
) -> tuple[list[Any], Any]:
    """Each use by a command of its own, on one plane; and the transport."""
    at, transport = plane(script)
    return [await each(CommandCredentials(command(catalog_id="9", **changes), at)) for each in uses], transport


async def failing(
    script: Script, each: Callable[[CommandCredentials], Awaitable[Any]], **changes: Any
) -> CredentialError:
    with pytest.raises(CredentialError) as caught:
        await use(script, each, **changes)
    return caught.value


def credential(one: CommandCredentials) -> Awaitable[Any]:
    return one.credential("pg")


async def test_alias_gives_data_and_type_and_its_secrets_are_known() -> None:
    at, transport = plane(lambda *_: answer(200, RECORD))
    one = CommandCredentials(command(), at)
    assert await credential(one) == {"type": "postgres", "db_host": "h", "db_password": "s3cr3t-value"}
    assert "s3cr3t-value" in one.known.texts().all
    assert "h" not in one.known.texts().all
    [(method, path, _, _)] = transport.sent
    assert method == "GET"
    assert path == f"/api/credentials/pg?include_data=true&execution_id={command().execution_id}"


@pytest.mark.parametrize(
    ("held", "fields"),
    [
        ({"db_user": "demo", "db_password": "demo", "db_name": "demo_noetl", "sslmode": "require"}, ["db_password"]),
        ({"token": "abc", "value": "hunter2", "host": "h"}, ["token", "value"]),
        ({"aws": {"secret_key": "minioadmin"}, "db_password": "s3cr3t-value", "pool": "small"}, ["aws.secret_key"]),
        ({"db_password": "s3cr3t-value", "pool": "small", "retries": 3, "db_user": "demo"}, None),
    ],
)
async def test_credential_whose_secret_could_be_a_word_is_named_once(
    held: dict[str, Any], fields: list[str] | None
) -> None:
    with structlog.testing.capture_logs() as lines:
        await use(lambda *_: answer(200, {**RECORD, "data": held}), credential, credential, credential)
    told = [(line["log_level"], line["of"], line["fields"]) for line in lines if line["event"] == "weak_secret"]
    assert told == ([] if fields is None else [("warning", "credential 'pg'", fields)])
    assert all(line["log_level"] != "warning" or "demo" not in str(line) for line in lines)


async def test_no_execution_sees_what_another_was_given() -> None:
    at, transport = plane(lambda _, path, __: answer(200, {**RECORD, "data": {"password": path[-4:]}}))
    for number in (1111, 2222, 1111):
        one = CommandCredentials(command(execution_id=number), at)
        assert (await one.credential("pg"))["password"] == str(number)
    assert len(transport.sent) == 2


async def test_keychain_entry_is_shared_by_executions_when_global_and_not_when_local() -> None:
    def script(_: str, path: str, __: Any) -> Any:
        wanted = "global" if "/shared_one" in path else "local"
        return answer(200, {**TOKEN, "token_data": {"token": path[-4:]}} if f"scope_type={wanted}" in path else MISSING)

    at, transport = plane(script)
    for number in (1111, 2222):
        one = CommandCredentials(command(execution_id=number, catalog_id="9"), at)
        names: Any = await one.keychain_values({"shared_one", "own"})
        assert names["shared_one"]["token"] == "1111"
        assert names["own"]["token"] == str(number)
    paths = [path for _, path, _, _ in transport.sent]
    assert sum("/shared_one" in path for path in paths) == 1
    assert sum("/own" in path and "scope_type=local" in path for path in paths) == 2


@pytest.mark.parametrize("moment", [lambda now: now + 0.0, lambda now: (now - 5) * 1000])
async def test_credential_that_is_over_is_not_kept(moment: Callable[[float], float]) -> None:
    record = {**RECORD, "data": {"token": "tok-12345", "expires_at": moment(time.time())}}
    _, transport = await use(lambda *_: answer(200, record), credential, credential)
    assert len(transport.sent) == 2


async def test_unknown_alias_is_a_final_failure_that_names_it() -> None:
    error = await failing(lambda *_: answer(404, {"detail": "Credential not found"}), credential)
    assert "'pg'" in str(error)
    assert (error.kind, error.retryable) == ("auth", False)


async def test_page_of_a_proxy_does_not_say_that_an_alias_is_unknown() -> None:
    error = await failing(lambda *_: answer(404, b"<html>no such site</html>"), credential)
    assert error.code == "credential_unavailable"


@pytest.mark.parametrize("status", [401, 403, 400, 422])
async def test_refusal_is_final_and_is_not_asked_again(status: int) -> None:
    at, transport = plane(lambda *_: answer(status, {"detail": "no"}))
    with pytest.raises(CredentialError, match=f"credential 'pg'.*{status}") as caught:
        await CommandCredentials(command(), at).credential("pg")
    assert caught.value.retryable is False
    assert len(transport.sent) == 1


async def test_passing_trouble_is_waited_out() -> None:
    answers = [answer(200, RECORD), answer(425, {}), NotSent("refused"), answer(429, {}), answer(500, {})]
    [found], _ = await use(lambda *_: answers.pop(), credential)
    assert found["db_host"] == "h"


async def test_trouble_that_stays_is_a_retryable_failure_that_names_the_alias() -> None:
    error = await failing(lambda *_: answer(425, {}), credential)  # 503 would make the gate wait as well
    assert "'pg'" in str(error)
    assert error.retryable is True


@pytest.mark.parametrize("data", [None, {}, [], "text"])
async def test_credential_without_data_is_a_failure(data: Any) -> None:
    assert "'pg' has no data" in str(await failing(lambda *_: answer(200, {**RECORD, "data": data}), credential))


def refer(**reference: Any) -> Callable[[CommandCredentials], Awaitable[Any]]:
    value: JsonValue = {"headers": [{"X": {"$noetl_ref": {"kind": "keychain", "name": "tok", **reference}}}]}
    return lambda one: one.resolve_references(value)


async def test_reference_is_replaced_at_any_depth() -> None:
    found, _ = await use(lambda *_: answer(200, TOKEN), refer(field="token"), refer())
    assert found == [{"headers": [{"X": "tok-12345"}]}, {"headers": [{"X": {"token": "tok-12345"}}]}]


@pytest.mark.parametrize(
    ("token_data", "reference", "says"),
    [
        ({"token": "x"}, {"field": "pasword"}, "'tok': field 'pasword' does not exist; it has token"),
        ({"token": ""}, {"field": "token"}, "'tok': field 'token' is empty"),
        ({"token": None}, {"field": "token"}, "'tok': field 'token' is empty"),
        ("text", {"field": "token"}, "'tok': field 'token' does not exist"),
        ({}, {}, "'tok' is empty"),
        (None, {}, "'tok' is empty"),
        ({"token": "x"}, {"kind": "vault"}, "kind 'vault'"),
    ],
)
async def test_reference_that_leads_to_nothing_fails_and_names_it(token_data: Any, reference: Any, says: str) -> None:
    error = await failing(lambda *_: answer(200, {**TOKEN, "token_data": token_data}), refer(**reference))
    assert says in str(error)


async def test_expired_keychain_entry_fails_with_its_name() -> None:
    error = await failing(lambda *_: answer(200, {"status": "expired"}), refer(field="token"))
    assert "'tok' is expired" in str(error)


async def test_reference_to_a_keychain_entry_that_does_not_exist_is_null_and_a_warning(
    capsys: pytest.CaptureFixture[str],
) -> None:
    [found], _ = await use(lambda *_: answer(200, {"status": "not_found"}), refer(field="token"))
    assert found == {"headers": [{"X": None}]}
    assert "keychain_entry_missing" in capsys.readouterr().err


UNDEFINED = [
    ("{{ keychain.tok is defined }}", False),
    ("{{ keychain.tok.token | default('d') }}", "d"),
    ("{{ keychain['tok'].token or 'd' }}", "d"),
    ("{% if keychain.tok %}a{% else %}b{% endif %}", "b"),
    ("{{ keychain.tok.token }}", None),
]


@pytest.mark.parametrize(("text", "gives"), UNDEFINED)
async def test_keychain_entry_that_does_not_exist_is_undefined(text: str, gives: Any) -> None:
    assert template.render(text, {"keychain": await without_entries()}) == gives


async def test_missing_keychain_entry_is_null_where_a_missing_name_is_an_empty_text() -> None:
    variables = {"keychain": await without_entries()}
    assert template.render(["{{ nope }}", "{{ keychain.tok.token }}"], variables, undefined="") == ["", None]


@pytest.mark.parametrize("text", ["Bearer {{ keychain.tok.token }}", "{{ 'Bearer ' ~ keychain.tok.token }}"])
async def test_no_text_is_made_of_a_keychain_entry_that_does_not_exist(text: str) -> None:
    with pytest.raises(CredentialError, match="keychain entry 'tok' is not_found: define it"):
        template.render(text, {"keychain": await without_entries()})


async def test_keychain_entry_that_does_not_exist_is_an_error_where_undefined_is_one() -> None:
    variables = {"keychain": await without_entries()}
    with pytest.raises(CredentialError, match="keychain entry 'tok' is not_found"):
        template.render("{{ keychain.tok.token }}", variables, strict=True)
    assert template.render("{{ keychain.tok.token | default(1) }}", variables, strict=True) == 1


async def without_entries() -> JsonValue:
    at, _ = plane(lambda *_: answer(200, {"status": "not_found"}))
    return await CommandCredentials(command(catalog_id="9"), at).keychain_values({"tok"})


async def test_catalog_id_of_an_author_leads_to_no_other_route() -> None:
    at, transport = plane(lambda *_: answer(200, TOKEN))
    with pytest.raises(ConfigurationError, match="cannot be a part of an address"):
        await CommandCredentials(command(catalog_id="../credentials/other?x="), at).keychain_values({"tok"})
    assert transport.sent == []
    await CommandCredentials(command(catalog_id="9/a?b"), at).keychain_values({"tok"})
    assert transport.sent[0][1].startswith("/api/keychain/9%2Fa%3Fb/tok?scope_type=global&")


async def test_command_without_catalog_says_why_there_is_no_keychain() -> None:
    at, _ = plane(lambda *_: answer(200, TOKEN))
    with pytest.raises(CredentialError, match="'tok': the command has no catalog_id"):
        await CommandCredentials(command(), at).keychain_values({"tok"})


@pytest.mark.parametrize(
    "text",
    [
        "{{ keychain[which].token }}",
        "{% set k = keychain %}{{ k.tok.token }}",
        "{{ (keychain).tok.token }}",
        "{{ keychain['to' ~ 'k'].token }}",
        "{% for n in ['tok'] %}{{ keychain[n].token }}{% endfor %}",
    ],
)
async def test_name_that_a_template_computes_is_an_error_and_no_empty_text(text: str) -> None:
    names = keychain_names_in(text)
    assert names == set()
    at, _ = plane(lambda *_: answer(200, TOKEN))
    keychain = await CommandCredentials(command(), at).keychain_values(names)
    with pytest.raises(CredentialError, match=r"'tok' does not exist; write its name out, as keychain\.name"):
        template.render(text, {"keychain": keychain, "which": "tok"})


def test_workers_own_secrets_are_known_to_every_command() -> None:
    """A shell finds them in /proc/$PPID/environ."""
    ours = settings(
        NATS_URL="nats://me:nats%20secret@localhost:4222", NATS_TOKEN="nats-token", NOETL_INTERNAL_API_TOKEN="api-token"
    )
    at = Plane(ControlPlaneClient(ScriptedTransport(lambda *_: answer(200, {})), ours), URL, Dialect.PYTHON)
    assert {"nats secret", "nats-token", "api-token"} <= set(CommandCredentials(command(), at).known.texts().all)


def test_names_are_found_in_templates_only() -> None:
    value = {
        "a": "Bearer {{ keychain.one.token }}",
        "b": ["{{ keychain[\"two-2\"].x ~ keychain ['no'] }}", {"c": "{% if keychain['three'].y %}x{% endif %}"}],
        "code": "keychain.not_a_template",
    }
    names = keychain_names_in(value) or set()
    assert names >= {"one", "two-2", "three"}
    assert "not_a_template" not in names
    assert keychain_names_in(["{{ keychain . four }}", "{{ keychain ['five'] }}"]) == {"four", "five"}
    assert keychain_names_in({"a": "{{ workload.b }}", "b": "keychain"}) is None


@pytest.mark.parametrize(
    "text",
    [
        "Bearer {{ keychain.tok.pasword }}",
        "{{ keychain.tok.pasword }}",
        "{{ keychain.tok['pasword'] }}",
        "{{ keychain.tok.pasword | default('') }}",
        "{% if keychain.tok.pasword %}x{% endif %}",
        "{{ keychain.other.token }}",
        "{{ keychain.tok.nested.pasword }}",
    ],
)
async def test_template_that_names_no_secret_fails_and_prints_nothing(text: str) -> None:
    entry = {**TOKEN, "token_data": {"token": "x", "nested": {"a": 1}}}
    [names], _ = await use(lambda *_: answer(200, entry), lambda one: one.keychain_values({"tok"}))
    with pytest.raises(CredentialError, match=r"keychain entry '.*(pasword|other)") as caught:
        template.render(text, {"keychain": names})
    assert caught.value.kind == "auth"


async def test_template_reads_keychain_fields_with_their_type() -> None:
    entry = {**TOKEN, "token_data": {"token": "x", "nested": {"n": 5}}}
    [names], _ = await use(lambda *_: answer(200, entry), lambda one: one.keychain_values({"tok"}))
    assert template.render("{{ keychain.tok.nested.n }}", {"keychain": names}) == 5
    assert template.render("{{ keychain.tok }}", {"keychain": names}) == {"token": "x", "nested": {"n": 5}}
    assert template.render("Bearer {{ keychain.tok.token }}", {"keychain": names}) == "Bearer x"


def recorded_of_rust(method: str, path: str, *_: Any) -> Any:
    """What server 3.83.1 answers at /api/credentials, with the ids of a recorded execution as they come."""
    asked = path.partition("?")[0], "execution_id=" in path
    for line in recorded("keychain-through-credentials.jsonl"):
        if "path" in line and (line["path"].partition("?")[0], "execution_id=" in line["path"]) == asked:
            return answer(line["status"], line["body"])
    raise AssertionError(f"not recorded: {method} {path}")


async def rust_keychain(names: set[str], **variables: str) -> tuple[Any, CommandCredentials, Any]:
    transport = ScriptedTransport(recorded_of_rust)
    at = Plane(ControlPlaneClient(transport, settings(**variables)), URL, Dialect.RUST)
    one = CommandCredentials(command(dialect=Dialect.RUST), at)
    return await one.keychain_values(names), one, transport


async def test_keychain_of_the_rust_plane_is_asked_for_by_the_execution_at_its_credentials() -> None:
    names, one, transport = await rust_keychain({"apikey_cred", "entry_of_credential"})
    for name in ("apikey_cred", "entry_of_credential"):
        text = f"Key {{{{ keychain.{name}.api_key }}}}"
        assert template.render(text, {"keychain": names}) == "Key k-123456789"
    assert "k-123456789" in one.known.texts().all
    await one.keychain_values({"entry_of_credential"})
    assert len(transport.sent) == 2  # kept by execution and name


@pytest.mark.parametrize("text", ["{{ keychain.entry_static.client_id }}", "id {{ keychain.entry_static.client_id }}"])
async def test_entry_that_the_rust_plane_does_not_have_is_an_error_that_names_it(text: str) -> None:
    names, _, _ = await rust_keychain({"entry_static"})
    with pytest.raises(CredentialError, match="keychain entry 'entry_static' is not_found"):
        template.render(text, {"keychain": names})
    given = text.replace("client_id", "client_id | default('d')")
    assert "d" in template.render(given, {"keychain": names})


async def test_keychain_of_the_rust_plane_is_held_to_the_allowed_credentials() -> None:
    with pytest.raises(CredentialError, match="'apikey_cred' is not allowed") as caught:
        await rust_keychain({"apikey_cred"}, NOETL_WORKER_CREDENTIALS_ALLOW="etl/*=pg-*")
    assert caught.value.code == "credential_not_allowed"
