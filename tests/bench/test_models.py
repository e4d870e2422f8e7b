"""Made checkpoints: full vocabularies, the sizes that were asked for, answers of plain text that do not end."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.bench import models
from tests.bench.bounds import Bounds
from tests.bench.models import SHAPES, Shape, make_model, train_tokenizer
from tests.bench.workload import Lengths, Workload

_SHAPE = Shape(hidden=64, layers=2, heads=4, kv_heads=2, intermediate=128, vocabulary=600, max_tokens=128)


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(models.SHAPES, "small", _SHAPE)
        return make_model("small", tmp_path_factory.mktemp("cache"))


def test_a_checkpoint_has_the_shape_that_was_asked_for(checkpoint: Path) -> None:
    assert Shape.of(checkpoint) == _SHAPE
    weights = (checkpoint / "model.safetensors").stat().st_size
    assert weights == pytest.approx(2 * _SHAPE.num_parameters, rel=0.2)


def test_greedy_answers_are_plain_text_and_do_not_end(checkpoint: Path) -> None:
    from transformers import AutoModelForCausalLM, AutoTokenizer

    tokenizer, model = AutoTokenizer.from_pretrained(checkpoint), AutoModelForCausalLM.from_pretrained(checkpoint)
    prompt = tokenizer("hello there", return_tensors="pt")
    [answer] = model.generate(**prompt, max_new_tokens=32, do_sample=False)[:, prompt.input_ids.shape[1] :]
    assert len(answer) == 32
    assert len(set(answer.tolist())) > 1
    assert tokenizer.decode(answer).isascii()


def test_a_vocabulary_is_full_and_encodes_everything() -> None:
    tokenizer = train_tokenizer(1000)
    text = "naïve 日本 🚀 42\n"
    assert tokenizer.get_vocab_size() == 1000
    assert tokenizer.decode(tokenizer.encode(text).ids) == text


def test_shapes_come_to_the_sizes_in_their_names() -> None:
    millions = {name: round(shape.num_parameters / 1e6, 1) for name, shape in SHAPES.items()}
    assert millions == {"m15": 12.6, "m135": 134.5, "m360": 361.8, "m1b": 1034.4}


def test_a_checkpoint_is_made_once(checkpoint: Path) -> None:
    config = json.loads((checkpoint / "config.json").read_text())
    assert config["tie_word_embeddings"] is True
    assert make_model(checkpoint.name, checkpoint.parents[1]) == checkpoint


def test_bounds_count_prompts_and_answers() -> None:
    bounds = Bounds(linears_ms={8: 15.0, 512: 153.6}, head_ms={8: 1.0}, weight_bytes=10**9, read_gb_per_s=20.0)
    workload = Workload(Lengths(64, 64), Lengths(32, 32))
    assert workload.prompt_tokens.mean == pytest.approx(64, abs=1)
    # 16 ms a step of 8 tokens, and 0.3 ms for each of the two prompt tokens that an output token comes with
    assert bounds.operator_tokens_per_s(8, workload) == pytest.approx(1000 / (2.0 + 0.6), rel=0.01)
    assert bounds.memory_tokens_per_s(8) == 160
