"""A plan as other servers are told it: with the same bytes for keys and values."""

from __future__ import annotations

from archiver.plan.peers.deployment import Deployment
from archiver.plan.plan import Plan
from handlers.memory_ledger import Part

_NUM_SPECULATED = 4


def deployment_of(plan: Plan, model: str, num_threads: int | None = None) -> Deployment:
    """Return what a plan decides, for the renderers of ``archiver.plan.peers``; ``model`` is what the server is given to load.

    Raises ValueError for a plan whose parts are more than its device has, and for a model that keeps no keys and values.
    """
    option, request = plan.option, plan.request
    sizes, ledger, layout = option.replica.sizes, option.ledger, option.layout

    if not option.capacity.bytes_per_token:
        raise ValueError(f"{request.model.name} keeps no keys and values, which these flags are about")

    def part(*names: Part) -> int:
        return int(ledger.total(*names).expected)

    speculates = any(advice.topic == "speculative decoding" and advice.choice.startswith("on") for advice in plan.advice)
    return Deployment(
        model=model,
        served_name=request.model.name,
        dtype=request.model.dtype,
        max_model_len=sizes.max_model_len,
        max_running=sizes.max_running,
        prefill_chunk_tokens=sizes.prefill_chunk_tokens,
        block_tokens=sizes.block_tokens,
        device_bytes=request.hardware.memory_bytes,
        weight_bytes=part("weights"),
        kv_bytes=part("kv_cache"),
        activation_bytes=part("activations", "logits"),
        context_bytes=part("context"),
        graph_bytes=part("graphs"),
        kv_bytes_per_token=option.capacity.bytes_per_token,
        device=request.hardware.device,
        format=request.model.format,
        kv_dtype=request.kv_dtype,
        tensor_parallel=layout.tensor,
        pipeline_parallel=layout.pipeline,
        data_parallel=layout.data,
        speculative_tokens=_NUM_SPECULATED if speculates else 0,
        has_latent_attention=any(layer.kind == "latent" for layer in request.model.cache),
        num_threads=num_threads,
    )
