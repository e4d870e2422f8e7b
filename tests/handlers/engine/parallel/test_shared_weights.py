"""Shares of a model that exchange what they compute say what the whole model says, for every family that can be divided."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from tiny_models import CONFIGS, make_model
from transformers import CohereConfig, GemmaConfig, GraniteConfig, LlamaConfig, OlmoConfig, PreTrainedConfig, SmolLM3Config

from handlers.config import EngineConfig, ModelConfig
from handlers.engine.capacity import Capacity
from handlers.engine.compatibility import adopt
from handlers.engine.lean_runner import LeanRunner
from handlers.engine.parallel.linear import join
from handlers.engine.runners import choose_runner
from handlers.engine.scheduler import Chunk, StepPlan
from handlers.engine.transformers_runner import TransformersRunner
from handlers.engine.weight_memory import weight_bytes
from handlers.errors import ConfigError
from handlers.tensor_parallel import FAMILIES
from handlers.weights.checkpoint import Checkpoint
from handlers.weights.shards import load_shard

PROMPT = [5, 17, 200, 33, 9, 9, 140, 61, 2, 77, 250]
SIZES = {"vocab_size": 256, "hidden_size": 48, "intermediate_size": 96, "num_hidden_layers": 3, "max_position_embeddings": 256}
SIZES |= {"num_attention_heads": 4, "num_key_value_heads": 2, "bos_token_id": 1, "eos_token_id": 7, "pad_token_id": 0}
LEAN = ("llama", "qwen2", "qwen3", "mistral-sliding", "phi3", "llama-biased", "llama-tied-odd")
OTHERS = {
    "llama-biased": LlamaConfig(**SIZES, attention_bias=True, mlp_bias=True),
    "llama-tied-odd": LlamaConfig(**{**SIZES, "vocab_size": 255}, tie_word_embeddings=True),
    "cohere": CohereConfig(**SIZES),
    "gemma": GemmaConfig(**SIZES, head_dim=16),
    "granite": GraniteConfig(**SIZES, logits_scaling=2.0, residual_multiplier=0.5),
    "olmo": OlmoConfig(**SIZES),
    "smollm3": SmolLM3Config(**SIZES),
}
MODELS: dict[str, PreTrainedConfig] = {**{name: config for name, config in CONFIGS.items() if config.model_type in FAMILIES}, **OTHERS}
CHUNKS = [StepPlan((Chunk("a", start, tuple(PROMPT[start:end]), [0, 1, 2], samples=True),)) for start, end in ((0, 6), (6, 10), (10, 11))]


def save(name: str, directory: Path) -> torch.nn.Module:
    model = make_model(MODELS[name])
    for parameter_name, parameter in model.named_parameters():
        if parameter_name.endswith("bias"):
            torch.nn.init.normal_(parameter)  # zero in a new model
    model.save_pretrained(directory)
    return model


def test_every_family_is_here():
    assert {config.model_type for config in MODELS.values()} == FAMILIES


@pytest.mark.parametrize("num_ranks", [2, 4])
@pytest.mark.parametrize("name", MODELS)
def test_shares_compute_what_the_whole_model_computes(name, num_ranks, tmp_path, in_ranks):
    whole = save(name, tmp_path)
    with torch.inference_mode():
        expected = whole(input_ids=torch.tensor([PROMPT])).logits[0]
    checkpoint = Checkpoint.open(tmp_path, ModelConfig())
    models = [load_shard(checkpoint, rank, num_ranks) for rank in range(num_ranks)]

    def run(collective):
        model = models[collective.rank]
        join(model, collective)
        runner = choose_runner(model, adopt(model), Capacity(8, 64), EngineConfig())
        return type(runner), torch.stack([runner.run(plan)[0] for plan in CHUNKS])

    for kind, logits in in_ranks(num_ranks, run):
        assert kind is (LeanRunner if name in LEAN else TransformersRunner)
        torch.testing.assert_close(logits, expected[[5, 9, 10]], atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("num_ranks", [2, 4])
def test_a_share_of_the_weights_is_a_share_of_the_memory(num_ranks, tmp_path):
    whole = save("llama", tmp_path)
    parts = dict(whole.named_parameters()) | dict(whole.named_buffers())
    copied = sum(part.nbytes for name, part in parts.items() if "norm" in name or "embed" in name or "inv_freq" in name)
    key_values = sum(part.nbytes for name, part in parts.items() if ".k_proj" in name or ".v_proj" in name)
    divided = weight_bytes(whole) - copied - key_values
    for rank in range(num_ranks):
        share = load_shard(Checkpoint.open(tmp_path, ModelConfig()), rank, num_ranks)
        assert weight_bytes(share) == copied + divided / num_ranks + key_values / 2  # two KV heads


def test_a_share_without_its_lm_head_is_refused(tmp_path):
    model = save("llama", tmp_path)
    weights = {name: weight for name, weight in model.state_dict().items() if name != "lm_head.weight"}
    save_file(weights, tmp_path / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(ConfigError, match=r"^the weights lack lm_head\.weight of LlamaForCausalLM"):
        load_shard(Checkpoint.open(tmp_path, ModelConfig()), 0, 2)
