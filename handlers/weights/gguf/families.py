"""Model families whose GGUF files become transformers models tensor by tensor: their configuration, and their tensors' names.

The names are llama.cpp's (https://github.com/ggml-org/llama.cpp/blob/master/gguf-py/gguf/constants.py).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from handlers.gguf_file import GgufFile

if TYPE_CHECKING:
    from transformers import PreTrainedConfig

FAMILIES = frozenset({"llama", "qwen2", "qwen3"})
"""llama.cpp's names; Mistral's and SmolLM's files say "llama"."""

_EMBEDDING, _HEAD = "model.embed_tokens.weight", "lm_head.weight"
_OUTER = {_EMBEDDING: "token_embd.weight", "model.norm.weight": "output_norm.weight", _HEAD: "output.weight"}
_INNER = {
    "self_attn.q_proj": "attn_q",
    "self_attn.k_proj": "attn_k",
    "self_attn.v_proj": "attn_v",
    "self_attn.o_proj": "attn_output",
    "self_attn.q_norm": "attn_q_norm",
    "self_attn.k_norm": "attn_k_norm",
    "mlp.gate_proj": "ffn_gate",
    "mlp.up_proj": "ffn_up",
    "mlp.down_proj": "ffn_down",
    "input_layernorm": "attn_norm",
    "post_attention_layernorm": "ffn_norm",
}
ROTARY_FACTORS = "rope_freqs.weight"
"""What each rotary frequency is divided by: Llama 3.1's long context, computed when the file was made."""
_NOT_WEIGHTS = frozenset({ROTARY_FACTORS})


def is_readable(file: GgufFile) -> bool:
    """Whether a file is of one of the FAMILIES, in the form that these have in transformers: no experts, rotary over whole heads."""
    if file.architecture not in FAMILIES or file.tensors.keys() - {*tensor_names(file).values(), *_NOT_WEIGHTS}:
        return False
    return file.setting("rope.dimension_count") in (None, _head_dim(file)) and file.setting("rope.scaling.type", "none") in _ROPE_TYPES


def tensor_names(file: GgufFile) -> dict[str, str]:
    """Map the names of transformers' weights to those of the file's tensors, as far as the file has them.

    A quantized embedding that is also the head appears as both: multiplied it stays packed, and to look rows up it is dequantized.
    """
    names = dict(_OUTER)
    for layer in range(int(file.number("block_count"))):
        for ours, theirs in _INNER.items():
            names |= {f"model.layers.{layer}.{ours}.{part}": f"blk.{layer}.{theirs}.{part}" for part in ("weight", "bias")}
    names = {ours: theirs for ours, theirs in names.items() if theirs in file.tensors}
    if _HEAD not in names and _EMBEDDING in names and file.tensors[names[_EMBEDDING]].type not in ("F32", "F16", "BF16"):
        names[_HEAD] = names[_EMBEDDING]
    return names


def model_config(file: GgufFile) -> PreTrainedConfig:
    """Return the configuration that transformers would have saved; raise ConfigError for sizes that are missing."""
    from transformers import AutoConfig

    heads = int(file.number("attention.head_count"))
    return AutoConfig.for_model(
        file.architecture,
        vocab_size=file.tensors["token_embd.weight"].shape[0],
        hidden_size=int(file.number("embedding_length")),
        intermediate_size=int(file.number("feed_forward_length")),
        num_hidden_layers=int(file.number("block_count")),
        num_attention_heads=heads,
        num_key_value_heads=int(file.number("attention.head_count_kv", heads)),
        head_dim=_head_dim(file),
        max_position_embeddings=int(file.number("context_length")),
        rms_norm_eps=file.number("attention.layer_norm_rms_epsilon"),
        rope_parameters=_rope_parameters(file),
        tie_word_embeddings="output.weight" not in file.tensors,
        attention_bias="blk.0.attn_q.bias" in file.tensors,
        architectures=[_CLASSES[file.architecture]],
    )


def row_heads(file: GgufFile, name: str) -> int | None:
    """Return over how many heads the rows of a tensor stand pairwise interleaved, or None where they stand as transformers wants them.

    llama.cpp rotates neighbours of a Llama's heads, transformers their halves.
    """
    if file.architecture != "llama":
        return None
    if ".attn_q." in name:
        return int(file.number("attention.head_count"))
    return int(file.number("attention.head_count_kv", file.number("attention.head_count"))) if ".attn_k." in name else None


_CLASSES = {"llama": "LlamaForCausalLM", "qwen2": "Qwen2ForCausalLM", "qwen3": "Qwen3ForCausalLM"}
_ROPE_TYPES = {"none": "default", "linear": "linear", "yarn": "yarn"}


def _head_dim(file: GgufFile) -> int:
    default = file.number("embedding_length") // max(file.number("attention.head_count"), 1)
    return int(file.number("attention.key_length", default))


def _rope_parameters(file: GgufFile) -> dict[str, Any]:
    kind = _ROPE_TYPES[file.setting("rope.scaling.type", "none")]
    parameters: dict[str, Any] = {"rope_type": kind, "rope_theta": file.number("rope.freq_base", 10000.0)}
    if kind != "default":
        parameters["factor"] = file.number("rope.scaling.factor")
    if kind == "yarn":
        parameters["original_max_position_embeddings"] = int(file.number("rope.scaling.original_context_length"))
    return parameters
