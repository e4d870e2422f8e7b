"""Every sampling parameter on the real server, with the real client: choices, log probabilities, penalties, biases, limits, queueing."""

from __future__ import annotations

from typing import Any

import openai
import pytest

from archiver.deploy.launch import TorchServe
from tests.contract.clients import ClientOf, ModelClient, at_once, counter, wait_until

pytestmark = [pytest.mark.torchserve, pytest.mark.timeout(300)]

PROMPT = "Tell me about number 1"


def complete(client: ModelClient, *, prompt: Any = PROMPT, temperature: float = 0, **options: Any) -> Any:
    """Return the client library's own object for a completion, greedy unless told otherwise."""
    own = {"min_tokens", "min_p", "repetition_penalty", "stop_token_ids", "ignore_eos", "priority", "max_queue_s"}
    extra = {name: options.pop(name) for name in list(options) if name in own}
    return client.openai.completions.create(model=client.model, prompt=prompt, temperature=temperature, extra_body=extra, **options)


def chat(client: ModelClient, **options: Any) -> Any:
    messages: Any = [{"role": "user", "content": "hello"}]
    return client.openai.chat.completions.create(model=client.model, messages=messages, temperature=0, **options)


class TestChoices:
    def test_a_seed_counts_up_from_choice_to_choice(self, client: ModelClient) -> None:
        sampled = {"max_tokens": 20, "temperature": 1.2, "ignore_eos": True}
        alone = [complete(client, seed=seed, **sampled).choices[0].text for seed in (5, 6, 7)]

        together = complete(client, seed=5, n=3, **sampled)

        assert [choice.text for choice in together.choices] == alone and len(set(alone)) == 3
        assert [choice.index for choice in together.choices] == [0, 1, 2]
        assert together.usage.completion_tokens == 60

    def test_greedy_choices_are_alike_and_the_prompt_counts_once(self, client: ModelClient) -> None:
        one = complete(client, max_tokens=12)
        four = complete(client, max_tokens=12, n=4)

        assert {choice.text for choice in four.choices} == {one.choices[0].text}
        assert four.usage.prompt_tokens == one.usage.prompt_tokens

    def test_a_stream_carries_all_choices(self, wide: ModelClient) -> None:
        options: Any = {"max_tokens": 20, "temperature": 1.2, "seed": 5, "n": 3}
        texts, reasons = ["", "", ""], [None, None, None]
        for chunk in complete(wide, stream=True, **options):
            for choice in chunk.choices:
                texts[choice.index] += choice.text
                reasons[choice.index] = choice.finish_reason or reasons[choice.index]

        plain = complete(wide, **options)
        assert texts == [choice.text for choice in plain.choices]
        assert reasons == [choice.finish_reason for choice in plain.choices]

    def test_several_prompts_are_answered_in_order(self, client: ModelClient) -> None:
        prompts = ["quick fox", "lazy dog", "again and again"]
        alone = [complete(client, prompt=prompt, max_tokens=8).choices[0].text for prompt in prompts]

        together = complete(client, prompt=prompts, max_tokens=8, n=2)

        assert [choice.text for choice in together.choices] == [text for text in alone for _ in range(2)]

    def test_more_choices_than_there_is_room_for_are_the_clients_mistake(self, client_of: ClientOf) -> None:
        with pytest.raises(openai.BadRequestError) as refusal:
            complete(client_of("narrow"), n=5)
        assert refusal.value.param == "n"

    def test_eight_clients_with_eight_choices_each(self, wide: ModelClient) -> None:
        def ask(number: int) -> list[str]:
            answer = complete(wide, prompt=f"number {number}", max_tokens=10, n=8, seed=number, temperature=1.0)
            return [choice.text for choice in answer.choices]

        assert at_once(ask, range(8)) == [ask(number) for number in range(8)]


