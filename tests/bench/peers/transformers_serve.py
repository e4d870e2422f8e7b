"""transformers' own server, ``transformers serve``, with and without continuous batching; bf16."""

from __future__ import annotations

import json
import math
from dataclasses import dataclass
from pathlib import Path

from tests.bench.load import Completions
from tests.bench.peers.peer import Capacity, Launch, free_port, make_environment

VERSION = "5.23.0"
_BLOCK_TOKENS = 256  # its default
# It refuses `ignore_eos`, but takes a whole generation configuration; with this one no token is the end.
_NO_END = json.dumps({"eos_token_id": -1, "pad_token_id": 0, "do_sample": False})


@dataclass(frozen=True)
class TransformersServe:
    """``transformers serve``; every request is generated on its own, or they share one continuous batch."""

    home: Path
    continuous_batching: bool

    def install(self) -> None:
        """Install the package with what serving needs."""
        make_environment(self.home, [f"transformers[serving]=={VERSION}", "torch==2.13.0"])

    def launch(self, checkpoint: Path, capacity: Capacity, threads: int) -> Launch:
        """Return the command line; the model goes by its path.

        The number of blocks is given: without it the cache takes most of the machine's free memory, and nothing else may run.
        """
        port = str(free_port())
        command = [
            *(str(self.home / "venv" / "bin" / "transformers"), "serve", str(checkpoint)),
            *("--host", "127.0.0.1", "--port", port, "--dtype", "bfloat16", "--device", "cpu"),
        ]
        if self.continuous_batching:
            num_blocks = 2 * capacity.streams * math.ceil(capacity.context_tokens / _BLOCK_TOKENS)
            command += ["--continuous-batching", "--cb-num-blocks", str(num_blocks)]
        url = f"http://127.0.0.1:{port}"
        api = Completions(f"{url}/v1", str(checkpoint), fixed_length={"generation_config": _NO_END})
        return Launch(command, f"{url}/health", api, {"OMP_NUM_THREADS": str(threads), "HF_HUB_OFFLINE": "1"})
