"""What a plan decides that other servers can be told too."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from handlers.quant.formats import PLAIN, Format


@dataclass(frozen=True)
class Deployment:
    """A model on ``tensor_parallel`` times ``pipeline_parallel`` devices, ``data_parallel`` times over.

    All bytes are of one device and expected values; ``device_bytes`` is what it has in all, and ``graph_bytes`` are of CUDA graphs.
    ``kv_bytes_per_token`` is what one more token takes of ``kv_bytes``. ``max_running`` and ``kv_bytes`` are of one replica.
    ``speculative_tokens`` are guessed by n-grams at every step; 0 is none. ``num_threads`` None leaves them to the server.
    Raises ValueError for one that does not fit its device: no flags make it.
    """

    model: str
    served_name: str
    dtype: str
    max_model_len: int
    max_running: int
    prefill_chunk_tokens: int
    block_tokens: int
    device_bytes: int
    weight_bytes: int
    kv_bytes: int
    activation_bytes: int
    context_bytes: int
    graph_bytes: int
    kv_bytes_per_token: float
    device: Literal["cuda", "cpu"] = "cuda"
    format: Format = PLAIN
    kv_dtype: Literal["auto", "fp8"] = "auto"
    tensor_parallel: int = 1
    pipeline_parallel: int = 1
    data_parallel: int = 1
    prefix_caching: bool = True
    speculative_tokens: int = 0
    has_latent_attention: bool = False
    num_threads: int | None = None
    host: str = "127.0.0.1"
    port: int = 8000

    def __post_init__(self) -> None:
        if (needed := self.working_bytes + self.context_bytes + self.kv_bytes) > self.device_bytes:
            raise ValueError(f"the deployment takes {needed:,} bytes of a device that has {self.device_bytes:,}")

    @property
    def working_bytes(self) -> int:
        """Weights, and what steps need beside the KV cache."""
        return self.weight_bytes + self.activation_bytes + self.graph_bytes

    @property
    def kv_tokens(self) -> int:
        """Tokens that the KV cache holds, in whole blocks."""
        return int(self.kv_bytes / self.kv_bytes_per_token) // self.block_tokens * self.block_tokens
