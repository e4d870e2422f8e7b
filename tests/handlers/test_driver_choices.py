"""Several choices of one client: one answer, one admission, one end; and what a choice brings besides its text."""

from __future__ import annotations

import json
from typing import Any

import pytest

from handlers.engine.client import Start
from handlers.errors import Overloaded
from handlers.frontend import Reply
from handlers.requests import Request, TokenLogprob
from tests.fakes import parse_events
from tests.handlers.driver_rig import NEVER, Rig, usage


@pytest.fixture
def rig() -> Rig:
    return Rig()


def texts_by_index(*replies: Reply) -> dict[int, str]:
    """Return what each choice of a stream says."""
    texts: dict[int, str] = {}
    for reply in replies:
        for event in parse_events(reply.body):
            for choice in event["choices"] if event != "[DONE]" else []:
                texts[choice["index"]] = texts.get(choice["index"], "") + choice["text"]
    return texts


class TestSeveralChoices:
    def test_the_engine_gets_one_sequence_a_choice_back_to_back(self, rig: Rig) -> None:
        rig.admit(n=3, seed=7)

        assert list(rig.engine.added) == ["a", "a#1", "a#2"]
        assert [params.seed for _, params in rig.engine.added.values()] == [7, 8, 9]
        assert len({tuple(token_ids) for token_ids, _ in rig.engine.added.values()}) == 1

    def test_refused_prompts_are_one_request(self, rig: Rig) -> None:
        rig.handler.preprocess = lambda requests: [request.fail(403, "no") for request in requests]  # type: ignore[method-assign, func-returns-value, misc]
        rig.admit(prompt=["one", "two", "three"], n=2)

        assert [request.index for request in rig.recorded] == [0, 2, 4]

    def test_the_answer_waits_for_the_last_choice(self, rig: Rig) -> None:
        rig.admit(n=2)
        rig.engine.say("a#1", "second", "length")
        assert rig.reply().more
        rig.engine.say("a", "first", "stop")

        answer = json.loads(rig.reply().body)

        choices = [(choice["index"], choice["text"], choice["finish_reason"]) for choice in answer["choices"]]
        assert choices == [(0, "first", "stop"), (1, "second", "length")]
        assert answer["usage"] == usage(2, 11)

    def test_a_stream_tells_them_apart(self, rig: Rig) -> None:
        rig.admit(n=2, stream=True)
        rig.engine.say("a", "one ")
        rig.engine.say("a#1", "uno ")
        first = rig.reply()
        rig.engine.say("a", "two", "stop")
        rig.engine.say("a#1", "due", "stop")
        last = rig.reply()

        assert texts_by_index(first, last) == {0: "one two", 1: "uno due"}
        assert (first.more, last.more) == (True, False)
        assert last.body.count(b"[DONE]") == 1

    def test_the_end_of_a_choice_does_not_wait_for_the_heartbeat(self) -> None:
        rig = Rig(NEVER)
        rig.admit(n=2, stream=True)
        rig.engine.say("a#1", "", "stop")

        assert b'"finish_reason":"stop"' in rig.reply().body

    def test_a_choice_that_met_its_stop_string_is_cancelled_while_the_other_goes_on(self, rig: Rig) -> None:
        rig.admit(n=2, stop="END")
        rig.engine.say("a", "xEND")
        rig.step("a")

        assert rig.engine.cancelled == ["a"]
        rig.engine.say("a#1", "y", "length")
        answer = json.loads(rig.reply().body)
        assert [choice["text"] for choice in answer["choices"]] == ["x", "y"]
        assert rig.engine.cancelled == ["a"]

    def test_prompts_are_counted_through(self, rig: Rig) -> None:
        rig.admit(prompt=["hi", "you"], n=2)
        for name in ("a", "a#1", "a#2", "a#3"):
            rig.engine.say(name, name, "stop")

        answer = json.loads(rig.reply().body)

        assert [choice["text"] for choice in answer["choices"]] == ["a", "a#1", "a#2", "a#3"]
        assert answer["usage"] == usage(5, 10)
        assert ["".join(map(chr, token_ids)) for token_ids, _ in rig.engine.added.values()] == ["hi", "hi", "you", "you"]

    def test_one_that_is_refused_takes_the_others_with_it(self, rig: Rig) -> None:
        rig.engine.refusal, rig.engine.room = Overloaded("full", retry_after_s=2), 2

        reply = rig.admit(n=3)

        assert (reply.status, reply.more, reply.headers) == (429, None, {"Retry-After": "2"})
        assert set(rig.engine.added) == {"a", "a#1"} <= set(rig.engine.cancelled)
        assert len(rig.recorded) == 3 and rig.driver._live == {} == rig.driver._choices

    @pytest.mark.parametrize("stream", [False, True])
    def test_one_that_fails_ends_the_others(self, rig: Rig, stream: bool) -> None:
        rig.admit(n=3, stream=stream)
        rig.engine.say("a", "fine", "stop")
        rig.engine.say("a#1", "x", "error", error="out of memory")

        reply = rig.reply()

        body = list(parse_events(reply.body))[-1] if stream else json.loads(reply.body)
        assert "out of memory" in body["error"]["message"] and reply.more is False
        assert rig.engine.cancelled == ["a#2"]
        assert [request.error is not None for request in rig.recorded] == [True] * 3

    def test_a_client_that_left_cancels_all(self, rig: Rig) -> None:
        rig.admit(n=2)
        rig.engine.say("a", "abc")
        rig.engine.say("a#1", "de")

        rig.step()

        assert rig.engine.cancelled == ["a", "a#1"]
        assert [(request.finish_reason, request.num_wasted_tokens) for request in rig.recorded] == [("cancelled", 5), ("cancelled", 0)]

    def test_the_author_sees_every_choice_as_a_request(self, rig: Rig) -> None:
        seen: list[tuple[int, str]] = []

        def shout(requests: list[Request]) -> list[Request]:
            for request in requests:
                request.text += f"!{request.extra['note']}"
                seen.append((request.index, request.text))
            return requests

        def note(requests: list[Request]) -> list[Request]:
            requests[0].extra["note"] = "n"
            return requests

        rig.handler.preprocess, rig.handler.postprocess = note, shout  # type: ignore[method-assign]
        rig.admit(n=2)
        rig.engine.say("a", "x", "stop")
        rig.engine.say("a#1", "y", "stop")

        assert [choice["text"] for choice in json.loads(rig.reply().body)["choices"]] == ["x!n", "y!n"]
        assert seen == [(0, "x!n"), (1, "y!n")]

    def test_an_answer_without_the_model_is_given_for_every_choice(self, rig: Rig) -> None:
        rig.handler.preprocess = lambda requests: requests[0].answer("known")  # type: ignore[assignment,method-assign,return-value]

        answer = json.loads(rig.admit(n=2).body)

        assert [choice["text"] for choice in answer["choices"]] == ["known", "known"] and rig.engine.added == {}


