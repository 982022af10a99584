"""The strength of a secret, which decides where it is replaced: one rule for all secrets.

A secret that looks like a word must not be replaced inside words: the password `demo` would destroy `demographics` in
the data of the next step. A secret that no text contains by chance is replaced wherever it occurs.
"""

from __future__ import annotations

import math
import re
import string
from enum import Enum
from typing import Final

_LEAST_BITS: Final = 40.0
"""Least bits of a secret that is replaced in data. A weaker one looks like a word, a year or a row number."""
_SAFE_BITS: Final = 64.0
"""Least bits of a secret that is replaced anywhere."""
_COMMON_BITS: Final = 10.0
"""Bits of a common word."""
_FEWEST_SIGNS: Final = 3
"""Least number of different characters in a secret. A line of `=` or `0` is no secret."""
# The last pattern is a negated set, because a set that lists the characters beyond ASCII takes 10 ms to compile.
_ALPHABETS: Final = (
    (re.compile(r"[0-9]"), 10),
    (re.compile(r"[a-z]"), 26),
    (re.compile(r"[A-Z]"), 26),
    (re.compile(r"[\x00-/:-@\[-`{-\x7f]"), 33),
    (re.compile(r"[^\x00-\x7f]"), 100),
)
_RUN_OF_LETTERS: Final = re.compile(r"[^\W\d_]+")
_BETWEEN_WORDS: Final = re.compile(r"[\W_]+")
_LETTERS: Final = re.compile(r"[A-Z]?[^\x00-`{-\xde]{2,}|[A-Z\xc0-\xde]{2,}")
_MAX_DIGITS: Final = 4
_DATE: Final = re.compile(r"[0-9]{1,4}(?:[-./: T][0-9]{1,4})+Z?")
"""Pattern of dates, times, IP addresses and telephone numbers. Only their digits count, since data is full of them."""
_COMMON_WORDS: Final = frozenset(
    """
    abc123 access account accounts action active admin administrator administrators agent airflow analyst analytics
    anonymous apache apikey application applications archive asdfgh asdfghjkl australia authentication authorization
    backend backup backups bitnami bigquery bucket business cache calendar cassandra catalog category changeit changeme
    changethis client clickhouse cluster collection commerce commercial community company complete completed
    computer confidential config configuration connection connections connector consumer container containers content
    context controller correct country create credential credentials currency customer customers dashboard data
    database databases datadog datalake datastore datawarehouse dataset default defaultpassword demo deployment
    description desktop dev developer developers development directory disabled docker document documents
    domain download duckdb dummy dynamodb elastic elasticsearch electronic email employee employees enabled encryption
    engineering enterprise environment error event events example examples exchange execution executions export external
    failed finance financial firstname football frontend function functions gateway generation germany github gitlab
    grafana greenplum guest health hello helloworld history hostname identity iloveyou important incoming information
    infrastructure ingest integration interface internal international internet inventory invoice invoices jenkins
    keycloak kafka keychain kubernetes language lastname letmein letmeinnow library local localhost location logging
    login logistics lowercase machine management manager manufacturing mariadb marketing master maintenance message
    messages metadata metrics microservice microsoft migration minioadmin mongo mongodb monitoring monkey mypassword
    mysecret mysql namespace neo4j network newpassword nobody noetl nopassword normal notification notifications
    observability oauth2 operation operations operator oracle orchestrator organisation organization orders outgoing
    owner partition partner partners passphrase password passwords passwort payment payments pending performance
    permission permissions personal phpmyadmin pipeline pipelines placeholder platform playbook playbooks pleasechangeme
    postgres postgresql postgrespassword prefect preproduction presentation private privileged processing processor
    product production products profile project projects prometheus protected provider public publication published
    publisher qwerty qwertyui qwertyuiop rabbitmq readonly readwrite realtime reference references region register
    registration replica replication replicator report reporting reports repository request requests reservation
    resource resources response restricted result results retention revenue role root running salesforce sandbox
    scheduler schema schemas search secret secrets security sequence server servers service services session shipping
    snowflake software something spreadsheet sqlserver staging standard starrocks statement statistics storage
    subscriber subscription successful success superadmin supersecret superset superuser supplier suppliers support
    synchronization system table telemetry temporary tenant terraform test tester testing testpassword testuser token
    tokens tracking transaction transactions transfer transformation transport trino trustno1 undefined university
    unknown uppercase username users validation value values variable variables vault verification version warehouse
    warehouses webmaster website welcome wordpress worker workers workflow workflows workload workspace xxxxxxxx
    yourpassword zookeeper zxcvbnm
    """.split()  # noqa: SIM905 - as a list literal it would be 300 lines long
)
"""Words that occur in data anyway: names of things in a playbook, and passwords that everybody tries first."""


class Strength(Enum):
    """Strengths of a secret. The engines get WORDY secrets as `words` and STRONG ones as `secrets`."""

    COMMON = "common"
    """A secret that is replaced nowhere: it is an ordinary word and discloses nothing."""
    SHORT = "short"
    """A secret that is replaced as a whole word in texts for people (errors, log lines), never in data."""
    WORDY = "wordy"
    """A secret that is replaced as a whole word in data too, never inside a key."""
    STRONG = "strong"
    """A secret that is replaced wherever it occurs: no innocent text looks like it."""


def strength_of(text: str) -> Strength:
    """Return the strength by alphabet and length. If all words are common (`Demo-2024!`), each adds only 10 bits."""
    if text.lower() in _COMMON_WORDS or len(set(text)) < _FEWEST_SIGNS:
        return Strength.COMMON
    words = _RUN_OF_LETTERS.findall(text)
    if words and all(word.lower() in _COMMON_WORDS for word in words):
        bits = len(words) * _COMMON_BITS + _bits(_RUN_OF_LETTERS.sub("", text))
    else:
        bits = _bits(text)
    if bits < _LEAST_BITS:
        return Strength.SHORT
    return Strength.WORDY if bits < _SAFE_BITS or _is_of_words(text) else Strength.STRONG


def _is_of_words(text: str) -> bool:
    """Return True for words and short numbers joined by signs: `eu-west-1-prod`, `customerRecords`, `Summer 2024!`."""
    return all(_is_word(piece) for piece in _BETWEEN_WORDS.split(text))


def _is_word(piece: str) -> bool:
    letters = piece.rstrip(string.digits)
    return len(piece) - len(letters) <= _MAX_DIGITS and not _LETTERS.sub("", letters)


def _bits(text: str) -> float:
    if _DATE.fullmatch(text):
        text = re.sub(r"[^0-9]", "", text)
    alphabet = sum(size for signs, size in _ALPHABETS if signs.search(text))
    return len(text) * math.log2(alphabet) if alphabet else 0.0
