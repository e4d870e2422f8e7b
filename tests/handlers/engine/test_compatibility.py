"""Models that the engine cannot run are refused before they serve anyone."""

import pytest
from tiny_models import CONFIGS, make_model
from transformers import BloomConfig, GptOssConfig, MambaConfig, T5Config, T5ForConditionalGeneration

from handlers.engine.compatibility import Unfit, adopt, check_runner
from handlers.engine.paged_cache import KVShape
from handlers.engine.transformers_runner import TransformersRunner

SINKS = GptOssConfig(
    vocab_size=64,
    hidden_size=32,
    intermediate_size=32,
    num_hidden_layers=2,
    num_attention_heads=2,
    num_key_value_heads=1,
    head_dim=16,
    num_local_experts=2,
    num_experts_per_tok=1,
    layer_types=["sliding_attention", "full_attention"],
    pad_token_id=0,
    attn_implementation="eager",
)


def test_the_shapes_of_the_cache_are_learned_from_the_model():
    adoption = adopt(make_model(CONFIGS["qwen3"]))
    assert adoption.kv_shapes == (KVShape(num_heads=2, key_dim=16, value_dim=16),) * 3
    assert adoption.kv_shapes[0].elements == 64


@pytest.mark.parametrize(
    ("config", "reason"),
    [
        (MambaConfig(vocab_size=64, hidden_size=32, num_hidden_layers=2), "layers"),
        (BloomConfig(vocab_size=64, hidden_size=32, n_layer=2, n_head=2), "cannot be replaced"),
        (SINKS, "s_aux"),
    ],
)
def test_an_unfit_architecture_is_refused_with_the_reason(config, reason):
    with pytest.raises(Unfit, match=reason):
        adopt(make_model(config))


def test_an_encoder_decoder_is_refused():
    model = T5ForConditionalGeneration(T5Config(vocab_size=64, d_model=32, d_ff=32, num_layers=1, num_heads=2, d_kv=16))
    with pytest.raises(Unfit, match="encoder-decoder"):
        adopt(model)


class ForgetfulRunner(TransformersRunner):
    """Loses its context between steps, as a model with a cache that is not ours would."""

    def run(self, plan):
        for tensor in (*self._cache._keys, *self._cache._values):
            tensor.zero_()
        return super().run(plan)


def test_a_runner_that_disagrees_with_the_model_is_refused():
    model = make_model(CONFIGS["llama"])
    adoption = adopt(model)
    runner = ForgetfulRunner(model, adoption.kv_shapes, num_blocks=1, block_tokens=16, max_model_len=16)
    with pytest.raises(Unfit, match="differs"):
        check_runner(model, runner, adoption)
