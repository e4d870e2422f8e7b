"""The peers by name; as a command, install them.

python -m tests.bench.peers.catalogue vllm llamacpp transformers --cache /tmp/peers
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Annotated

import typer

from tests.bench.models import CACHE
from tests.bench.peers.llama_cpp import LlamaCpp
from tests.bench.peers.peer import Peer
from tests.bench.peers.transformers_serve import TransformersServe
from tests.bench.peers.vllm_cpu import VllmCpu

LLAMA_CPP: dict[str, Callable[[Path], LlamaCpp]] = {
    "llamacpp": lambda cache: LlamaCpp(cache / "llamacpp"),
    "llamacpp-q8": lambda cache: LlamaCpp(cache / "llamacpp", "q8_0"),
    "llamacpp-q4": lambda cache: LlamaCpp(cache / "llamacpp", "q4_0"),
}
PEERS: dict[str, Callable[[Path], Peer]] = {
    "vllm": lambda cache: VllmCpu(cache / "vllm"),
    **LLAMA_CPP,
    "transformers": lambda cache: TransformersServe(cache / "transformers", continuous_batching=False),
    "transformers-cb": lambda cache: TransformersServe(cache / "transformers", continuous_batching=True),
}


def main(names: list[str], cache: Annotated[Path, typer.Option(help="where peers are installed")] = CACHE) -> None:
    """Install peers; one that is there already is left alone."""
    for name in names:
        print(f"installing {name} into {cache}", flush=True)
        PEERS[name](cache).install()


if __name__ == "__main__":
    typer.run(main)
