"""How a chat looks: to a pipe, to a machine, to a person at a terminal."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from typing import Protocol

from rich.console import Console
from rich.status import Status
from rich.table import Table
from rich.text import Text

from archiver.deploy.chat.answer import Answer
from archiver.printable import printable


class View(Protocol):
    """Shows what happens in a chat. Whatever it is given may hold control characters of the model's."""

    def wait(self) -> None:
        """An answer was asked for."""

    def piece(self, text: str) -> None:
        """A piece of it has come."""

    def end(self, answer: Answer) -> None:
        """It is complete, or was cancelled."""

    def fail(self, answer: Answer) -> None:
        """It broke off, or never came."""

    def note(self, text: str) -> None:
        """Something was done that leaves no other trace."""

    def rows(self, rows: Iterable[tuple[str, str]]) -> None:
        """A command asked for a list."""


class PipeView:
    """Answers as plain text, each with an end of line, and lists; nothing else."""

    def __init__(self, console: Console) -> None:
        self._console = console

    def wait(self) -> None:
        """Show nothing."""

    def piece(self, text: str) -> None:
        """Write the piece at once."""
        self._write(text, end="")

    def end(self, answer: Answer) -> None:
        """End the line."""
        self._write("")

    def fail(self, answer: Answer) -> None:
        """End the line, if there is one."""
        if answer.text:
            self._write("")

    def note(self, text: str) -> None:
        """Show nothing."""

    def rows(self, rows: Iterable[tuple[str, str]]) -> None:
        """Write one line a row."""
        for label, text in rows:
            self._write(f"{label}\t{text}")

    def _write(self, text: str, end: str = "\n") -> None:
        _write_unchanged(self._console, text + end)


class JsonView(PipeView):
    """One JSON object a line for each answer."""

    def __init__(self, console: Console, model: str) -> None:
        super().__init__(console)
        self._model = model

    def piece(self, text: str) -> None:
        """Wait for the whole answer."""

    def fail(self, answer: Answer) -> None:
        """Show nothing."""

    def end(self, answer: Answer) -> None:
        """Write the answer and its figures."""
        self._write(json.dumps({"model": self._model, **answer.to_dict()}))


class TerminalView:
    """The answer as it comes, after a spinner, and a dim line of figures below it."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._status: Status | None = None

    def wait(self) -> None:
        """Turn a spinner until the first piece is there."""
        self._status = self._console.status("")
        self._status.start()

    def piece(self, text: str) -> None:
        """Write the piece at once."""
        self._stop_waiting()
        _write_unchanged(self._console, text)

    def end(self, answer: Answer) -> None:
        """Write the figures below the answer."""
        self.fail(answer)
        self.note(" · ".join(_figures(answer)))
        self._console.line()

    def fail(self, answer: Answer) -> None:
        """End the line, if there is one."""
        self._stop_waiting()
        if answer.text:
            self._console.line()

    def note(self, text: str) -> None:
        """Write a dim line."""
        self._console.print(Text(printable(text), style="dim"))

    def rows(self, rows: Iterable[tuple[str, str]]) -> None:
        """Write two columns, the first in bold."""
        table = Table.grid(padding=(0, 2))
        table.add_column(style="bold", no_wrap=True)
        for label, text in rows:
            table.add_row(label, Text(printable(text)))
        self._console.print(table)

    def _stop_waiting(self) -> None:
        if self._status is not None:
            self._status.stop()
            self._status = None


def _write_unchanged(console: Console, text: str) -> None:
    console.file.write(printable(text))  # rich would turn tabs into spaces
    console.file.flush()


def _figures(answer: Answer) -> Iterator[str]:
    if answer.is_cancelled:
        yield "cancelled; what came of it is kept" if answer.text else "cancelled"
    if answer.num_tokens is not None:
        yield f"{answer.num_tokens:,} tokens"
    if answer.tokens_per_s is not None:
        yield f"{answer.tokens_per_s:,.0f} tokens/s"
    if answer.first_text_s is not None:
        yield f"first after {answer.first_text_s * 1000:,.0f} ms"
    if answer.finish_reason == "length":
        yield "cut at max_tokens (/set max_tokens N)"