class TestQueueing:
    def test_priority_and_patience_reach_the_engine(self, rig: Rig) -> None:
        rig.admit(priority=-3, max_queue_s=1.5)
        assert rig.engine.queueing == {"a": (-3, 1.5)}

    @pytest.mark.parametrize("stream", [False, True])
    def test_one_that_waited_too_long_is_told_so(self, rig: Rig, stream: bool) -> None:
        rig.admit(stream=stream)
        rig.engine.say("a", "", "expired")

        reply = rig.reply()

        error = (next(parse_events(reply.body)) if stream else json.loads(reply.body))["error"]
        assert (error["type"], error["code"]) == ("rate_limit_error", "queue_timeout")

    def test_cached_tokens_are_the_prompts(self, rig: Rig) -> None:
        rig.admit(n=2)
        for name, cached in (("a", 1), ("a#1", 2)):
            rig.engine.say(name, "x", "stop", start=Start(queue_s=0.25, num_cached_tokens=cached))

        assert json.loads(rig.reply().body)["usage"] == usage(2, 2, cached=1)
        assert [request.num_cached_tokens for request in rig.recorded] == [1, 2]


class TestLogprobs:
    @staticmethod
    def said(text: str) -> tuple[TokenLogprob, ...]:
        return tuple(TokenLogprob(ord(char), -1.0, ((ord(char), -1.0), (ord("?"), -3.0))) for char in text)

    def test_tokens_come_with_the_answer_without_the_stop_string(self, rig: Rig) -> None:
        rig.admit(logprobs=2, stop="EN")
        rig.engine.say("a", "abEND", None, logprobs=self.said("abEND"))

        (choice,) = json.loads(rig.reply().body)["choices"]

        assert choice["logprobs"] == {
            "tokens": ["a", "b"],
            "token_logprobs": [-1.0, -1.0],
            "top_logprobs": [{"?": -3.0, "a": -1.0}, {"?": -3.0, "b": -1.0}],
            "text_offset": [0, 1],
        }

    def test_a_stream_brings_each_token_with_its_text(self, rig: Rig) -> None:
        rig.admit(logprobs=0, stop="bx", stream=True)
        sent: list[tuple[str, Any]] = []
        for text, reason in (("ab", None), ("c", None), (".", "stop")):
            rig.engine.say("a", text, reason, num_stop_tokens=int(reason is not None), logprobs=self.said(text))
            sent += [event["choices"][0] for event in parse_events(rig.reply().body) if event != "[DONE]"]

        pieces = [(piece["text"], piece["logprobs"] and piece["logprobs"]["tokens"]) for piece in sent]
        assert pieces == [("a", ["a"]), ("bc", ["b", "c"]), ("", None)]
