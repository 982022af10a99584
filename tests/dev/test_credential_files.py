"""Credentials of a local run: found, named, and never quoted."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from noetl_worker.authoring.dev.credential_files import local_credentials
from noetl_worker.errors import PlaybookError

SECRET = "s3cr3t-9d1f"


def written(folder: Path, name: str, text: str) -> Path:
    file = folder / name
    file.write_text(text, encoding="utf-8")
    return file


def test_there_are_none_without_a_file(tmp_path: Path) -> None:
    assert local_credentials(tmp_path / "p.yaml", ()) == []


@pytest.mark.parametrize("name", ["credentials.yaml", "credentials.yml", "credentials.json"])
def test_file_beside_the_playbook_is_read(name: str, tmp_path: Path) -> None:
    written(tmp_path, name, json.dumps({"pg": {"type": "postgres", "data": {"port": 5432}}, "x": {"data": {}}}))
    found = local_credentials(tmp_path / "p.yaml", ())
    assert [one.body() for one in found] == [
        {"name": "pg", "type": "postgres", "data": {"port": 5432}},
        {"name": "x", "type": None, "data": {}},
    ]


def test_given_credential_wins_and_may_be_json_or_yaml(tmp_path: Path) -> None:
    written(
        tmp_path, "credentials.yaml", "pg: {type: postgres, data: {port: 1}}\napi: {type: bearer, data: {token: a}}"
    )
    json_file = written(tmp_path, "pg.json", '{"type": "postgres", "description": "mine", "data": {"port": 2}}')
    yaml_file = written(tmp_path, "nats.yaml", "type: nats\ndata: {url: nats://x}")
    found = local_credentials(tmp_path / "p.yaml", (f"pg={json_file}", f"bus = {yaml_file}"))
    assert {one.name: one.data for one in found} == {
        "pg": {"port": 2},
        "api": {"token": "a"},
        "bus": {"url": "nats://x"},
    }


@pytest.mark.parametrize("given", ["pg", "=pg.json", "pg=", ""])
def test_option_without_name_or_file_is_told_the_form(given: str, tmp_path: Path) -> None:
    with pytest.raises(PlaybookError, match="write NAME=FILE"):
        local_credentials(tmp_path / "p.yaml", (given,))


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (f"password: {SECRET}\nhost: x\n", "it has the keys host, password"),
        (f"data: {SECRET}\n", "write a credential as {type: postgres, data: {...}}"),
        (f"- {SECRET}\n", "write a credential as {type: postgres, data: {...}}"),
        (f"data: {{}}\ntype: [{SECRET}]\n", "write `type` as a word"),
        (f"data: {{password: !{SECRET} x}}\n", "neither JSON nor YAML at line 1, column"),
        (f'{{"data": {{"password": "{SECRET}"', "neither JSON nor YAML at line"),
        (f"data: {{password: '{SECRET}\n", "neither JSON nor YAML at line"),
        (f"data: {{password: !!bool {SECRET}}}\n", "neither JSON nor YAML"),
        (f"data: {{password: !!float {SECRET}}}\n", "neither JSON nor YAML"),
        ("", "write a credential as"),
    ],
)
def test_file_of_another_form_is_named_without_its_values(text: str, said: str, tmp_path: Path) -> None:
    file = written(tmp_path, "pg.yaml", text)
    with pytest.raises(PlaybookError) as caught:
        local_credentials(tmp_path / "p.yaml", (f"pg={file}",))
    assert said in str(caught.value)
    assert str(file) in str(caught.value)
    assert SECRET not in str(caught.value)


def test_file_that_is_missing_or_no_text_is_named(tmp_path: Path) -> None:
    with pytest.raises(PlaybookError, match=r"none\.json: No such file"):
        local_credentials(tmp_path / "p.yaml", (f"pg={tmp_path}/none.json",))
    (tmp_path / "credentials.yaml").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(PlaybookError, match=r"credentials\.yaml: neither JSON nor YAML"):
        local_credentials(tmp_path / "p.yaml", ())
    (tmp_path / "credentials.yaml").write_text("[]")
    with pytest.raises(PlaybookError, match=r"credentials\.yaml: write a mapping of names to credentials"):
        local_credentials(tmp_path / "p.yaml", ())


def test_credential_does_not_show_its_data(tmp_path: Path) -> None:
    written(tmp_path, "credentials.yaml", f"pg: {{data: {{password: {SECRET}}}}}")
    assert SECRET not in repr(local_credentials(tmp_path / "p.yaml", ()))
