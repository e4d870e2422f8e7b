"""A model's rotary positions, and how they are stretched, in GGUF's words."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from archiver.errors import UsageError
from archiver.quantize.gguf.families import Metadata, head_size

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

_STRETCHES = ("default", "linear", "llama3", "yarn", "longrope")
_YARN_KEYS = {"beta_fast": "yarn_beta_fast", "beta_slow": "yarn_beta_slow"}


@dataclass(frozen=True)
class Rotary:
    """The keys, without the architecture before them, and by name the tensors of what each frequency is divided by (rotary size / 2)."""

    metadata: Metadata
    divisors: Mapping[str, NDArray[np.float32]] = field(default_factory=dict)


def describe_rotary(config: Any) -> Rotary:
    """Return what GGUF says for a transformers configuration; raise UsageError for a stretch that llama.cpp lacks."""
    parameters = config.rope_parameters
    local = parameters.get("sliding_attention")
    if local:
        parameters = parameters["full_attention"]
    size = int(head_size(config) * parameters.get("partial_rotary_factor", 1.0))
    base = float(parameters["rope_theta"])
    metadata: Metadata = {"rope.dimension_count": size, "rope.freq_base": base}
    if local:
        metadata["rope.freq_base_swa"] = float(local["rope_theta"])
    kind = parameters.get("rope_type", "default")
    if kind not in _STRETCHES:
        raise UsageError(f"llama.cpp cannot stretch positions by {kind!r} (it can: {', '.join(_STRETCHES)})")
    if kind == "linear":
        metadata |= {"rope.scaling.type": "linear", "rope.scaling.factor": float(parameters["factor"])}
    if kind == "yarn":
        metadata |= _describe_yarn(config, parameters)
    if kind == "llama3":
        return Rotary(metadata, {"rope_freqs.weight": _llama3_divisors(config, base, size)})
    if kind == "longrope":
        return _describe_longrope(config, parameters, metadata)
    return Rotary(metadata)


def _describe_yarn(config: Any, parameters: Mapping[str, Any]) -> Metadata:
    """llama.cpp derives the attention factor from the stretch, as transformers does where none is given."""
    for key in ("attention_factor", "mscale", "mscale_all_dim"):
        if parameters.get(key) is not None:
            raise UsageError(f"YaRN with {key} of its own is not converted")
    original = parameters.get("original_max_position_embeddings") or config.max_position_embeddings
    metadata: Metadata = {
        "rope.scaling.type": "yarn",
        "rope.scaling.factor": float(parameters["factor"]),
        "rope.scaling.original_context_length": int(original),
    }
    return metadata | {f"rope.scaling.{ours}": float(parameters[key]) for key, ours in _YARN_KEYS.items() if parameters.get(key)}


def _llama3_divisors(config: Any, base: float, size: int) -> NDArray[np.float32]:
    """The formula is transformers': plain frequencies by stretched ones."""
    import numpy as np

    stretched, _ = _init_function("llama3")(config, "cpu")
    plain = 1.0 / base ** (np.arange(0, size, 2, dtype=np.float32) / size)
    return np.asarray(plain / stretched.numpy(), dtype=np.float32)


def _describe_longrope(config: Any, parameters: Mapping[str, Any], metadata: Metadata) -> Rotary:
    """One set of divisors up to the original window, another beyond; the attention factor is transformers'."""
    import numpy as np

    _, attention_factor = _init_function("longrope")(config, "cpu")
    original = parameters.get("original_max_position_embeddings") or config.original_max_position_embeddings
    stretch: Metadata = {"rope.scaling.original_context_length": int(original), "rope.scaling.attn_factor": float(attention_factor)}
    divisors = {f"rope_factors_{kind}.weight": np.asarray(parameters[f"{kind}_factor"], dtype=np.float32) for kind in ("long", "short")}
    return Rotary(metadata | stretch, divisors)


def _init_function(kind: str) -> Any:
    from transformers.modeling_rope_utils import ROPE_INIT_FUNCTIONS

    return ROPE_INIT_FUNCTIONS[kind]
