"""Requests to token ids: templates, limits, and everything that a client or an operator can get wrong."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from handlers.config import HandlerConfig, LimitsConfig, TokenizerConfig
from handlers.errors import ConfigError, InvalidRequest
from handlers.requests import Request, SamplingParams
from handlers.text.tokenizer import TextTokenizer, load_tokenizer
from handlers.text.vocabulary import Vocabulary
from tests.checkpoints import make_tokenizer

RAW = make_tokenizer()
HELLO = [{"role": "user", "content": "hello"}]


@pytest.fixture(scope="module")
def directory(tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = tmp_path_factory.mktemp("model")
    RAW.save_pretrained(directory)
    return directory


@pytest.fixture
def tokenizer(directory: Path) -> TextTokenizer:
    return load_tokenizer(directory, directory.parent, HandlerConfig())


def rendered(tokenizer: TextTokenizer, **given: Any) -> list[int]:
    request = Request(**given)
    tokenizer.render(request)
    return request.prompt_token_ids


def text_of(token_ids: list[int]) -> str:
    return str(RAW.decode(token_ids))


class TestRender:
    def test_messages_go_through_the_template_which_writes_all_special_tokens(self, tokenizer: TextTokenizer) -> None:
        assert text_of(rendered(tokenizer, messages=HELLO)) == "<|user|>hello<|end|><|assistant|>"

    def test_a_prompt_is_encoded_as_it_is(self, tokenizer: TextTokenizer) -> None:
        assert text_of(rendered(tokenizer, prompt="the fox")) == "the fox"

    def test_token_ids_stand(self, tokenizer: TextTokenizer) -> None:
        assert rendered(tokenizer, prompt_token_ids=[7, 8]) == [7, 8]

    @pytest.mark.parametrize("token_ids", [[-1], [5, 10**9], [307]])
    def test_token_ids_outside_of_the_vocabulary_are_refused(self, tokenizer: TextTokenizer, token_ids: list[int]) -> None:
        with pytest.raises(InvalidRequest, match=r"0\.\.306"):
            rendered(tokenizer, prompt_token_ids=token_ids)

    def test_an_empty_prompt_is_refused(self, tokenizer: TextTokenizer) -> None:
        for nothing in ({"prompt": ""}, {"prompt_token_ids": []}):
            with pytest.raises(InvalidRequest, match="empty"):
                rendered(tokenizer, **nothing)

    def test_what_the_template_refuses_is_the_clients_mistake(self, tokenizer: TextTokenizer) -> None:
        with pytest.raises(InvalidRequest, match="this template refuses") as caught:
            rendered(tokenizer, messages=[{"role": "user", "content": "refuse me"}])
        assert (caught.value.status, caught.value.param) == (400, "messages")

    @pytest.mark.parametrize("template", ["{{ 1 / 0 }}", "{{ undefined.attribute }}", "{% for %}", "{{ [].pop() }}"])
    def test_whatever_a_template_raises_is_a_400(self, template: str) -> None:
        raw = make_tokenizer()
        raw.chat_template = template
        with pytest.raises(InvalidRequest, match="template"):
            rendered(TextTokenizer(raw), messages=HELLO)

    def test_without_a_template_there_is_no_chat(self) -> None:
        raw = make_tokenizer()
        raw.chat_template = None
        with pytest.raises(InvalidRequest, match="completions route"):
            rendered(TextTokenizer(raw), messages=HELLO)
        assert rendered(TextTokenizer(raw), prompt="fox")


class TestLength:
    def test_a_prompt_may_be_exactly_as_long_as_the_limit(self, tokenizer: TextTokenizer) -> None:
        tokenizer.limit_prompts(3)
        assert len(rendered(tokenizer, prompt_token_ids=[5, 6, 7])) == 3
        for longer in ({"prompt_token_ids": [5, 6, 7, 8]}, {"prompt": "!?!?"}):
            with pytest.raises(InvalidRequest, match="has 4 tokens; this model takes at most 3") as caught:
                rendered(tokenizer, **longer)
            assert caught.value.code == "context_length_exceeded"

    def test_the_lower_of_the_operators_and_the_models_limit_holds(self, directory: Path) -> None:
        config = HandlerConfig(limits=LimitsConfig(max_prompt_tokens=5))
        tokenizer = load_tokenizer(directory, directory, config)
        tokenizer.limit_prompts(100)
        assert tokenizer.max_prompt_tokens == 5
        tokenizer.limit_prompts(4)
        assert tokenizer.max_prompt_tokens == 4

    def test_a_hopeless_prompt_is_refused_without_tokenizing_it(self) -> None:
        class Counting:
            """A tokenizer whose longest token stands for three characters."""

            num_calls = 0

            def __len__(self) -> int:
                return 3

            def get_vocab(self) -> dict[str, int]:
                return {"a": 0, "aa": 1, "aaa": 2}

            def __call__(self, text: str, **options: Any) -> dict[str, list[int]]:
                self.num_calls += 1
                return {"input_ids": [2] * (len(text) // 3)}

        raw = Counting()
        tokenizer = TextTokenizer(raw, max_prompt_tokens=4)
        assert len(rendered(tokenizer, prompt="a" * 12)) == 4
        with pytest.raises(InvalidRequest, match="at least 4 tokens"):
            rendered(tokenizer, prompt="a" * 13)
        assert raw.num_calls == 1

    @given(st.text(min_size=1, max_size=60))
    def test_no_text_has_fewer_tokens_than_the_bound_says(self, text: str) -> None:
        # Byte-level: a token is written with one character a byte, so "é" is a token string of two characters for a text of one.
        num_tokens = len(RAW(text)["input_ids"])

        assert len(text) <= num_tokens * Vocabulary(RAW).longest_token

    def test_the_longest_token_is_measured_in_characters_of_the_vocabulary(self) -> None:
        assert Vocabulary(RAW).longest_token == max(map(len, RAW.get_vocab())) == len("<|assistant|>")


class TestBias:
    def test_a_bias_on_an_unknown_token_is_refused_by_name(self, tokenizer: TextTokenizer) -> None:
        tokenizer.render(Request(prompt="hi", params=SamplingParams(logit_bias=((len(RAW) - 1, 5.0),))))
        with pytest.raises(InvalidRequest, match=f"must lie in 0..{len(RAW) - 1}, got {len(RAW)}") as caught:
            tokenizer.render(Request(prompt="hi", params=SamplingParams(logit_bias=((5, 1.0), (len(RAW), 5.0)))))
        assert caught.value.param == "logit_bias"


class TestOutput:
    @given(st.text(max_size=30))
    def test_generated_tokens_become_their_text_without_special_tokens(self, text: str) -> None:
        output = TextTokenizer(RAW).output(Request())

        pieces = output.push([*RAW(text)["input_ids"], RAW.eos_token_id])

        assert pieces + output.finish() == text

    def test_the_requests_stop_strings_are_matched(self, tokenizer: TextTokenizer) -> None:
        output = tokenizer.output(Request(params=SamplingParams(stop=("fox",))))

        assert output.push(RAW("the fox jumps")["input_ids"]) == "the "
        assert output.is_stopped


class TestLoad:
    def test_the_operators_template_replaces_the_checkpoints(self, directory: Path) -> None:
        (directory.parent / "chat.jinja").write_text("{{ messages[0].content }}!")
        config = HandlerConfig(tokenizer=TokenizerConfig(chat_template="chat.jinja"))

        assert text_of(rendered(load_tokenizer(directory, directory.parent, config), messages=HELLO)) == "hello!"

    @pytest.mark.parametrize("content", [None, b"\xff"])
    def test_a_template_that_cannot_be_read_is_named(self, directory: Path, content: bytes | None, tmp_path: Path) -> None:
        if content is not None:
            (tmp_path / "gone.jinja").write_bytes(content)
        config = dataclasses.replace(HandlerConfig(), tokenizer=TokenizerConfig(chat_template="gone.jinja"))

        with pytest.raises(ConfigError, match=r"handler\.tokenizer\.chat_template: .*gone\.jinja"):
            load_tokenizer(directory, tmp_path, config)

    @pytest.mark.parametrize(
        "files", [{}, {"tokenizer.json": "{"}, {"tokenizer.json": '{"version": "1.0"}'}, {"tokenizer_config.json": "[]"}]
    )
    def test_a_directory_without_a_usable_tokenizer_is_named_in_one_line(self, files: dict[str, str], tmp_path: Path) -> None:
        for name, content in files.items():
            (tmp_path / name).write_text(content)

        with pytest.raises(ConfigError, match="no usable tokenizer") as caught:
            load_tokenizer(tmp_path, tmp_path, HandlerConfig())
        assert "\n" not in str(caught.value)
