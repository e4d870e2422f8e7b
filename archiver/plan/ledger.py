"""The memory ledger: what each part of a replica takes of each of its devices, with its formula and how sure that is."""

from __future__ import annotations

import math
from collections import Counter

from archiver.plan.hardware.profile import Hardware
from archiver.plan.model.facts import ModelFacts, Role
from archiver.plan.sizes import Replica, stage_share
from handlers.memory_ledger import Interval, LedgerLine, MemoryLedger, Part, sum_intervals

GIB = 1 << 30

_COPIED = frozenset({Role.NORM, Role.ROUTER, Role.LATENT, Role.POSITION, Role.VISION})
"""What every rank of tensor parallelism holds in full."""

_GRAPHS_BYTES = 0.2 * GIB
_GRAPH_BYTES = 0.0126 * GIB
"""A set of CUDA graphs and each of its graphs: 35 took 0.64 GiB and 19 took 0.44 GiB (8B parameters, tensor parallel 4; as reported)."""

_CPU_KV_BYTES = 4 * GIB
_CPU_KV_SHARE = 0.25
"""What the engine takes on a CPU when nobody says how much: the smaller of the two, the second of what is free."""
_CPU_TAKEN_SHARE = 0.5
"""What other programs may have taken of a machine's memory when the engine starts."""

_MOST_SCORES = 2 * GIB
_WORKSPACES = {"cuda": 64 << 20, "cpu": 32 << 20}


def predict_ledger(replica: Replica, hardware: Hardware) -> MemoryLedger:
    """Return the ledger of one device; the KV cache gets what the other parts leave of its share, but no more than it can use."""
    fixed = (_weights(replica, hardware), _activations(replica, hardware), _logits(replica), _context(hardware), _graphs(replica, hardware))
    kv_cache = _kv_cache(replica, hardware, sum_intervals(line.bytes for line in fixed))
    reserve = _reserve(replica, hardware, kv_cache.bytes)
    return MemoryLedger(hardware.device, hardware.name, hardware.memory_bytes, (*fixed, kv_cache, reserve))


def kv_budget(replica: Replica, hardware: Hardware, fixed: Interval) -> Interval:
    """Return the bytes that are left for keys and values beside the ``fixed`` parts, even if sequences could not use them all."""
    sizes, most = replica.sizes, replica.sizes.kv_memory_bytes
    if hardware.device == "cpu" and most is not None:
        return Interval.exact(most)
    if hardware.device == "cpu":
        others = _CPU_TAKEN_SHARE * hardware.memory_bytes
        free = (hardware.memory_bytes - others - fixed.high, hardware.memory_bytes - fixed.expected, hardware.memory_bytes - fixed.low)
        return Interval(*(min(_CPU_KV_BYTES, _CPU_KV_SHARE * max(end, 0)) for end in free))
    share, kept = sizes.memory_fraction * hardware.memory_bytes, _pool_share(replica)
    left = (max(share - end, 0) * kept for end in (fixed.high, fixed.expected, fixed.low))
    return Interval(*(end if most is None else min(end, most) for end in left))


def _weights(replica: Replica, hardware: Hardware) -> LedgerLine:
    model, layout = replica.model, replica.layout
    ends = (model.role_bytes(Role.EMBEDDING), model.role_bytes(Role.HEAD))
    copied = model.role_bytes(*_COPIED)
    if replica.engine.copies_embedding and layout.tensor > 1:
        copied, ends = copied + ends[0], (0, ends[1])
    heads = min(layout.tensor, max(model.num_kv_heads, 1))
    key_values = model.role_bytes(Role.KEY_VALUE)
    divided = model.weight_bytes - sum(ends) - copied - key_values
    layers = (divided / layout.tensor + key_values / heads + copied) * stage_share(model, layout)
    # Of several stages the first has the embedding and the last the head.
    largest = layers + (sum(ends) if layout.pipeline == 1 else max(ends)) / layout.tensor
    total = f"{_size(model.weight_bytes)}: {model.num_elements:,} parameters as {model.format.name} {model.dtype}"
    if layout.gpus_per_replica > 1:
        total += (
            f"; {_size(divided + sum(ends))} / {layout.tensor}, {_size(key_values)} of KV heads / {heads}, {_size(copied)} on each"
            f"{f', {stage_share(model, layout):.0%} of the layers' if layout.pipeline > 1 else ''}"
        )
    source = "headers" if model.is_exact else "computed from the configuration"
    below, above = _weight_shares(model)
    if hardware.device == "cpu":
        above += 0.07  # our kernels' packed forms add tables
    return _line("weights", f"{total} ({source})", Interval.within(largest, below, above))


def _weight_shares(model: ModelFacts) -> tuple[float, float]:
    """Return how far off, below and above, the weights may be: allocators round up, and a family that nobody knows adds what it likes."""
    if model.is_exact:
        return 0.01, 0.03
    return (0.03, 0.08) if model.is_known else (0.15, 0.3)


