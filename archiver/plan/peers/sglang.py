"""SGLang: ``--mem-fraction-static`` is the share, of memory that is free before it loads, that weights and KV cache take together.

It lets the KV cache have what is free after loading, less (1 - share) of what was free before; free before is what the CUDA context and
NCCL left. ``--max-total-tokens`` then caps the tokens (python/sglang/srt/model_executor: ``profile_max_num_token`` and ``init_memory``).
So the cap is exact, and the share rounds up.
"""

from __future__ import annotations

from collections.abc import Iterator

from archiver.plan.peers.deployment import Deployment
from archiver.plan.peers.rendering import Options, Rendering, beyond_one, flags, round_up
from handlers.quant.formats import GGUF

MEANING = "of the memory that is free before loading: weights and KV cache; activations and CUDA graphs take the rest"


def render(deployment: Deployment) -> Rendering:
    """Return the command of SGLang's server."""
    free_bytes = deployment.device_bytes - deployment.context_bytes
    fraction = round_up((deployment.weight_bytes + deployment.kv_bytes) / free_bytes)
    guesses = deployment.speculative_tokens if deployment.device == "cuda" else 0
    options: Options = {
        "--model-path": deployment.model,
        "--host": deployment.host,
        "--port": deployment.port,
        "--served-model-name": deployment.served_name,
        "--device": "cpu" if deployment.device == "cpu" else None,
        "--dtype": deployment.dtype,
        "--context-length": deployment.max_model_len,
        "--max-running-requests": deployment.max_running,
        "--chunked-prefill-size": deployment.prefill_chunk_tokens,
        "--tp-size": beyond_one(deployment.tensor_parallel),
        "--pp-size": beyond_one(deployment.pipeline_parallel),
        "--dp-size": beyond_one(deployment.data_parallel),
        "--mem-fraction-static": fraction,
        "--max-total-tokens": deployment.kv_tokens,
        "--kv-cache-dtype": "fp8_e4m3" if deployment.kv_dtype == "fp8" else None,
        "--disable-radix-cache": not deployment.prefix_caching,
        "--speculative-algorithm": "NGRAM" if guesses else None,
        "--speculative-num-draft-tokens": guesses + 1 if guesses else None,  # with the token that they follow
    }
    threads = {"OMP_NUM_THREADS": str(deployment.num_threads)} if deployment.device == "cpu" and deployment.num_threads else {}
    command = ("python", "-m", "sglang.launch_server", *flags(options))
    return Rendering(command, MEANING, fraction, threads, notes=tuple(_notes(deployment)))


def _notes(deployment: Deployment) -> Iterator[str]:
    if deployment.device == "cpu":
        yield "on a CPU the fraction is of the machine's free memory, which a plan does not know; max-total-tokens decides if it is enough"
        if deployment.speculative_tokens:
            yield "it guesses by n-grams on CUDA only"
    if deployment.format == GGUF:
        yield "SGLang reads GGUF files of some architectures only: try it before you count on it"
