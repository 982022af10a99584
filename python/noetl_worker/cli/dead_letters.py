"""`noetl-worker dead-letters`: look at the messages that were kept as dead letters, and put them back to work."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from typing import TYPE_CHECKING, Annotated, Final

import typer

from noetl_worker.cli.nats import with_nats
from noetl_worker.cli.setting_flags import SettingFlags, with_setting_flags
from noetl_worker.settings.settings import Settings

if TYPE_CHECKING:  # at run time only where it is used: nats-py alone takes a tenth of a second
    from noetl_worker.jetstream.connection import Connection
    from noetl_worker.jetstream.dead_letter_store import DeadLetterStore, StoredDeadLetter

__all__ = ["EXIT_NOT_DONE", "app"]

EXIT_NOT_DONE: Final = 5

app = typer.Typer(
    help="Messages that could never run: list them, look at one, put them back to work.",
    no_args_is_help=True,
    context_settings={"help_option_names": ["-h", "--help"]},
)

ReasonOption = Annotated[
    str | None, typer.Option("--reason", help="Only dead letters with this text in the reason, or of this kind.")
]
_with_flags = with_setting_flags(shown=("nats_url",), short=False)
"""-n is how many are listed."""
JsonOption = Annotated[bool, typer.Option("--json", help="One JSON object a line.")]


@app.command("list")
@_with_flags
def list_(
    flags: SettingFlags,
    limit: Annotated[int, typer.Option("--limit", "-n", min=1, help="Not more than these.")] = 20,
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
            if (entry := ShownDeadLetter.of(kept)).has(reason):
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
    id_: Annotated[int, typer.Argument(metavar="ID", min=1, help="As listed.")],
    as_json: JsonOption = False,
) -> None:
    """Show one dead letter: why it was kept, the plane's last answer, the message.

    Secrets are hidden. Exit codes: 0; 2 a setting is wrong; 3 no NATS or
    JetStream; 5 there is no such dead letter.
    """

    async def work(store: DeadLetterStore, stream: str) -> int:
        from noetl_worker.cli.views.dead_letter import ShownDeadLetter, print_entry

        kept = await store.get(stream, id_)
        if kept is None:
            _complain(_no_dead_letter(id_, stream))
            return EXIT_NOT_DONE
        print_entry(ShownDeadLetter.of(kept), as_json=as_json)
        return 0

    _with_dead_letters(work, flags)


@app.command("requeue")
@_with_flags
def requeue_(
    flags: SettingFlags,
    ids: Annotated[list[int] | None, typer.Argument(metavar="[ID]...", min=1, help="As listed.")] = None,
    all_: Annotated[bool, typer.Option("--all", help="Every dead letter, the oldest first.")] = False,
    reason: ReasonOption = None,
) -> None:
    """Publish messages again, as and where they were; then drop their dead letters.

    A dead letter goes only after JetStream has acknowledged its message. Asking
    twice publishes once (within the duplicate window of the command stream, 2
    minutes by default). What comes of a message is decided as always: a command
    that is finished by now is dropped at its claim, poison becomes a new dead letter.

    Exit codes: 0; 2 a setting or an argument is wrong; 3 no NATS or JetStream;
    5 a dead letter is still there, or was not found.
    """
    if bool(ids) == all_:
        raise typer.BadParameter("name the dead letters (noetl-worker dead-letters list), or say --all")
    if reason is not None and not all_:
        raise typer.BadParameter("--reason goes with --all")

    async def work(store: DeadLetterStore, stream: str) -> int:
        from noetl_worker.cli.views.dead_letter import ShownDeadLetter

        done, left = 0, 0
        async for number, kept in _chosen(store, stream, ids or ()):
            if kept is None:
                _complain(_no_dead_letter(number, stream))
                left += 1
            elif not all_ or ShownDeadLetter.of(kept).has(reason):
                is_done = await _requeue_one(store, kept)
                done, left = done + is_done, left + (not is_done)
        typer.echo(f"{done} requeued, {left} not" if left else f"{done} requeued")
        return EXIT_NOT_DONE if left else 0

    _with_dead_letters(work, flags, without_stream=0 if all_ else EXIT_NOT_DONE)


async def _chosen(
    store: DeadLetterStore, stream: str, ids: Sequence[int]
) -> AsyncIterator[tuple[int, StoredDeadLetter | None]]:
    """The dead letters of these numbers, None for one that is not there; without numbers all, the oldest first."""
    for number in dict.fromkeys(ids):
        yield number, await store.get(stream, number)
    if not ids:
        async for kept in store.dead_letters(stream, newest_first=False):
            yield kept.sequence, kept


async def _requeue_one(store: DeadLetterStore, kept: StoredDeadLetter) -> bool:
    from noetl_worker.delivery.dead_letter import NotRequeued, requeue
    from noetl_worker.secrets.redaction import redact_text

    way = await requeue(store, kept)
    if isinstance(way, NotRequeued):
        _complain(f"{kept.sequence} not requeued: {redact_text(way.why)}")
        return False
    typer.echo(f"{kept.sequence} requeued: {way.subject}, sequence {way.sequence} of {way.stream}")
    return True


def _with_dead_letters(
    work: Callable[[DeadLetterStore, str], Awaitable[int]],
    flags: SettingFlags,
    *,
    without_stream: int = EXIT_NOT_DONE,
) -> None:
    """Run a command on the dead-letter stream; where there is none yet, say so and end with `without_stream`."""

    async def connected(connection: Connection, settings: Settings) -> int:
        from noetl_worker.jetstream import dead_letter_store

        store = dead_letter_store.DeadLetterStore(connection, settings.dead_letter_subject)
        stream = await store.stream()
        if stream is None:
            _complain(_no_stream(settings))
            return without_stream
        return await work(store, stream)

    with_nats(connected, flags, "noetl-worker dead-letters")


# ── what is in the way ──────────────────────────────────────────────────────────────────────────


def _complain(text: str) -> None:
    typer.echo(f"noetl-worker: {text}", err=True)


def _no_stream(settings: Settings) -> str:
    return (
        f"there is no dead-letter stream (no stream has the subject {settings.dead_letter_subject}): no dead letter "
        "was ever kept here, or NOETL_WORKER_DEAD_LETTER_SUBJECT is not the workers'"
    )


def _no_dead_letter(number: int, stream: str) -> str:
    return f"there is no dead letter {number} in {stream}: see noetl-worker dead-letters list"
