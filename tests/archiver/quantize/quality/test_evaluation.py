"""Where the tokens come from that quality is measured on."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest

from archiver.errors import UsageError
from archiver.quantize.quality.evaluation import MAX_TOKENS, choose_evaluation
from archiver.quantize.request import QuantizeRequest
from archiver.quantize.samples import load_tokenizer
from tests.checkpoints import make_checkpoint

REQUEST = QuantizeRequest("model", ("nf4",))
SENTENCE = "the quick brown fox jumps over the lazy dog"


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_checkpoint(tmp_path_factory.mktemp("evaluation") / "bot")


def write_samples(file: Path, number: int) -> Path:
    file.write_text("".join(json.dumps({"text": f"{SENTENCE} {index} and again {SENTENCE}"}) + "\n" for index in range(number)))
    return file


def test_the_user_s_text_goes_first_and_the_same_tokens_come_each_time(checkpoint, tmp_path):
    request = replace(
        REQUEST, evaluation=write_samples(tmp_path / "held-out.jsonl", 40), calibration=write_samples(tmp_path / "c.jsonl", 9)
    )
    chosen = choose_evaluation(request, checkpoint)
    assert chosen.description == "held-out.jsonl"
    assert len(chosen.texts) == 40
    assert all(text.num_given == 1 for text in chosen.texts)
    assert chosen == choose_evaluation(request, checkpoint)
    assert len(chosen.prompts) == 16
    assert all(text.token_ids[: len(prompt)] == prompt for text, prompt in zip(chosen.texts, chosen.prompts, strict=False))


def test_long_files_are_cut_and_not_only_their_beginning_is_read(checkpoint, tmp_path):
    chosen = choose_evaluation(replace(REQUEST, evaluation=write_samples(tmp_path / "long.jsonl", 2000)), checkpoint)
    num_tokens = sum(len(text.predicted) for text in chosen.texts)
    assert MAX_TOKENS <= num_tokens < MAX_TOKENS + 512
    decode = load_tokenizer(checkpoint).decode
    assert any(f" {number} and" in decode(text.token_ids) for text in chosen.texts for number in range(1900, 2000))


def test_what_calibration_left_is_next(checkpoint, tmp_path):
    request = replace(REQUEST, calibration=write_samples(tmp_path / "c.jsonl", 60), num_samples=30)
    chosen = choose_evaluation(request, checkpoint)
    assert chosen.description == "what calibration left of c.jsonl"
    assert len(chosen.texts) == 30
    decode = load_tokenizer(checkpoint).decode
    assert not any(f" {number} and" in decode(text.token_ids) for text in chosen.texts for number in range(30))


def test_too_little_left_and_nothing_given_let_the_model_write(checkpoint, tmp_path):
    chosen = choose_evaluation(replace(REQUEST, calibration=write_samples(tmp_path / "c.jsonl", 31), num_samples=30), checkpoint)
    assert chosen.description == "the source model's own samples"
    assert chosen == choose_evaluation(REQUEST, checkpoint)
    assert len({text.predicted for text in chosen.texts}) > 50
    user = load_tokenizer(checkpoint).decode(chosen.texts[0].token_ids[: chosen.texts[0].num_given])
    assert user.startswith("<|user|>Tell me about yourself.<|end|>")
    assert user.endswith("<|assistant|>")


def test_prompts_are_user_s_turns_one_a_line(checkpoint, tmp_path):
    (tmp_path / "prompts.txt").write_text("hello\n\nhow are you?\n")
    chosen = choose_evaluation(replace(REQUEST, prompts=tmp_path / "prompts.txt"), checkpoint)
    tokenizer = load_tokenizer(checkpoint)
    expected = ["<|user|>hello<|end|><|assistant|>", "<|user|>how are you?<|end|><|assistant|>"]
    assert [tokenizer.decode(prompt) for prompt in chosen.prompts] == expected


def test_files_without_use_are_named(checkpoint, tmp_path):
    (tmp_path / "short.jsonl").write_text('{"text": "a"}\n')
    with pytest.raises(UsageError, match=r"short\.jsonl has no sample of two tokens or more"):
        choose_evaluation(replace(REQUEST, evaluation=tmp_path / "short.jsonl"), checkpoint)
    (tmp_path / "empty.txt").write_text("\n")
    with pytest.raises(UsageError, match=r"empty\.txt holds no prompts"):
        choose_evaluation(replace(REQUEST, prompts=tmp_path / "empty.txt"), checkpoint)
