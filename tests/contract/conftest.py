"""One TorchServe for the whole folder, with a model of each kind; what breaks a server starts its own."""

from __future__ import annotations

import functools
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from archiver.deploy.launch import TorchServe
from archiver.deploy.served_model import ServedModel
from archiver.package import ArchiveSpec, build_archive
from tests.checkpoints import make_checkpoint
from tests.contract.clients import ClientOf, ModelClient

AUTHORS_HANDLER = Path(__file__).with_name("authors_handler.py")
BATCHED_HANDLER = Path(__file__).with_name("batched_handler.py")
WINDOW = 8192


@pytest.fixture(scope="session", autouse=True)
def one_thread_a_process() -> Iterator[None]:
    """Six processes that each compute with all cores mostly wait for each other: with this they are up to twenty times faster."""
    import torch

    torch.set_num_threads(1)
    with pytest.MonkeyPatch.context() as environment:
        environment.setenv("OMP_NUM_THREADS", "1")
        yield


@pytest.fixture(scope="session")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A random float32 model. Its text is noise that changes completely with the slightest change of its input, as a test wants it."""
    return make_checkpoint(tmp_path_factory.mktemp("checkpoint"), max_position_embeddings=WINDOW)


@pytest.fixture(scope="session")
def build(checkpoint: Path, tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Path]:
    """Return a function that builds an archive around the checkpoint: ``build(name, **options of ArchiveSpec)``."""
    store = tmp_path_factory.mktemp("store")
    return lambda name, **options: build_archive(ArchiveSpec(checkpoint, name, out=store, **options))


@pytest.fixture(scope="session")
def server(build: Callable[..., Path], checkpoint: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[TorchServe]:
    """A server that every test leaves as it found it.

    ``wide`` runs 64 requests at once, ``narrow`` 2 with 2 more waiting; ``stock``, built by torch-model-archiver, runs 8 and lets the
    others wait; ``batched`` is the static path; ``authors`` a user's own handler; ``guessing`` has a draft model, which knows everything.
    All have the same weights.
    """
    queueing = build("queueing", format="dir", settings={"engine": {"max_running": 8, "max_waiting": 256}})
    archives = [
        build("wide", format="dir"),
        build("narrow", settings={"engine": {"max_running": 2, "max_waiting": 2}}),
        build_with_torch_model_archiver("stock", queueing, tmp_path_factory.mktemp("stock")),
        build("batched", handler=BATCHED_HANDLER),
        build("authors", handler=AUTHORS_HANDLER),
        build("guessing", draft_model=checkpoint, settings={"engine": {"speculation": {"method": "draft"}}}),
    ]
    with TorchServe.start([ServedModel.from_archive(archive) for archive in archives]) as server:
        workers = [server.worker_pids(model.name) for model in server.models]
        yield server
        assert workers == [server.worker_pids(model.name) for model in server.models], "a test has cost a worker its life"


@pytest.fixture(scope="session")
def client_of(server: TorchServe) -> ClientOf:
    """Return the client of a model of the shared server."""
    clients = {model.name: ModelClient(server, model.name) for model in server.models}
    return clients.__getitem__


@pytest.fixture(scope="session")
def wide(client_of: ClientOf) -> ModelClient:
    """The client of the default handler with the default sizes."""
    return client_of("wide")


@pytest.fixture(params=["wide", "batched", "guessing"])
def client(request: pytest.FixtureRequest, client_of: ClientOf) -> ModelClient:
    """The client of the continuous path, of the static one, and of one that guesses: whoever asks one request sees no difference."""
    return client_of(request.param)


@pytest.fixture(scope="session")
def tokenizer(checkpoint: Path) -> Any:
    """The checkpoint's own tokenizer."""
    from transformers import AutoTokenizer

    return AutoTokenizer.from_pretrained(checkpoint)


@pytest.fixture(scope="session")
def generate(checkpoint: Path, tokenizer: Any) -> Callable[[str, int], list[int]]:
    """Return the oracle, transformers' own greedy generation in this process: (prompt, number of tokens) to token ids."""
    from transformers import AutoModelForCausalLM

    model = AutoModelForCausalLM.from_pretrained(checkpoint)

    @functools.cache
    def run(prompt: str, num_tokens: int) -> list[int]:
        inputs = tokenizer(prompt, return_tensors="pt")
        output = model.generate(**inputs, max_new_tokens=num_tokens, do_sample=False, eos_token_id=None, pad_token_id=0)
        return list(output[0, inputs["input_ids"].shape[1] :].tolist())

    return run


def build_with_torch_model_archiver(name: str, archive: Path, scratch: Path) -> Path:
    """Pack the files of one of our archive directories with torch-model-archiver; what it is given is what a user would give it."""
    for package in ("handlers", "model"):
        # It puts what lies in a directory at the top of the archive, so these two travel in a directory.
        shutil.copytree(archive / package, scratch / "bundle" / package)
    command = [Path(sys.executable).with_name("torch-model-archiver"), "--model-name", name, "--version", "1.0"]
    command += ["--handler", archive / "handler.py", "--config-file", archive / "model-config.yaml"]
    command += ["--extra-files", scratch / "bundle", "--export-path", scratch]
    subprocess.run(command, check=True, capture_output=True, timeout=120)
    return scratch / f"{name}.mar"
