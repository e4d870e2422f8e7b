"""What ``marquee models`` prints for a person: progress on standard error, tables on standard output."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

from rich.box import SIMPLE
from rich.console import Console
from rich.filesize import decimal
from rich.status import Status
from rich.table import Table
from rich.text import Text

from archiver.deploy.models.listing import ListedModel
from archiver.printable import printable


@dataclass(frozen=True)
class ConsoleProgress:
    """A line that changes, where there is a terminal, and below it nothing; steps that are over stay above it."""

    status: Status

    def doing(self, what: str) -> None:
        """Change the line."""
        self.status.update(_text(what))

    def done(self, what: str) -> None:
        """Leave a line."""
        self.status.console.print(_text(what), highlight=False, soft_wrap=True)


@contextmanager
def console_progress() -> Iterator[ConsoleProgress]:
    """Show progress while the block runs."""
    with Console(stderr=True).status("") as status:
        yield ConsoleProgress(status)


def show_models(models: Sequence[ListedModel], console: Console | None = None) -> None:
    """Print a line for each version."""
    table = Table("model", "version", "default", "kind", "ready", "queue", box=SIMPLE)
    for model in models:
        status = model.status
        table.add_row(
            _text(status.name),
            _text(status.version),
            "yes" if status.is_default else "",
            model.kind,
            _text(model.size, "" if status.is_ready else "red"),
            str(status.pending_requests),
        )
    (console or Console(highlight=False)).print(table if models else "no models")


def show_versions(models: Iterable[ListedModel], console: Console | None = None) -> None:
    """Print all that is known of a model's versions."""
    console = console or Console(highlight=False)
    for model in models:
        table = Table(box=None, show_header=False)
        for label, value in _facts(model):
            table.add_row(_text(label, "bold"), _text(value))
        console.print(table)


def _text(text: str, style: str = "") -> Text:
    """Return text as it is: names and messages come from servers and archives, and are no markup."""
    return Text(printable(text), style)


def _facts(model: ListedModel) -> Iterator[tuple[str, str]]:
    status = model.status
    yield "model", f"{status.name} {status.version}{' (default)' * status.is_default}"
    yield "archive", status.archive
    yield "kind", f"{model.kind}, {model.size} ready"
    yield "batches", f"of up to {status.batch_size}, gathered for {status.max_batch_delay_ms} ms at most"
    yield "queue", f"{status.pending_requests} requests wait, {status.queue_room} more may"
    for worker in status.workers:
        memory = f", {decimal(worker.memory_bytes)}" if worker.memory_bytes else ""
        state = "ready" if worker.is_ready else "not ready"
        yield f"worker {worker.id}", f"pid {worker.pid}, {state}, started {worker.started:%Y-%m-%d %H:%M:%S}{memory}"
    for replica in model.replicas or ():
        yield "replica", f"pid {replica.pid}, {replica.state}, {replica.sequences} sequences"
