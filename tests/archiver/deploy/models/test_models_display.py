"""What is shown of a server's models: every name and message as it is, and none with power over the terminal."""

from __future__ import annotations

import io

import pytest
from rich.console import Console

from archiver.deploy.models.display import ConsoleProgress, show_models, show_versions
from archiver.deploy.models.listing import list_models
from tests.archiver.deploy.management.fake_torchserve import FakeVersion

HOSTILE = "[red]bot \x1b]0;owned\x07"
SHOWN = "[red]bot ]0;owned"


@pytest.fixture
def console() -> Console:
    return Console(file=io.StringIO(), force_terminal=True, width=200, color_system=None)


def shown(console: Console) -> str:
    assert isinstance(console.file, io.StringIO)
    return console.file.getvalue()


def test_progress_is_shown_as_it_is(console):
    with console.status("") as status:
        progress = ConsoleProgress(status)
        progress.doing(f"unpacking /[/x]/{HOSTILE}")
        console.print(status.renderable)
        progress.done(f"unpacked {HOSTILE}")
    assert f"unpacking /[/x]/{SHOWN}" in shown(console)
    assert f"unpacked {SHOWN}" in shown(console)
    assert "\x1b]" not in shown(console)


@pytest.mark.parametrize("show", [show_models, show_versions])
def test_names_are_shown_as_they_are(remote, fake, console, show):
    fake.add(HOSTILE, "1.0", FakeVersion(f"/[/x]/{HOSTILE}", loadable=0))
    show(list_models(remote), console)
    assert SHOWN in shown(console)
    assert "\x1b]" not in shown(console)
