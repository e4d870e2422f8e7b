"""Read a server's log as it grows: what a worker is doing, and the real cause when it fails to load.

TorchServe answers "Worker died." for any failed load and retries for five minutes; why is in the worker's output only, which the frontend
copies into its log, each line under the thread ``W-<number>-<model>_<version>-stdout``. The cause is the exception at the end of the
worker's traceback. What it is doing meanwhile, a handler of ours says in lines of the form ``MARQUEE LOADING: <a few words>``.
"""

from __future__ import annotations

import re
import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

LOADING = "MARQUEE LOADING: "

# As config/log4j2.xml lays a line out. A Java stack trace follows its line without this head.
_LINE = re.compile(r"^\S+ \[(?P<level>\w+) *\] (?P<thread>.+?) [\w.$]+ - (?P<message>.*)$")
_WORKER = re.compile(r"^W-\d+-(?P<version>.+?)(?P<output>-stdout|-stderr)?$")
# How TorchServe 0.12 puts the end of a worker: the worker itself, the frontend when its connection broke, the frontend when none came.
_VERDICT = re.compile(r"^(Backend worker process died\.|Load model failed: .*|Backend worker error)$")
_TIMED_OUT = "Backend worker did not respond in given time"
# Exceptions that stand in front of the real one: after an ImportError in a handler TorchServe looks for one of its own by that name, and a
# RuntimeError or MemoryError it reports by a code.
_STAND_INS = re.compile(r"No module named 'ts\.torch_handler\.|^RuntimeError: (500|507) - ")
# The worker's output reaches the log line by line and apart from the verdict: when it has settled, and when there will be none.
_SETTLED_S, _SILENT_S = 0.3, 2.0


@dataclass
class _WorkerStory:
    """What is known of one version's workers. Monotonic times in seconds: the first death, and when the last line about them was read."""

    output: list[str] = field(default_factory=list)
    activity: str = ""
    has_timed_out: bool = False
    died_at: float | None = None
    heard_at: float = 0.0


class ServerLog:
    """Follow ``torchserve.log``. Not thread-safe: one reader calls ``update``."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._offset = 0
        self._stories: dict[str, _WorkerStory] = {}  # by <model>_<version>
        self._speaker = _WorkerStory()  # whose frontend thread wrote the last line, for the stack trace below it
        self.last_error = ""
        """The last error of the frontend that concerns no worker."""

    @classmethod
    def from_now_on(cls, path: Path) -> ServerLog:
        """Follow a log that exists already, without what is in it."""
        log = cls(path)
        log._offset = path.stat().st_size if path.exists() else 0
        return log

    def update(self) -> None:
        """Read the whole lines that were added since the last call."""
        for line in self._new_lines():
            if parts := _LINE.match(line):
                self._take(parts["level"], parts["thread"], parts["message"])
            elif _TIMED_OUT in line:
                self._speaker.has_timed_out = True

    def activity(self, model: str, version: str | None = None) -> str:
        """Return what the model's worker said last that it is doing, or the empty string. ``version``: of which, if there are several."""
        return self._story(model, version).activity

    def failure(self, model: str, version: str | None = None) -> str | None:
        """Return why the model failed to load, in one line, or None as long as it did not. ``version``: which, if there are several."""
        story = self._story(model, version)
        if story.has_timed_out:
            return "it did not load in time; raise startupTimeout (seconds) in the archive's model-config.yaml"
        now = time.monotonic()
        if story.died_at is None or now - story.heard_at < _SETTLED_S:
            return None
        lost = "its worker died without a message; was it killed, perhaps because memory ran out?"
        return unhandled_exception(story.output) or (lost if now - story.died_at > _SILENT_S else None)

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
        story = self._stories.setdefault(worker["version"], _WorkerStory())
        story.heard_at = time.monotonic()
        if _VERDICT.match(message) and story.died_at is None:
            story.died_at = story.heard_at
        if not worker["output"]:
            self._speaker = story
        elif message.startswith(LOADING):
            story.activity = message.removeprefix(LOADING)
        else:
            story.output.append(message)

    def _story(self, model: str, version: str | None) -> _WorkerStory:
        if version is not None:
            return self._stories.get(f"{model}_{version}", _WorkerStory())
        of_model = (story for name, story in self._stories.items() if name.rpartition("_")[0] == model)
        return next(of_model, _WorkerStory())


def unhandled_exception(lines: Iterable[str]) -> str | None:
    """Return the exception at the end of the last traceback in ``lines``, or None when there is no whole one.

    Of an error of ours that is the message alone: it is written for the person who reads it.
    """
    cause = None
    in_traceback = False
    for line in lines:
        if line.startswith("Traceback (most recent call last):"):
            in_traceback = True
        elif in_traceback and line.strip() and not line.startswith(" "):
            in_traceback = False
            cause = cause if _STAND_INS.search(line) else line
    return re.sub(r"^handlers\.errors\.\w+: ", "", cause) if cause else None
