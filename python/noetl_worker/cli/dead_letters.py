"""`noetl-worker dead-letters`: list and show dead letters, publish their messages again, delete them."""

from __future__ import annotations

from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from typing import TYPE_CHECKING, Annotated, Final

import typer

from noetl_worker.cli.nats import with_nats
from noetl_worker.cli.setting_flags import SettingFlags, with_setting_flags
from noetl_worker.cli.system import EXIT_SETTINGS, parse_duration
from noetl_worker.errors import DocumentError, JetStreamError
from noetl_worker.observability.terminal import say
from noetl_worker.settings.nats import DEAD_LETTER_SUBJECT
from noetl_worker.settings.settings import Settings

if TYPE_CHECKING:  # at run time only where it is used: nats-py alone takes a tenth of a second
    from noetl_worker.remote.jetstream.connection import Connection
    from noetl_worker.remote.jetstream.dead_letter_store import DeadLetterStore
    from noetl_worker.remote.jetstream.message_search import StoredMessage

EXIT_NOT_DONE: Final = 5

app = typer.Typer(
    help="Messages that could never run: list and show them, put them back to work, delete them.",
    no_args_is_help=True,
)


def _not_empty(reason: str | None) -> str | None:
    if reason is not None and not reason.strip():
        raise typer.BadParameter("it is empty: give a part of the reason or a kind of reason, or leave the option out")
    return reason


ReasonOption = Annotated[
    str | None,
    typer.Option(
        "--reason", callback=_not_empty, help="Only dead letters with this text in the reason, or of this kind."
    ),
]
_with_flags = with_setting_flags(shown=("nats_url",), short=False)
"""Decorator that adds the flags of the settings, except `-n` (in `run`: the worker's id). Here `-n` limits a list."""
JsonOption = Annotated[bool, typer.Option("--json", help="One JSON object a line.")]


@app.command("list")
@_with_flags
def list_(
    flags: SettingFlags,
    limit: Annotated[int, typer.Option("--limit", "-n", min=1, help="Most dead letters to list.")] = 20,
    reason: ReasonOption = None,
    as_json: JsonOption = False,
) -> None:
    """List dead letters, the newest first.

    Exit codes: 0, also when there are none; 2 a setting is wrong; 3 no NATS or
    JetStream.
    """

    async def work(store: DeadLetterStore, stream: str) -> int:
        from noetl_worker.cli.views.dead_letter import ShownDeadLetter, print_entries

        entries: list[ShownDeadLetter] = []
        async for kept in store.dead_letters(stream):
            if (entry := ShownDeadLetter.from_message(kept)).has(reason):
                entries.append(entry)
            if len(entries) == limit:
                break
        print_entries(entries, await store.count(stream), stream, as_json=as_json)
        return 0

    _with_dead_letters(work, flags, without_stream=0)


@app.command("show")
@_with_flags
def show(
    flags: SettingFlags,
    id_: Annotated[int, typer.Argument(metavar="ID", min=1, help="Id from `list`.")],
    as_json: JsonOption = False,
) -> None:
    """Show one dead letter: its reason, the plane's last answer, and the message.

    Secrets are hidden. Exit codes: 0; 2 a setting is wrong; 3 no NATS or
    JetStream; 5 there is no such dead letter.
    """

    async def work(store: DeadLetterStore, stream: str) -> int:
        from noetl_worker.cli.views.dead_letter import ShownDeadLetter, print_entry

        kept = await store.get(stream, id_)
        if kept is None:
            _say_error(_no_dead_letter(id_, stream))
            return EXIT_NOT_DONE
        print_entry(ShownDeadLetter.from_message(kept), as_json=as_json)
        return 0

    _with_dead_letters(work, flags)


@app.command("requeue")
@_with_flags
def requeue_(
    flags: SettingFlags,
    ids: Annotated[list[int] | None, typer.Argument(metavar="[ID]...", min=1, help="Ids from `list`.")] = None,
    all_: Annotated[bool, typer.Option("--all", help="Every dead letter, the oldest first.")] = False,
    reason: ReasonOption = None,
) -> None:
    """Publish the messages of dead letters again, unchanged and to the same subject,
    then delete the dead letters.

    A dead letter is deleted only after JetStream has acknowledged its message. If
    it is requeued twice within the duplicate window of the command stream (2 minutes
    by default), the message is published once. Workers handle the message as any
    other: they drop a command that has finished, and a message that can never run
    becomes a new dead letter.

    Exit codes: 0; 2 a setting or an argument is wrong; 3 no NATS or JetStream;
    5 a dead letter could not be requeued, or was not found.
    """
    if bool(ids) == all_:
        advice = "give the ids of dead letters (`noetl-worker dead-letters list` shows them) or --all, not both"
        raise typer.BadParameter(advice)
    if reason is not None and not all_:
        raise typer.BadParameter("--reason needs --all: give both, or the ids alone")

    async def work(store: DeadLetterStore, stream: str) -> int:
        return await _for_each(store, stream, ids or (), _requeue_one, "requeued", reason=reason)

    _with_dead_letters(work, flags, without_stream=0 if all_ else EXIT_NOT_DONE)


