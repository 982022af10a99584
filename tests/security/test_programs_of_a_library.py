"""A library in the worker starts a program that a command left."""

from __future__ import annotations

from pathlib import Path

import pytest

from noetl_worker.errors import ConfigurationError
from noetl_worker.testing import tool_context
from noetl_worker.tools.sources.s3_object import signed

pytest.importorskip("botocore")
KEYS = '{"Version": 1, "AccessKeyId": "AKIDOFPROGRAM", "SecretAccessKey": "secret"}'


async def signed_headers() -> dict[str, str]:
    return (await signed("s3://bucket/key", {"endpoint": "http://127.0.0.1:9"}, tool_context()))[1]


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """With profiles for AWS that a command can write; no other keys are known."""
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_PROFILE", "AWS_CONFIG_FILE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.delenv("AWS_SHARED_CREDENTIALS_FILE", raising=False)
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    monkeypatch.setenv("HOME", str(tmp_path))
    (tmp_path / ".aws").mkdir()
    (tmp_path / "program").write_text(f"#!/bin/sh\nenv > {tmp_path}/stolen\necho '{KEYS}'\n")
    (tmp_path / "program").chmod(0o755)
    return tmp_path


def profile(home: Path, file: str, text: str) -> Path:
    path = home / ".aws" / file
    path.write_text(text.format(program=f"credential_process = {home}/program"))
    return path


@pytest.mark.parametrize(
    ("file", "text"),
    [
        ("config", "[default]\n{program}\n"),
        ("credentials", "[default]\n{program}\n"),
        ("config", "[default]\nrole_arn = arn:aws:iam::1:role/r\nsource_profile = other\n[profile other]\n{program}\n"),
    ],
)
async def test_program_of_an_aws_profile_in_the_home_is_not_run(home: Path, file: str, text: str) -> None:
    """A program in `~/.aws`, started when `s3://` is opened."""
    profile(home, file, text)
    with pytest.raises(ConfigurationError, match=r"credential_process.*AWS_CONFIG_FILE"):
        await signed_headers()
    assert not (home / "stolen").exists()


async def test_program_of_files_that_the_operator_names_is_run(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """(no attack)"""
    monkeypatch.setenv("AWS_CONFIG_FILE", str(profile(home, "config", "[default]\n{program}\n")))
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(home / "none"))
    assert "AKIDOFPROGRAM" in (await signed_headers())["Authorization"]


async def test_keys_of_a_profile_in_the_home_are_used(home: Path) -> None:
    """(no attack)"""
    profile(home, "credentials", "[default]\naws_access_key_id = AKIDOFFILE\naws_secret_access_key = secret\n")
    assert "AKIDOFFILE" in (await signed_headers())["Authorization"]
