"""Advice beside the numbers, each piece with its reason for this model, machine and load: the guide's decision rules made concrete."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

from archiver.plan.engines import VLLM
from archiver.plan.hardware.profile import has_fp8
from archiver.plan.model.storage import requantize
from archiver.plan.option import Option, evaluate
from archiver.plan.request import PlanRequest
from archiver.plan.verdict import gib
from handlers.quant.formats import AWQ, CT_FP8, FP4, NF4, PLAIN, Format

_SPECULATED = 4
"""Tokens that a draft proposes at a time."""
_NEARLY_FREE = 1.35
"""Verifying a draft pays while a step over all its tokens takes no longer than so many steps over one."""


@dataclass(frozen=True)
class Advice:
    """What to choose in one respect, and why."""

    topic: str
    choice: str
    reason: str


def advise(option: Option) -> tuple[Advice, ...]:
    """Return the advice on an option, in the order in which one decides."""
    return (
        _host(option),
        *_engine(option),
        *_weights(option),
        _keys_and_values(option),
        _speculation(option),
        _prefixes(option),
        *_length(option),
    )


def _host(option: Option) -> Advice:
    """The guide: LLM throughput → vLLM, several models and frameworks → Triton, own preprocessing → TorchServe, CPU or edge → GGUF."""
    request = option.request
    if request.has_other_models:
        return Advice("host", "Triton", "models of several kinds and frameworks share the server: one repository, one scheduler")
    if request.hardware.device == "cpu":
        alone = request.workload.concurrency == 1
        engine = "TorchServe, engine llamacpp" if alone else "TorchServe, engine continuous"
        why = "one sequence at a time is llama.cpp's strength" if alone else "sequences that share each reading of the weights"
        return Advice("host", f"{engine}, GGUF or packed weights", f"a CPU is limited by its memory's speed: few bits a weight, and {why}")
    if request.has_own_code:
        return Advice("host", "TorchServe, Marquee's handlers", "requests need code of their own: hooks around the model, in one class")
    divided = f"; {option.layout} needs an engine with pipeline stages" if option.layout.pipeline > 1 else ""
    return Advice(
        "host",
        "vLLM",
        "the highest throughput: CUDA graphs and attention over pages, which Marquee's engine does not have on GPUs yet" + divided,
    )


def _engine(option: Option) -> Iterator[Advice]:
    if option.replica.engine.name != VLLM.name and any(layer.kind == "state" for layer in option.request.model.cache):
        yield Advice("engine", "generate", "layers that keep a state run on transformers' generate: no prefix cache, and no KV budget")


def _weights(option: Option) -> Iterator[Advice]:
    """The guide: AWQ for GPUs, FP8 on H100-class ones, GGUF on CPUs, NF4 for training only."""
    request, model = option.request, option.request.model
    if model.format in (NF4, FP4) and request.hardware.device == "cuda":
        slow = f"{model.format.name} is slower than plain weights on GPUs: quantize the original with awq-int4"
        yield Advice("weights", "another format", slow)
        return
    if model.format is not PLAIN:
        yield Advice("weights", f"{model.format.name}, as they are", "quantized already; again would only lose quality")
        return
    if request.hardware.device == "cpu" and "bfloat16" not in request.hardware.flops:
        reason = "this CPU does not multiply bfloat16: Marquee's engine would unpack packed weights, and llama.cpp's does not"
        yield Advice("weights", "GGUF, engine llamacpp (marquee quantize --recipe gguf:Q4_K_M)", reason)
        return
    tried = [(_requantized(option, row), label, recipe) for row, label, recipe in _preferred(request)]
    smaller, label, recipe = next((each for each in tried if each[0].capacity.sequences.p50), tried[-1])
    faster = smaller.tokens_per_s.expected / option.tokens_per_s.expected
    alone = option.speed.decode_step(1, request.workload.mean_context_tokens).expected
    alone /= smaller.speed.decode_step(1, request.workload.mean_context_tokens).expected
    size = f"{gib(smaller.request.model.weight_bytes)} instead of {gib(model.weight_bytes)}"
    room = f"{smaller.capacity.sequences.p50:,} median sequences fit at once instead of {option.capacity.sequences.p50:,}"
    together = f", {faster:.1f}x with all places taken" if option.capacity.sequences.p50 else ""
    speed = f"{alone:.1f}x as fast alone{together}, by the bounds"
    yield Advice("weights", f"{label} (marquee quantize --recipe {recipe})", f"{size}; {room}; {speed}; measure the quality first")


def _requantized(option: Option, row: Format) -> Option:
    request = replace(option.request, model=requantize(option.request.model, row))
    return evaluate(request, option.replica.engine, option.layout)


def _preferred(request: PlanRequest) -> list[tuple[Format, str, str]]:
    """Return formats with their names and recipes, the best first."""
    awq = (AWQ, "AWQ, 4 bits", "awq-int4")
    if request.hardware.device == "cpu":
        return [(AWQ, "4 bits", "gguf:Q4_K_M")]
    return [(CT_FP8, "FP8", "fp8-dynamic"), awq] if has_fp8(request.hardware) else [awq]


def _keys_and_values(option: Option) -> Advice:
    request, is_short = option.request, option.wanted_sequences > option.capacity.sequences.p95
    if request.kv_dtype == "fp8":
        return Advice("KV cache", "FP8", "as asked for: half the bytes a token, at a small loss that should be measured")
    if is_short and option.capacity.sequences.p50 and has_fp8(request.hardware):
        return Advice("KV cache", "FP8, on vLLM (--kv-dtype fp8)", "memory limits how many sequences run at once, and this doubles them")
    if not option.capacity.sequences.p50:
        return Advice("KV cache", request.model.dtype, "the weights are what does not fit")
    return Advice("KV cache", request.model.dtype, "memory does not limit the load: nothing is gained by fewer bits")


def _speculation(option: Option) -> Advice:
    """Decoding is bound by reading weights, so verifying several tokens costs little more than one: at small batches (Leviathan 2023)."""
    context, batch = option.request.workload.mean_context_tokens, option.max_running
    ratio = option.speed.verify_step(batch, context, _SPECULATED).expected / option.speed.decode_step(batch, context).expected
    cost = f"verifying {_SPECULATED} drafted tokens makes a step of {batch} sequences {ratio:.1f} times as long"
    if option.request.workload.itl_ms is not None and ratio <= _NEARLY_FREE:
        return Advice("speculative decoding", "on, where the engine has it", f"latency counts, and {cost}")
    if ratio <= _NEARLY_FREE:
        return Advice("speculative decoding", "worth a try", f"{cost}; it pays where drafts are right more often than not")
    return Advice("speculative decoding", "off", f"{cost}: the device is busy enough without guesses")


def _prefixes(option: Option) -> Advice:
    if option.replica.engine.name != VLLM.name and any(layer.kind == "state" for layer in option.request.model.cache):
        return Advice("prefix caching", "none", "transformers' generate has none")
    shared, prompt = option.request.workload.shared_prefix_tokens, option.request.workload.prompt_tokens.p50
    if not shared:
        return Advice("prefix caching", "on", "it costs next to nothing, and any system prompt or chat that is continued gains by it")
    whole, rest = (1000 * option.speed.prefill(tokens).expected for tokens in (prompt, max(prompt - shared, 1)))
    return Advice("prefix caching", "on", f"{shared:,} shared tokens: a median prompt takes {rest:,.3g} ms instead of {whole:,.3g}")


def _length(option: Option) -> Iterator[Advice]:
    """The guide: set max_model_len to what is really used, not to what the model could do."""
    longest, limit = option.request.workload.sequence_tokens.p95, option.replica.sizes.max_model_len
    if option.request.has_stated_load and limit >= 4 * longest:
        wanted = -(-5 * longest // (4 * 256)) * 256
        places = f"one of the model's {limit:,} could take the place of {limit // longest}"
        yield Advice("max_model_len", f"{wanted:,}", f"sequences of the 95th percentile have {longest:,} tokens, and {places}")
