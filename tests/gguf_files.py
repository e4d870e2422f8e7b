"""Make small GGUF files out of small checkpoints, for tests: written here from the format's documentation, not by our own writer."""

from __future__ import annotations

from pathlib import Path
from typing import Any

ROPE_FACTORS = "rope_freqs.weight"
_NAMES = {
    "model.embed_tokens": "token_embd",
    "model.norm": "output_norm",
    "lm_head": "output",
    "model.layers": "blk",
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
_SCALAR_TYPES = {bool: "add_bool", int: "add_uint32", float: "add_float32", str: "add_string"}


def make_gguf(checkpoint: Path, file: Path, *, kind: str = "F32", pre: str = "gpt-2", **metadata: Any) -> Path:
    """Write the Llama or Qwen in ``checkpoint`` and its byte-level tokenizer to ``file``, its matrices quantized to ``kind``.

    ``metadata`` adds or replaces values, ``__`` in a name standing for a dot; None leaves one out. A tuple is an array.
    """
    from transformers import AutoModelForCausalLM, AutoTokenizer

    model = AutoModelForCausalLM.from_pretrained(checkpoint, dtype="float32")
    tokenizer = AutoTokenizer.from_pretrained(checkpoint)
    values = _sizes(model.config) | _vocabulary(tokenizer, pre) | {key.replace("__", "."): value for key, value in metadata.items()}
    weights = model.state_dict()
    if model.config.tie_word_embeddings:
        del weights["lm_head.weight"]
    tensors = {_name(name): _permuted(name, weight, model.config).numpy() for name, weight in weights.items()}
    return write_gguf(file, model.config.model_type, values, tensors, kind)


def write_gguf(file: Path, architecture: str, metadata: dict[str, Any], tensors: dict[str, Any], kind: str = "F32") -> Path:
    """Write metadata and arrays, the two-dimensional ones as blocks of ``kind``."""
    import gguf

    writer = gguf.GGUFWriter(file, architecture)
    for key, value in metadata.items():
        if isinstance(value, tuple):
            writer.add_array(key, value)
        elif value is not None:
            getattr(writer, _SCALAR_TYPES[type(value)])(key, value)
    for name, array in tensors.items():
        block_type = gguf.GGMLQuantizationType[kind if array.ndim == 2 else "F32"]
        writer.add_tensor(name, gguf.quantize(array, block_type), raw_dtype=block_type)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return file


def _sizes(config: Any) -> dict[str, Any]:
    sizes = {
        "context_length": config.max_position_embeddings,
        "embedding_length": config.hidden_size,
        "block_count": config.num_hidden_layers,
        "feed_forward_length": config.intermediate_size,
        "attention.head_count": config.num_attention_heads,
        "attention.head_count_kv": config.num_key_value_heads,
        "attention.key_length": getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads,
        "attention.layer_norm_rms_epsilon": config.rms_norm_eps,
        "rope.freq_base": float(config.rope_parameters["rope_theta"]),
        "vocab_size": config.vocab_size,
    }
    sizes["attention.value_length"] = sizes["rope.dimension_count"] = sizes["attention.key_length"]
    return {f"{config.model_type}.{name}": value for name, value in sizes.items()}


def _vocabulary(tokenizer: Any, pre: str) -> dict[str, Any]:
    import json

    model = json.loads(tokenizer.backend_tokenizer.to_str())["model"]
    special = set(tokenizer.all_special_ids) | set(tokenizer.added_tokens_decoder)
    tokens = [tokenizer.convert_ids_to_tokens(token_id) for token_id in range(len(tokenizer))]
    return {
        "tokenizer.ggml.model": "gpt2",
        "tokenizer.ggml.pre": pre,
        "tokenizer.ggml.tokens": tuple(tokens),
        "tokenizer.ggml.token_type": tuple(3 if token_id in special else 1 for token_id in range(len(tokens))),
        "tokenizer.ggml.merges": tuple(merge if isinstance(merge, str) else " ".join(merge) for merge in model["merges"]),
        "tokenizer.ggml.bos_token_id": tokenizer.bos_token_id,
        "tokenizer.ggml.eos_token_id": tokenizer.eos_token_id,
        "tokenizer.ggml.padding_token_id": tokenizer.pad_token_id,
        "tokenizer.ggml.add_bos_token": False,
        "tokenizer.chat_template": tokenizer.chat_template,
    }


def _name(name: str) -> str:
    for theirs, ours in _NAMES.items():
        name = name.replace(theirs, ours)
    return name


def _permuted(name: str, weight: Any, config: Any) -> Any:
    """Return a Llama's queries and keys with the two halves of every head interleaved, as llama.cpp rotates them."""
    if config.model_type != "llama" or not any(part in name for part in ("q_proj", "k_proj")):
        return weight
    heads = config.num_attention_heads if "q_proj" in name else config.num_key_value_heads
    return weight.view(heads, 2, -1, *weight.shape[1:]).transpose(1, 2).reshape(weight.shape)
