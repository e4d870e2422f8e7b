"""The engine under clients that come and go, through TorchServe over HTTP."""

from __future__ import annotations

import random
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from archiver.deploy.command import torchserve_home
from archiver.deploy.java import find_java_home
from archiver.deploy.launch import TorchServe
from archiver.deploy.served_model import ServedModel
from archiver.errors import UsageError
from archiver.package import ArchiveSpec, build_archive
from tests.bench.checkpoint import PlainTokenizer
from tests.bench.gpu.rows import Cell
from tests.bench.gpu.served import Served
from tests.bench.gpu.setup import Setup
from tests.bench.load import Api, Completions, run_load
from tests.bench.models import make_checkpoint
from tests.bench.workload import Job, Lengths, Tokenizer, Workload

_TOKENIZER_SIZE = 8192
_WAKE_UP = Job("wake up", 2)
_ENGINE_KEYS = ("max_running", "max_waiting", "prefill_chunk_tokens", "memory_fraction", "prefix_caching", "native_kernels")


@dataclass(frozen=True)
class ServedByTorchServe(Served):
    """Streamed completions; their prompts are text, and tokenized."""

    api: Api
    tokenizer: Tokenizer

    who = "torchserve"

    def measure(self, cell: Cell) -> Mapping[str, float]:
        """See Part."""
        answers = Lengths(self.setup.answer_tokens, self.setup.answer_tokens)
        workload = Workload(Lengths(cell.context, cell.context), answers)
        jobs = workload.jobs(self.num_requests(cell), str(random.random()), self.tokenizer)
        run_load(self.api, [_WAKE_UP], streams=1)
        return self.figures(cell, run_load(self.api, jobs, cell.streams))


def has_torchserve() -> bool:
    """Return whether TorchServe could be started here: the package and a Java runtime."""
    try:
        find_java_home()
        torchserve_home()
    except UsageError:
        return False
    return True


@contextmanager
def torchserve_part(setup: Setup, scratch: Path) -> Iterator[ServedByTorchServe]:
    """Start TorchServe over a checkpoint of the setup's shape, which is made in ``scratch``; its embeddings are its LM head."""
    size = min(_TOKENIZER_SIZE, setup.shape.vocabulary)
    checkpoint = make_checkpoint(setup.shape, scratch / "checkpoint", tokenizer_size=size, device=setup.device.type)
    settings = {"engine": {key: getattr(setup.engine_config, key) for key in _ENGINE_KEYS}}
    archive = build_archive(ArchiveSpec(checkpoint, "llm", settings=settings, format="dir", out=scratch / "store", link=True))
    with TorchServe.start([ServedModel.from_archive(archive)]) as server:
        yield ServedByTorchServe(setup, Completions(server.openai_base_url(), "llm"), PlainTokenizer(checkpoint))