class TestLogprobs:
    def test_of_a_chat(self, wide: ModelClient) -> None:
        choice = chat(wide, max_tokens=10, logprobs=True, top_logprobs=3).choices[0]
        tokens = choice.logprobs.content

        assert b"".join(bytes(token.bytes) for token in tokens).decode("utf-8", "replace") == choice.message.content
        for token in tokens:
            assert len(token.top_logprobs) == 3 and token.logprob <= 0
            assert token.token == token.top_logprobs[0].token, "greedy takes the likeliest"
            assert [other.logprob for other in token.top_logprobs] == sorted((other.logprob for other in token.top_logprobs), reverse=True)

    def test_of_a_stream_are_those_of_the_whole_answer(self, wide: ModelClient) -> None:
        options: Any = {"max_tokens": 16, "logprobs": True, "top_logprobs": 1}
        content = chat(wide, **options).choices[0].logprobs.content
        streamed = [
            token
            for chunk in chat(wide, stream=True, **options)
            for choice in chunk.choices
            if choice.logprobs
            for token in choice.logprobs.content
        ]

        assert [token.token for token in streamed] == [token.token for token in content]
        assert [token.logprob for token in streamed] == pytest.approx([token.logprob for token in content], abs=1e-3)

    def test_of_a_completion_are_the_models_own(self, wide: ModelClient, checkpoint: Any, tokenizer: Any) -> None:
        import torch
        from transformers import AutoModelForCausalLM

        logprobs = complete(wide, max_tokens=1, logprobs=5).choices[0].logprobs
        with torch.inference_mode():
            logits = AutoModelForCausalLM.from_pretrained(checkpoint)(**tokenizer(PROMPT, return_tensors="pt")).logits[0, -1]
        best = torch.log_softmax(logits.float(), -1).topk(5)

        assert logprobs.token_logprobs == pytest.approx([best.values[0].item()], abs=1e-3)
        assert sorted(logprobs.top_logprobs[0].values(), reverse=True) == pytest.approx(best.values.tolist(), abs=1e-3)
        assert logprobs.text_offset == [0]

    def test_stop_strings_cut_them_off(self, wide: ModelClient) -> None:
        text = complete(wide, max_tokens=30).choices[0].text
        stop = text[len(text) // 2 :][:3]

        choice = complete(wide, max_tokens=30, stop=stop, logprobs=0).choices[0]

        assert all(offset < len(choice.text) for offset in choice.logprobs.text_offset)


class TestSteering:
    def test_a_bias_forces_a_token(self, client: ModelClient, tokenizer: Any) -> None:
        (token_id,) = tokenizer(" fox")["input_ids"]

        assert complete(client, max_tokens=4, logit_bias={str(token_id): 100}).choices[0].text == " fox" * 4

    def test_a_bias_forbids_a_token(self, client: ModelClient, generate: Any, tokenizer: Any) -> None:
        first = generate(PROMPT, 40)[0]
        text = tokenizer.decode([first])

        assert complete(client, max_tokens=1, logit_bias={str(first): -100}).choices[0].text != text

    @pytest.mark.parametrize("penalty", [{"repetition_penalty": 1.8}, {"presence_penalty": 2}, {"frequency_penalty": 2}])
    def test_a_penalty_makes_an_answer_more_varied(self, client: ModelClient, tokenizer: Any, penalty: dict[str, float]) -> None:
        def num_different(**options: Any) -> int:
            return len(set(tokenizer(complete(client, max_tokens=60, ignore_eos=True, **options).choices[0].text)["input_ids"]))

        assert num_different(**penalty) >= num_different()

    def test_a_minimum_keeps_an_answer_going(self, client: ModelClient, tokenizer: Any) -> None:
        end = {str(tokenizer.eos_token_id): 100}

        assert complete(client, max_tokens=12, logit_bias=end).usage.completion_tokens == 1
        answer = complete(client, max_tokens=12, logit_bias=end, min_tokens=7)
        assert (answer.usage.completion_tokens, answer.choices[0].finish_reason) == (8, "stop")

    def test_a_high_min_p_is_greedy(self, client: ModelClient) -> None:
        options: Any = {"max_tokens": 20, "temperature": 1.5, "min_p": 1.0, "seed": 3}
        assert complete(client, **options).choices[0].text == complete(client, max_tokens=20).choices[0].text

    @pytest.mark.parametrize(
        ("options", "param"),
        [
            ({"n": 17}, "n"),
            ({"logprobs": 21}, "logprobs"),
            ({"presence_penalty": 3}, "presence_penalty"),
            ({"logit_bias": {"99999999": 1}}, "logit_bias"),
            ({"min_tokens": 5, "max_tokens": 4}, "min_tokens"),
        ],
    )
    def test_what_is_out_of_range_is_refused_by_name(self, client: ModelClient, options: dict[str, Any], param: str) -> None:
        with pytest.raises(openai.BadRequestError) as refusal:
            complete(client, **options)
        assert refusal.value.param == param


class TestQueueing:
    @pytest.mark.parametrize("stream", [False, True])
    def test_who_waits_too_long_is_told_so(self, client_of: ClientOf, stream: bool) -> None:
        """Two run and two wait; the status has gone out long before, so the error stands in the body."""
        body = {"prompt": PROMPT, "max_tokens": 600, "ignore_eos": True, "max_queue_s": 0.02, "stream": stream}

        bodies = at_once(lambda _: client_of("narrow").post(body).text, range(4))

        assert sorted('"code":"queue_timeout"' in text for text in bodies) == [False, False, True, True]
        assert sum('"finish_reason":"length"' in text for text in bodies) == 2

    def test_a_prompt_that_was_read_before_is_cached(self, wide: ModelClient, server: TorchServe) -> None:
        prompt = "a story that is told again and again " * 8
        first = complete(wide, prompt=prompt, max_tokens=2)
        again = complete(wide, prompt=prompt, max_tokens=2)

        assert again.choices[0].text == first.choices[0].text
        assert again.usage.prompt_tokens_details.cached_tokens > 0.5 * first.usage.prompt_tokens
        wait_until(lambda: counter(server, "marquee_prefix_hit_ratio", wide.model) > 0)
        assert counter(server, "marquee_kv_blocks", wide.model) > 0
