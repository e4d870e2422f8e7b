"""Files of samples: every form is read, every line that is none is named, and messages look as the served model sees them."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from archiver.errors import UsageError
from archiver.quantize.samples import load_tokenizer, read_samples, tokenize
from tests.checkpoints import make_tokenizer

CHAT = [{"role": "user", "content": "hi"}, {"role": "assistant", "content": "ho"}]


@pytest.fixture(scope="module")
def tokenizer():
    return make_tokenizer()


def write(directory: Path, name: str, text: str) -> Path:
    file = directory / name
    file.write_text(text, "utf-8")
    return file


def test_each_form_of_a_line_is_read(tmp_path):
    rows = [{"text": "a"}, {"messages": CHAT}, {"prompt": "2+2=", "completion": "4"}]
    file = write(tmp_path, "samples.jsonl", "\n".join(map(json.dumps, rows)) + "\n\n")
    assert read_samples(file) == ("a", tuple(CHAT), "2+2=4")


def test_text_is_parted_by_blank_lines(tmp_path):
    assert read_samples(write(tmp_path, "samples.txt", "\n\none\ntwo\n \n\nthree\n")) == ("one\ntwo", "three")


@given(st.lists(st.text(st.characters(codec="utf-8")).filter(str.strip), min_size=1))
def test_any_text_survives_jsonl(tmp_path_factory, texts):
    file = tmp_path_factory.mktemp("samples") / "samples.jsonl"
    file.write_text("\n".join(json.dumps({"text": text}) for text in texts))
    assert read_samples(file) == tuple(texts)


@pytest.mark.parametrize(
    "line",
    [
        '{"text": ""}',
        '{"text": 3}',
        "[]",
        "3",
        "{",
        '{"messages": []}',
        '{"messages": [{"role": "user"}]}',
        '{"prompt": "", "completion": " "}',
    ],
)
def test_a_line_that_is_no_sample_is_named_by_its_number(tmp_path, line):
    file = write(tmp_path, "samples.jsonl", '{"text": "fine"}\n\n' + line)
    with pytest.raises(UsageError, match=r"samples\.jsonl:3 is "):
        read_samples(file)


def test_an_empty_file_and_one_that_is_no_text_are_refused(tmp_path):
    with pytest.raises(UsageError, match="holds no samples"):
        read_samples(write(tmp_path, "empty.txt", " \n"))
    (tmp_path / "binary.txt").write_bytes(b"abc\xff")
    with pytest.raises(UsageError, match=r"no UTF-8 text \(byte 3\)"):
        read_samples(tmp_path / "binary.txt")


def test_messages_are_rendered_with_the_models_template(tokenizer):
    (ids,) = tokenize([tuple(CHAT)], tokenizer, 100)
    assert tokenizer.decode(ids) == "<|user|>hi<|end|><|assistant|>ho<|end|>"


def test_samples_are_cut_to_the_window(tokenizer):
    whole, cut = (next(tokenize(["the quick brown fox jumps"], tokenizer, length)) for length in (100, 3))
    assert cut == whole[:3] != whole


def test_a_template_that_refuses_or_is_missing_is_explained(tokenizer):
    with pytest.raises(UsageError, match="refuses sample 2: this template refuses"):
        list(tokenize(["text", ({"role": "user", "content": "refuse me"},)], tokenizer, 10))
    bare = make_tokenizer()
    bare.chat_template = None
    with pytest.raises(UsageError, match="no chat template"):
        list(tokenize([tuple(CHAT)], bare, 10))


def test_a_directory_without_a_tokenizer_is_refused(tmp_path):
    with pytest.raises(UsageError, match="cannot load the tokenizer"):
        load_tokenizer(tmp_path)
