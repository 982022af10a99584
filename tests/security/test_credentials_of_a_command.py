"""Others read the credentials of a command."""

from __future__ import annotations

import sys
import tempfile
from typing import Any

import pytest

from .commands import USERS, run_as

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="Linux")

PASSWORD = r"pass:word\1"
LOGIN = {"host": "127.0.0.1", "port": 1, "user": "u", "password": PASSWORD, "database": "d"}
ACCOUNT = {"type": "service_account", "client_email": "e@p.test", "private_key": "key-of-the-account"}
READS = """
import glob, os, subprocess
def reads(name):
    path = os.environ[name]
    return [open(path).read(), open(path).read(), oct(os.stat(path).st_mode)]
show = "import os; print(dict(os.environ)); print(open(os.environ[%r]).read())"
"""


def python(user: str, level: str, code: str, **credentials: dict[str, Any]) -> dict[str, Any]:
    config = {"code": READS + code, "auth": {name: {"key": name, "service": name} for name in credentials}}
    outcome = run_as(user, level, [("python", config)], credentials=credentials)[0]
    assert "data" in outcome, outcome
    return outcome


@pytest.mark.parametrize("user", USERS)
def test_password_of_postgres_is_in_no_environment(user: str) -> None:
    """A program of Python code has the password in `/proc/PID/environ`."""
    code = (
        "inherited = subprocess.run(['env'], capture_output=True).stdout.decode()\n"
        "result = [os.environ.get('PGPASSWORD'), reads('PGPASSFILE'), inherited]"
    )
    variable, (first, second, mode), inherited = python(user, "basic", code, postgres=LOGIN)["data"]
    assert variable is None
    assert first == second == "*:*:*:*:pass\\:word\\\\1\n"
    assert mode == "0o100600"
    assert PASSWORD not in inherited
    assert python(user, "off", "result = os.environ['PGPASSWORD']", postgres=LOGIN)["data"] == PASSWORD


@pytest.mark.parametrize("user", USERS)
def test_key_of_google_is_in_no_directory(user: str) -> None:
    """Another command finds the key file in the temporary directory."""
    code = (
        f"found = [open(path).read() for path in glob.glob('{tempfile.gettempdir()}/noetl-*/google-*.json')]\n"
        "result = [json.loads(reads('GOOGLE_APPLICATION_CREDENTIALS')[0]), found]"
    )
    account, found = python(user, "basic", code, gcp=ACCOUNT)["data"]
    assert account == ACCOUNT
    assert not any("key-of-the-account" in one for one in found)
    assert any("key-of-the-account" in one for one in python(user, "off", code, gcp=ACCOUNT)["data"][1])


@pytest.mark.parametrize("user", USERS)
def test_program_that_is_given_the_descriptors_reads_the_files(user: str) -> None:
    """(no attack) `pass_fds=auth_fds` is how a program gets them."""
    code = (
        "import sys\nargv = [sys.executable, '-c', show % 'PGPASSFILE']\n"
        "result = subprocess.run(argv, pass_fds=auth_fds, capture_output=True).stdout.decode()"
    )
    assert "*:*:*:*:pass" in python(user, "basic", code, postgres=LOGIN)["data"]


@pytest.mark.parametrize("user", USERS)
def test_libpq_reads_the_password(user: str) -> None:
    """(no attack) PGPASSFILE as libpq itself takes it: a plain file, for its owner alone."""
    pytest.importorskip("psycopg")
    code = "from psycopg import pq\nresult = pq.PGconn.connect_start(b'connect_timeout=2').password.decode()"
    outcome = python(user, "basic", code, postgres=LOGIN)
    assert outcome["data"] == PASSWORD
    assert "WARNING" not in outcome["stderr"]
