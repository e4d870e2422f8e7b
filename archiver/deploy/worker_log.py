"""Read a server's log as it grows: what a worker is doing, and the real cause when it fails to load.

TorchServe answers "Worker died." for any failed load and retries for five minutes; why is in the worker's output only, which the frontend
copies into its log, each line under the thread ``W-<number>-<model>_<version>-stdout``. Handlers of ours add two kinds of lines::

    MARQUEE LOADING: <what the worker does now>
    MARQUEE LOAD FAILED: <message, one line>

Other handlers leave a traceback; the exception at its end is the cause.
"""

from __future__ import annotations

import re
import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

LOADING = "MARQUEE LOADING: "
LOAD_FAILED = "MARQUEE LOAD FAILED: "

# As config/log4j2.xml lays a line out. A Java stack trace follows its line without this head.
_LINE = re.compile(r"^\S+ \[(?P<level>\w+) *\] (?P<thread>.+?) [\w.$]+ - (?P<message>.*)$")
_WORKER = re.compile(r"^W-\d+-(?P<model>.+)_[^_]+?(?P<output>-stdout|-stderr)?$")
# The frontend's verdict on a worker that did not load (BatchAggregator) or never came up (WorkerThread), TorchServe 0.12.
_VERDICT = re.compile(r"^(Load model failed: .*|Backend worker error$)")
_TIMED_OUT = "Backend worker did not respond in given time"
# The worker's output takes another way into the log than the frontend's verdict: how long to wait for it.
_GRACE_S = 2.0


@dataclass
class _WorkerStory:
    """What is known of one model's workers. ``failed_at`` is a monotonic time in seconds."""

    output: list[str] = field(default_factory=list)
    activity: str = ""
    failure: str | None = None
    failed_at: float | None = None


class ServerLog:
    """Follow ``torchserve.log``. Not thread-safe: one reader calls ``update``."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._offset = 0
        self._stories: dict[str, _WorkerStory] = {}
        self._speaker = _WorkerStory()  # whose frontend thread wrote the last line, for the stack trace below it
        self.last_error = ""
        """The last error of the frontend that concerns no worker."""

    def update(self) -> None:
        """Read the whole lines that were added since the last call."""
        for line in self._new_lines():
            if parts := _LINE.match(line):
                self._take(parts["level"], parts["thread"], parts["message"])
            elif _TIMED_OUT in line:
                self._speaker.failure = "it did not load in time; raise startupTimeout (seconds) in the archive's model-config.yaml"

    def activity(self, model: str) -> str:
        """Return what the model's worker said last that it is doing, or the empty string."""
        return self._story(model).activity

    def failure(self, model: str) -> str | None:
        """Return why the model failed to load, in one line, or None as long as it did not."""
        story = self._story(model)
        if story.failure or story.failed_at is None:
            return story.failure
        is_silent = time.monotonic() - story.failed_at > _GRACE_S
        silence = "its worker died without a message; was it killed, perhaps because memory ran out?" if is_silent else None
        return unhandled_exception(story.output) or silence

    def _new_lines(self) -> Iterator[str]:
        if not self._path.exists():
            return
        with self._path.open("rb") as file:
            file.seek(self._offset)
            text = file.read()
        whole = text[: text.rfind(b"\n") + 1]
        self._offset += len(whole)
        yield from whole.decode(errors="replace").splitlines()

    def _take(self, level: str, thread: str, message: str) -> None:
        worker = _WORKER.match(thread)
        if worker is None:
            self.last_error = message if level == "ERROR" else self.last_error
            return
        story = self._story(worker["model"])
        if worker["output"]:
            _take_output(story, message)
            return
        self._speaker = story
        if _VERDICT.match(message):
            story.failed_at = story.failed_at or time.monotonic()

    def _story(self, model: str) -> _WorkerStory:
        return self._stories.setdefault(model, _WorkerStory())


def unhandled_exception(lines: Iterable[str]) -> str | None:
    """Return the exception at the end of the last traceback in ``lines``, or None when there is no whole one.

    An ImportError inside a handler ends in another one: TorchServe then looks for a handler of its own by that name. Its failure to find
    one is skipped, so that the module that is really missing is named.
    """
    cause = None
    in_traceback = False
    for line in lines:
        if line.startswith("Traceback (most recent call last):"):
            in_traceback = True
        elif in_traceback and line.strip() and not line.startswith(" "):
            in_traceback = False
            cause = cause if "'ts.torch_handler." in line else line
    return cause


def _take_output(story: _WorkerStory, message: str) -> None:
    if message.startswith(LOAD_FAILED):
        story.failure = message.removeprefix(LOAD_FAILED)
    elif message.startswith(LOADING):
        story.activity = message.removeprefix(LOADING)
    else:
        story.output.append(message)