def _activations(replica: Replica, hardware: Hardware) -> LedgerLine:
    """Tensors of one layer that live at once, for every token of the largest step; the rest is reused from layer to layer.

    An engine that gathers contexts also holds a copy of the longest one, and its mask for a chunk of prompt.
    """
    model, sizes, tensor = replica.model, replica.sizes, replica.layout.tensor
    attention_width = 2 * (model.num_heads + max(model.num_kv_heads, 1)) * model.head_dim / tensor
    mlp_width = 3 * model.intermediate_size * max(model.num_active_experts, 1) / tensor
    width = 4 * model.hidden_size + max(attention_width, mlp_width)
    expected = sizes.step_tokens * width * model.dtype_bytes
    formula = f"{sizes.step_tokens:,} tokens × {width:,.0f} numbers of one layer × {model.dtype_bytes} bytes"
    # On a CPU the step that is measured at load begins a prompt.
    context = sizes.max_model_len if hardware.device == "cuda" else min(sizes.prefill_chunk_tokens, sizes.max_model_len)
    scores = sizes.prefill_chunk_tokens * context * model.num_heads / tensor
    if replica.engine.gathers_context and model.num_kv_heads:
        copy = max(replica.engine.layer_bytes(layer, context, replica.kv_bytes, tensor) for layer in model.cache)
        expected += copy + scores / model.num_kv_heads * model.dtype_bytes
        formula += f"; keys and values of {context:,} tokens, copied, and their mask"
    # Above: the scores themselves, in float32, where no fused attention kernel runs, and workspaces of matrix libraries.
    above = min(4 * scores, _MOST_SCORES) + _WORKSPACES[hardware.device]
    return _line("activations", formula, Interval(0.2 * expected, expected, 2 * expected + above))


def _logits(replica: Replica) -> LedgerLine:
    """Float32 logits of all that sample, and the sampler's copies of them: one in place, up to nine where a whole vocabulary is sorted."""
    rows, vocab = replica.sizes.max_running, replica.model.vocab_size
    one = rows * vocab * 4
    return _line("logits", f"{_count(rows)} × {vocab:,} tokens × 4 bytes, twice", Interval(one, 2 * one, 10 * one))


def _context(hardware: Hardware) -> LedgerLine:
    what = "driver and libraries of one process" if hardware.device == "cuda" else "Python, torch and transformers in one process"
    return _line("context", what, hardware.context)


def _graphs(replica: Replica, hardware: Hardware) -> LedgerLine:
    graphs = replica.engine.num_graphs if hardware.device == "cuda" else 0
    if not graphs:
        return _line("graphs", "this engine captures none", Interval.exact(0))
    return _line("graphs", f"{graphs} CUDA graphs", Interval.within(_GRAPHS_BYTES + graphs * _GRAPH_BYTES, 0.6, 0.6))


def _kv_cache(replica: Replica, hardware: Hardware, fixed: Interval) -> LedgerLine:
    sizes = replica.sizes
    budget = kv_budget(replica, hardware, fixed)
    token = replica.token_bytes
    useful = sizes.max_running * replica.sequence_bytes(sizes.max_model_len)
    formula = f"{_per_token(replica)}; at most {_count(sizes.max_running)} × {sizes.max_model_len:,} tokens"
    block = token * sizes.block_tokens
    ends = [min(end, useful) // block * block if block else min(end, useful) for end in (budget.low, budget.expected, budget.high)]
    pool = Interval(max(ends[0] - block, 0), ends[1], ends[2])  # whole blocks: rounding may cost one
    if token:
        formula += f"; {pool.expected / token:,.0f} tokens"
    return _line("kv_cache", formula, pool)


def _reserve(replica: Replica, hardware: Hardware, kv_cache: Interval) -> LedgerLine:
    if hardware.device == "cpu":
        return _line("reserve", "none: the system lends memory as it is used", Interval.exact(0))
    share = (1 - replica.sizes.memory_fraction) * hardware.memory_bytes
    formula = f"{1 - replica.sizes.memory_fraction:.0%} of the memory against fragmentation, and for others"
    if (kept := _pool_share(replica)) == 1:
        return _line("reserve", formula, Interval.exact(share))
    gathered = kv_cache * (1 / kept - 1)
    return _line("reserve", f"{formula}; one layer's share of the KV cache, gathered in each step", Interval.exact(share) + gathered)


def _pool_share(replica: Replica) -> float:
    """Return which share of what is left becomes the KV cache: an engine that gathers contexts copies those of one layer."""
    layers = sum(layer.kind != "state" for layer in replica.model.cache)
    return layers / (layers + 1) if replica.engine.gathers_context and layers else 1.0


def _per_token(replica: Replica) -> str:
    """Return the guide's formula with this model's numbers, as far as its layers are alike."""
    model, tensor = replica.model, replica.layout.tensor
    layers = [layer for layer in model.cache if layer.kind != "state"]
    total = sum(replica.engine.layer_bytes(layer, 1, replica.kv_bytes, tensor) for layer in layers)
    if not layers:
        return "no layer keeps keys and values; a constant state a sequence"
    if len(set(layers)) == 1 and layers[0].kind != "latent":
        layer = layers[0]
        heads = f"{layer.heads(tensor)} KV heads"
        return f"{len(layers)} layers × {heads} × {layer.head_elements} numbers × {replica.kv_bytes:g} bytes = {total:,.0f} a token"
    kinds = ", ".join(f"{count} {kind}" for kind, count in Counter(layer.kind for layer in layers).items())
    return f"{kinds} layers = {total:,.0f} bytes a token"


def _line(part: Part, formula: str, estimate: Interval) -> LedgerLine:
    return LedgerLine(part, formula, Interval(*(float(math.ceil(end)) for end in (estimate.low, estimate.expected, estimate.high))))


def _count(num_sequences: int) -> str:
    return f"{num_sequences:,} sequence{'s' * (num_sequences != 1)}"


def _size(num_bytes: float) -> str:
    return f"{num_bytes / 1e9:.4g} GB" if num_bytes >= 1e8 else f"{num_bytes / 1e6:.3g} MB"