@app.command("delete")
@_with_flags
def delete(
    flags: SettingFlags,
    ids: Annotated[list[int] | None, typer.Argument(metavar="[ID]...", min=1, help="Ids from `list`.")] = None,
    all_: Annotated[bool, typer.Option("--all", help="Every dead letter.")] = False,
    reason: ReasonOption = None,
    older_than: Annotated[str | None, typer.Option(metavar="AGE", help="Only if older than AGE: 30m, 12h, 7d.")] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Show what would be deleted, and delete nothing.")] = False,
) -> None:
    """Delete dead letters for good: by id, by reason, by age, or all.

    With --reason and --older-than, a dead letter has to match both.

    Exit codes: 0; 2 a setting or an argument is wrong; 3 no NATS or JetStream;
    5 a dead letter could not be deleted, or was not found.
    """
    is_chosen = all_ or reason is not None or older_than is not None
    if bool(ids) == is_chosen:
        advice = "give the ids of dead letters, or choose them with --reason, --older-than or --all; not both"
        raise typer.BadParameter(advice)
    older_than_s = parse_duration("--older-than", older_than) if older_than is not None else None

    async def remove(store: DeadLetterStore, kept: StoredMessage) -> bool:
        from noetl_worker.cli.views.dead_letter import ShownDeadLetter

        if not dry_run:
            await store.remove(kept.sequence)
        shown = ShownDeadLetter.from_message(kept)
        say(f"{kept.sequence} {done}: {shown.reason}")
        return True

    async def work(store: DeadLetterStore, stream: str) -> int:
        return await _for_each(store, stream, ids or (), remove, done, reason=reason, older_than_s=older_than_s)

    done = "would be deleted" if dry_run else "deleted"
    _with_dead_letters(work, flags, without_stream=0 if is_chosen else EXIT_NOT_DONE)


async def _for_each(
    store: DeadLetterStore,
    stream: str,
    ids: Sequence[int],
    act: Callable[[DeadLetterStore, StoredMessage], Awaitable[bool]],
    done_word: str,
    *,
    reason: str | None = None,
    older_than_s: float | None = None,
) -> int:
    """Apply an action to dead letters, print the number of successes, and return the exit code.

    Args:
        ids: sequence numbers of the dead letters in the stream; empty: all dead letters with the reason and the age.
        act: applies the action to one dead letter. Returns False if the action failed.
        done_word: past participle of the action for the output, such as `deleted`.
        reason: only dead letters with this code (one of `REASONS`), or with this text in their reason; None: any
            reason. A value that is no code, and that no dead letter's reason contains, is an error.
        older_than_s: only dead letters older than this, in seconds; None: any age.
    """
    from noetl_worker.cli.views.dead_letter import REASONS, ShownDeadLetter

    done, left, has_reason, seen = 0, 0, False, Counter[str]()
    async for number, kept in _select(store, stream, ids):
        if kept is None:
            _say_error(_no_dead_letter(number, stream))
            left += 1
            continue
        shown = ShownDeadLetter.from_message(kept)
        seen[shown.kind] += 1
        if not ids and not shown.has(reason):
            continue
        has_reason = True
        if ids or older_than_s is None or shown.age_s > older_than_s:
            is_done = await act(store, kept)
            done, left = done + is_done, left + (not is_done)
    if reason is not None and not has_reason and reason not in REASONS:
        there = ", ".join(f"{kind} ({count})" for kind, count in sorted(seen.items())) or "none"
        _say_error(
            f"no dead letter has the reason {reason!r}. There are: {there}. "
            f"--reason takes a part of the text, or one of {', '.join(REASONS)}"
        )
        return EXIT_SETTINGS
    say(f"{done} {done_word}, {left} not" if left else f"{done} {done_word}")
    return EXIT_NOT_DONE if left else 0


async def _select(
    store: DeadLetterStore, stream: str, ids: Sequence[int]
) -> AsyncIterator[tuple[int, StoredMessage | None]]:
    """Yield the sequence number and message of each dead letter in `ids`. For a missing one, the message is None.

    For empty `ids`, yield all dead letters, the oldest first.
    """
    for number in dict.fromkeys(ids):
        yield number, await store.get(stream, number)
    if not ids:
        async for kept in store.dead_letters(stream, newest_first=False):
            yield kept.sequence, kept


async def _requeue_one(store: DeadLetterStore, kept: StoredMessage) -> bool:
    from noetl_worker.pipeline.delivery.dead_letter import requeue
    from noetl_worker.text.secrets.redaction import redact_text

    try:
        subject, stream, sequence = await requeue(store, kept)
    except (DocumentError, JetStreamError) as error:
        _say_error(f"{kept.sequence} not requeued: {redact_text(str(error))}")
        return False
    say(f"{kept.sequence} requeued: {subject}, sequence {sequence} of {stream}")
    return True


def _with_dead_letters(
    work: Callable[[DeadLetterStore, str], Awaitable[int]],
    flags: SettingFlags,
    *,
    without_stream: int = EXIT_NOT_DONE,
) -> None:
    """Run `work` on the dead-letter stream. If there is no such stream yet, say so and exit with the code
    `without_stream`."""

    async def connected(connection: Connection, settings: Settings) -> int:
        from noetl_worker.remote.jetstream import dead_letter_store

        store = dead_letter_store.DeadLetterStore(connection)
        stream = await store.stream()
        if stream is None:
            _say_error(
                f"there is no dead-letter stream (no stream has the subject {DEAD_LETTER_SUBJECT}): no message has "
                "become a dead letter yet, or NATS_URL names another NATS"
            )
            return without_stream
        return await work(store, stream)

    with_nats(connected, flags, "noetl-worker dead-letters")


def _say_error(text: str) -> None:
    say(f"noetl-worker: {text}", err=True)


def _no_dead_letter(number: int, stream: str) -> str:
    return f"there is no dead letter {number} in {stream}: see noetl-worker dead-letters list"
