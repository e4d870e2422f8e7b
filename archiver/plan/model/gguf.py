"""Facts of a model in a GGUF file: sizes from its metadata, weights and kinds of layers from its table of tensors.

Keys: https://github.com/ggml-org/ggml/blob/master/docs/gguf.md; what each architecture's layers attend to, and the states that recurrent
ones keep in float32, as llama.cpp (https://github.com/ggml-org/llama.cpp) has them.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from typing import Literal

from archiver.errors import UsageError
from archiver.plan.model.exact import split_fused
from archiver.plan.model.facts import CacheLayer, ModelFacts, WeightGroup, merge_groups
from archiver.plan.model.storage import active_elements
from archiver.plan.model.tensor_names import is_loaded
from handlers.errors import ConfigError
from handlers.gguf_file import GgufFile
from handlers.quant.formats import GGUF

_FULL_PERIODS: Mapping[str, int] = {
    "gemma2": 2, "gemma3": 6, "gemma3n": 5, "cohere2": 4, "gpt-oss": 2, "exaone4": 4, "olmo2": 4, "llama4": 4,
}  # fmt: skip
"""Every so many-th layer sees all, in architectures whose files do not say which. All layers of any other see all."""
_CHUNKS: Mapping[str, int] = {"llama4": 8192}
_STATE_BYTES = 4


def gguf_facts(file: GgufFile, name: str) -> ModelFacts:
    """Return the facts; raises UsageError for a file that lacks what is needed."""
    try:
        return _facts(file, name)
    except ConfigError as error:
        raise UsageError(f"{error}; convert it again") from None


def _facts(file: GgufFile, name: str) -> ModelFacts:
    sizes = _Sizes(file)
    num_layers = sizes.number("block_count")
    num_heads, num_kv_heads = sizes.most("attention.head_count"), sizes.most("attention.head_count_kv")
    vocab_size, hidden_size = len(file.metadata["tokenizer.ggml.tokens"]), sizes.number("embedding_length")
    num_experts, num_active_experts = sizes.number("expert_count", 0), sizes.number("expert_used_count", 0)
    groups = merge_groups(_groups(file, num_layers, num_heads, num_kv_heads))
    return ModelFacts(
        name=name,
        architecture=file.architecture,
        model_type=file.architecture,
        num_layers=num_layers,
        hidden_size=hidden_size,
        intermediate_size=sizes.number("expert_feed_forward_length", 0) or sizes.most("feed_forward_length"),
        num_heads=num_heads,
        num_kv_heads=num_kv_heads,
        head_dim=sizes.head_dim("key") if num_heads else 0,
        vocab_size=vocab_size,
        max_model_len=sizes.number("context_length", 0) or None,
        dtype="float16",
        dtype_bytes=2,
        format=GGUF,
        group_size=None,
        num_experts=num_experts,
        num_active_experts=num_active_experts,
        weights=groups,
        cache=tuple(layer for index in range(num_layers) for layer in _kept(file, sizes, index)),
        num_active_elements=active_elements(groups, vocab_size * hidden_size, num_experts, num_active_experts),
        is_exact=True,
    )


def _groups(file: GgufFile, num_layers: int, num_heads: int, num_kv_heads: int) -> Iterator[WeightGroup]:
    for name, tensor in file.tensors.items():
        if is_loaded(name, num_layers):
            yield from split_fused(name, math.prod(tensor.shape), tensor.num_bytes, num_heads, num_kv_heads)


def _kept(file: GgufFile, sizes: _Sizes, layer: int) -> Iterator[CacheLayer]:
    """Which parts a layer has, its tensors say."""
    has = {name.split(".")[2] for name in file.tensors if name.startswith(f"blk.{layer}.")}
    if "ssm_conv1d" in has:
        yield from _state_space(sizes)
    if "shortconv" in has:
        elements = sizes.number("embedding_length") * (sizes.number("shortconv.l_cache") - 1)
        yield CacheLayer("state", sizes.number("embedding_length"), state_elements=elements, state_bytes=_STATE_BYTES)
    if "attn_kv_a_mqa" in has:
        yield _latent(sizes)
    elif {"attn_k", "attn_qkv"} & has:
        elements = sizes.head_dim("key") + sizes.head_dim("value")
        window = sizes.window(layer)
        kind: Literal["sliding", "full"] = "sliding" if window else "full"
        yield CacheLayer(kind, sizes.at("attention.head_count_kv", layer), elements, window)


def _state_space(sizes: _Sizes) -> Iterator[CacheLayer]:
    inner, state = sizes.number("ssm.inner_size"), sizes.number("ssm.state_size")
    convolved = inner + 2 * sizes.number("ssm.group_count", 0) * state
    heads = sizes.number("ssm.time_step_rank") if sizes.number("ssm.group_count", 0) else inner
    yield CacheLayer("state", heads, state_elements=convolved * (sizes.number("ssm.conv_kernel") - 1), state_bytes=_STATE_BYTES)
    yield CacheLayer("state", heads, state_elements=inner * state, state_bytes=_STATE_BYTES)


def _latent(sizes: _Sizes) -> CacheLayer:
    heads, rank, rope = sizes.most("attention.head_count"), sizes.number("attention.kv_lora_rank"), sizes.number("rope.dimension_count")
    key, value = (sizes.number(f"attention.{part}_length_mla", sizes.number(f"attention.{part}_length", 0)) for part in ("key", "value"))
    return CacheLayer("latent", 1, rank + rope, expanded_elements=heads * (key + value))


class _Sizes:
    """The numbers of a file's metadata, some of which have a value for each layer."""

    def __init__(self, file: GgufFile) -> None:
        self._file = file

    def number(self, name: str, default: int | None = None) -> int:
        """Return a number; raises ConfigError where there is none."""
        return int(self._file.number(name, default))

    def at(self, name: str, layer: int) -> int:
        """Return a layer's number."""
        values = self._values(name)
        return values[min(layer, len(values) - 1)]

    def most(self, name: str) -> int:
        """Return the largest number of any layer."""
        return max(self._values(name))

    def head_dim(self, part: str) -> int:
        """Return the elements of a head's key or value."""
        return self.number(f"attention.{part}_length", self.number("embedding_length") // max(self.most("attention.head_count"), 1))

    def window(self, layer: int) -> int | None:
        """Return of how many tokens a layer keeps something; None: of all."""
        window = self.number("attention.sliding_window", _CHUNKS.get(self._file.architecture, 0))
        pattern = self._file.setting("attention.sliding_window_pattern")
        if isinstance(pattern, tuple):
            slides = bool(pattern[min(layer, len(pattern) - 1)]) if pattern else False
        else:
            period = pattern if isinstance(pattern, int) else _FULL_PERIODS.get(self._file.architecture, 1)
            slides = bool((layer + 1) % max(period, 1))
        return window if window and slides else None

    def _values(self, name: str) -> tuple[int, ...]:
        value = self._file.setting(name)
        if isinstance(value, tuple) and value and all(isinstance(each, int) for each in value):
            return value
        # A file of a recurrent model has neither heads nor perceptrons; one where all heads have keys of their own says so once.
        return (self.number(name, self.most("attention.head_count") if name == "attention.head_count_kv" else 0),)
