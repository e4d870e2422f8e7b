"""Who gets the CUDA runner, and with what."""

from __future__ import annotations

import pytest
import torch
from tiny_models import CONFIGS, make_model

from handlers.config import EngineConfig, SpeculationConfig
from handlers.engine.capacity import Capacity
from handlers.engine.compatibility import adopt
from handlers.engine.decoder_parts import take_apart
from handlers.engine.gpu.build import fits_gpu, kv_dtype, most_rows
from handlers.engine.runners import choose_runner
from handlers.errors import ConfigError


def test_a_step_has_a_row_for_every_sequence_and_every_guess_up_to_the_most() -> None:
    assert most_rows(EngineConfig(max_running=20)) == 20
    assert most_rows(EngineConfig(max_running=4, speculation=SpeculationConfig("ngram", max_draft_tokens=3))) == 16
    assert most_rows(EngineConfig(max_running=20, speculation=SpeculationConfig("ngram"))) == 64
    assert most_rows(EngineConfig(max_running=20, speculation=SpeculationConfig("ngram", max_rows=30))) == 30
    assert most_rows(EngineConfig(max_running=200, speculation=SpeculationConfig("ngram"))) == 200


def test_a_model_on_a_cpu_gets_another_runner_and_no_8_bit_cache() -> None:
    model = make_model(CONFIGS["llama"])
    adoption = adopt(model)
    parts = take_apart(model, adoption.scorings, 64)
    assert parts is not None
    assert not fits_gpu(parts)
    config = EngineConfig(kv_dtype="fp8")
    assert kv_dtype(config, torch.bfloat16).itemsize == 1
    with pytest.raises(ConfigError, match="kv_dtype is fp8, which takes a CUDA GPU"):
        choose_runner(model, adoption, Capacity(8, 64), config)
