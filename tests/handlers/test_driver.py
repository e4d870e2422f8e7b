"""The driver's rules, one by one: what each step answers, and what it tells the engine."""

from __future__ import annotations

import json
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from handlers.driver import Cadence
from handlers.engine.client import Event
from handlers.errors import SHUTTING_DOWN, InvalidRequest, Overloaded, RequestError
from handlers.frontend import Incoming
from handlers.hooks import HandlerHooks
from handlers.requests import Delta, Request, SamplingParams
from handlers.wire.completions import CompletionCodec, CompletionStream
from tests.contract.clients import wait_until
from tests.fakes import every_refusal, parse_events
from tests.handlers.driver_rig import NEVER, ROUTE, Rig, shown, texts, usage


@pytest.fixture
def rig() -> Rig:
    return Rig()


class TestAnswers:
    @pytest.mark.parametrize(("stream", "content_type"), [(False, "application/json"), (True, "text/event-stream")])
    def test_the_first_message_is_empty_and_more_follows(self, rig: Rig, stream: bool, content_type: str) -> None:
        rig.engine.say("a", "x", "stop")

        reply = rig.admit(stream=stream)

        assert (reply.body, reply.more, reply.status, reply.content_type) == (b"", True, 200, content_type)

    def test_the_engine_gets_the_prompt_and_the_parameters(self, rig: Rig) -> None:
        rig.admit(temperature=0.5, max_tokens=3)

        assert rig.engine.added == {"a": (list(map(ord, "hi")), SamplingParams(max_tokens=3, temperature=0.5))}

    def test_a_plain_answer_comes_whole(self, rig: Rig) -> None:
        rig.admit()
        rig.engine.say("a", "one ")
        assert rig.reply().body == b""
        rig.engine.say("a", "two", "length")

        reply = rig.reply()

        answer = json.loads(reply.body)
        assert reply.more is False
        assert (answer["choices"][0]["text"], answer["choices"][0]["finish_reason"]) == ("one two", "length")
        assert answer["usage"] == usage(2, 7)

    def test_a_stream_comes_piece_by_piece(self, rig: Rig) -> None:
        rig.admit(stream=True)
        rig.engine.say("a", "one ")
        first = rig.reply()
        rig.engine.say("a", "two", "stop")
        last = rig.reply()

        assert (texts([first]), first.more) == ("one ", True)
        assert (texts([last]), last.more) == ("two", False)
        assert list(parse_events(last.body))[-1] == "[DONE]"

    def test_the_token_that_ended_the_sequence_counts_and_is_no_text(self, rig: Rig) -> None:
        rig.admit()
        rig.engine.say("a", "ab.", "stop", num_stop_tokens=1)

        answer = json.loads(rig.reply().body)

        assert (answer["choices"][0]["text"], answer["usage"]["completion_tokens"]) == ("ab", 3)

    @pytest.mark.parametrize("stream", [False, True])
    def test_an_author_may_answer_without_the_model(self, rig: Rig, stream: bool) -> None:
        seen: list[str] = []
        rig.handler.preprocess = lambda requests: requests[0].answer("from the cache")  # type: ignore[assignment,method-assign,return-value]
        rig.handler.postprocess = lambda requests: seen.append(requests[0].text)  # type: ignore[assignment,method-assign,return-value]

        reply = rig.admit(stream=stream)

        answer = texts([reply]) if stream else json.loads(reply.body)["choices"][0]["text"]
        assert (answer, reply.more, rig.engine.added, seen) == ("from the cache", None, {}, ["from the cache"])

    def test_everyone_gets_an_own_answer(self, rig: Rig) -> None:
        rig.admit("a", stream=True)
        rig.admit("b", "a", stream=True)
        rig.engine.say("b", "bbb", "stop")
        rig.engine.say("a", "aaa", "stop")

        to_b, to_a = rig.step("b", "a")

        assert to_a is not None and to_b is not None
        assert (texts([to_a]), texts([to_b])) == ("aaa", "bbb")


class TestPace:
    def test_a_request_without_news_gets_an_empty_message_now_and_then(self) -> None:
        rig = Rig(Cadence(flush_s=0.0, heartbeat_s=0.05, poll_s=0.0))
        rig.admit()
        assert rig.step("a") == [None]
        rig.driver._live["a"].exchange.last_sent_s -= 0.05

        heartbeat = rig.reply()

        assert (heartbeat.body, heartbeat.more) == (b"", True)
        assert rig.step("a") == [None]

    def test_text_is_sent_together_with_what_follows_within_the_flush_time_but_the_first_at_once(self) -> None:
        rig = Rig(Cadence(flush_s=3600.0, heartbeat_s=3600.0, poll_s=0.0))
        rig.admit(stream=True)
        rig.engine.say("a", "first ")
        assert texts([rig.reply()]) == "first "
        rig.engine.say("a", "one ")
        assert rig.step("a") == [None]
        rig.engine.say("a", "two")
        assert rig.step("a") == [None]
        rig.driver._live["a"].exchange.last_sent_s -= 3600.0

        assert texts([rig.reply()]) == "one two"

    def test_many_streams_get_fewer_messages(self) -> None:
        rig = Rig(Cadence(flush_s=0.0, message_s=3600.0, heartbeat_s=3600.0, poll_s=0.0))
        rig.admit(stream=True)
        rig.engine.say("a", "first ")
        rig.reply()
        rig.engine.say("a", "second")
        assert rig.step("a") == [None]

    def test_text_does_not_wait_for_the_heartbeat(self) -> None:
        rig = Rig(NEVER)
        rig.admit(stream=True)
        rig.engine.say("a", "now")

        assert texts([rig.reply()]) == "now"

    def test_a_plain_answer_waits_for_its_end_only(self) -> None:
        rig = Rig(NEVER)
        rig.admit()
        rig.engine.say("a", "now")
        assert rig.step("a") == [None]
        rig.engine.say("a", "", "stop")
        assert rig.reply().more is False


class TestDepartures:
    def test_a_request_that_vanished_is_cancelled_and_recorded(self, rig: Rig) -> None:
        rig.admit("a")
        rig.admit("b", "a")

        rig.step("b")

        assert rig.engine.cancelled == ["a"]
        assert [(request.id, request.finish_reason) for request in rig.recorded] == [("a", "cancelled")]

    def test_tokens_that_nobody_read_are_counted(self, rig: Rig) -> None:
        rig.admit("a", stream=True)
        rig.engine.say("a", "read")
        rig.step("a")
        rig.step("a")  # Only now is it known that the message before arrived.
        rig.engine.say("a", "wasted")
        rig.step("a")

        rig.step()

        (request,) = rig.recorded
        assert request.num_wasted_tokens == len("wasted")

    def test_tokens_generated_since_the_last_call_are_counted(self, rig: Rig) -> None:
        rig.admit("a", stream=True)
        rig.engine.say("a", "after everybody left")

        rig.step()

        (request,) = rig.recorded
        assert request.num_generated_tokens == request.num_wasted_tokens == len("after everybody left")

    def test_news_of_a_request_that_vanished_goes_nowhere(self, rig: Rig) -> None:
        rig.admit("a")
        rig.engine.say("a", "late", "stop")
        assert rig.step() == []
        rig.engine.say("a", "", "cancelled")
        assert rig.step() == []
        assert len(rig.recorded) == 1


class TestStopStrings:
    @pytest.mark.parametrize("stream", [False, True])
    def test_a_stop_string_ends_the_request_and_the_sequence(self, rig: Rig, stream: bool) -> None:
        rig.admit(stop="END", stream=stream, stream_options={"include_usage": True})
        rig.engine.say("a", "abcENDdef")

        reply = rig.reply()

        assert rig.engine.cancelled == ["a"]
        (request,) = rig.recorded
        assert (request.text, request.num_generated_tokens, request.finish_reason) == ("abc", 6, "stop")
        assert texts([reply]) == "abc" if stream else json.loads(reply.body)["usage"]["completion_tokens"] == 6

    def test_a_sequence_that_ended_anyway_is_not_cancelled(self, rig: Rig) -> None:
        rig.admit(stop="END")
        rig.engine.say("a", "abcEND", "length")

        assert json.loads(rig.reply().body)["choices"][0]["finish_reason"] == "stop"
        assert rig.engine.cancelled == []

    def test_a_beginning_that_never_became_a_stop_string_is_text(self, rig: Rig) -> None:
        rig.admit(stop="END", stream=True)
        rig.engine.say("a", "abcEN")
        first = rig.reply()
        rig.engine.say("a", "", "stop")

        assert (texts([first]), texts([rig.reply()])) == ("abc", "EN")


class TestRefusals:
    @pytest.mark.parametrize("error", every_refusal(), ids=lambda error: type(error).__name__)
    def test_what_the_engine_refuses_is_a_plain_response_with_its_status(self, rig: Rig, error: RequestError) -> None:
        rig.engine.refusal = error

        reply = rig.admit(stream=True)

        assert (reply.more, reply.status, reply.content_type) == (None, error.status, "application/json")
        assert json.loads(reply.body) == error.body()
        assert dict(reply.headers) == error.headers
        assert [request.error for request in rig.recorded] == [error]

    def test_a_full_engine_says_when_to_come_back(self, rig: Rig) -> None:
        rig.engine.refusal = Overloaded("full", retry_after_s=2)
        assert rig.admit().headers == {"Retry-After": "2"}

    @pytest.mark.parametrize(
        ("incoming", "status"),
        [
            (Incoming("a", ROUTE, b"{"), 400),
            (Incoming("a", ROUTE, b""), 400),
            (Incoming("a", ROUTE, None, headers={"content-length": "0"}), 400),
            (Incoming("a", ROUTE, None), 400),
            (Incoming("a", ROUTE, None, "application/x-www-form-urlencoded", {"content-length": "7"}), 400),
            (Incoming("a", ROUTE, None, "multipart/form-data; boundary=x", {"content-length": "7"}), 400),
            (Incoming("a", "v1/nothing", b"{}"), 404),
        ],
    )
    def test_what_cannot_be_read_never_reaches_the_engine(self, rig: Rig, incoming: Incoming, status: int) -> None:
        (reply,) = rig.step(incoming)

        assert reply is not None and (reply.status, reply.more) == (status, None)
        assert rig.engine.added == {} and len(rig.recorded) == 1

    def test_a_refusal_does_not_touch_the_neighbours(self, rig: Rig) -> None:
        rig.admit("a", stream=True)
        rig.engine.say("a", "fine")
        refused, fine = rig.step(Incoming("b", ROUTE, b"{"), shown("a"))

        assert refused is not None and refused.status == 400
        assert fine is not None and texts([fine]) == "fine"

    def test_a_request_handed_over_from_a_dead_worker_ends_in_two_messages(self, rig: Rig) -> None:
        (first,) = rig.step(shown("ghost"))
        (last,) = rig.step(shown("ghost"))

        assert first is not None and (first.body, first.more) == (b"", True)
        assert last is not None and last.more is False
        (event,) = parse_events(last.body)
        assert "restarted" in event["error"]["message"]
        assert [request.error.status for request in rig.recorded if request.error] == [503]
        assert rig.engine.added == {} and rig.driver._live == {}


class TestFailures:
    @pytest.mark.parametrize("hook", ["preprocess", "render", "inference"])
    def test_a_hook_that_raises_fails_its_request(self, rig: Rig, hook: str) -> None:
        setattr(rig.handler, hook, raise_secret)

        reply = rig.admit()

        assert (reply.status, reply.more) == (500, None)
        assert b"secret" not in reply.body and b"internal error" in reply.body

    def test_a_hook_may_refuse_with_an_error_of_its_own(self, rig: Rig) -> None:
        def refuse(requests: list[Request]) -> list[Request]:
            raise InvalidRequest("not about that", param="prompt")

        rig.handler.preprocess = refuse  # type: ignore[method-assign]
        reply = rig.admit()

        assert (reply.status, json.loads(reply.body)["error"]["param"]) == (400, "prompt")

    def test_an_engine_that_breaks_on_a_request_fails_it_alone(self, rig: Rig) -> None:
        rig.engine.refusal = RuntimeError("secret")
        reply = rig.admit("a")
        rig.engine.refusal = None

        assert reply.status == 500 and b"secret" not in reply.body
        assert rig.admit("b").status == 200

    @pytest.mark.parametrize("stream", [False, True])
    @pytest.mark.parametrize("hook", ["emit", "postprocess"])
    def test_a_later_hook_that_raises_fails_its_request_in_band(self, rig: Rig, hook: str, stream: bool) -> None:
        setattr(rig.handler, hook, raise_secret)
        rig.admit(stream=stream)
        rig.engine.say("a", "x", "stop")

        reply = rig.reply()

        body = next(parse_events(reply.body)) if stream else json.loads(reply.body)
        assert "internal error" in body["error"]["message"]
        assert reply.more is False and rig.driver._live == {}

    def test_a_request_that_failed_stops_its_sequence(self, rig: Rig) -> None:
        rig.handler.emit = raise_secret  # type: ignore[method-assign]
        rig.admit()
        rig.engine.say("a", "x")
        rig.step("a")

        assert rig.engine.cancelled == ["a"]

    @pytest.mark.parametrize("stream", [False, True])
    @pytest.mark.parametrize(
        ("reason", "error", "message"), [("error", "out of memory", "out of memory"), ("cancelled", None, "gave this request up")]
    )
    def test_the_engines_error_comes_in_band(self, rig: Rig, stream: bool, reason: str, error: str | None, message: str) -> None:
        rig.admit(stream=stream)
        rig.engine.say("a", "x", reason, error=error)

        reply = rig.reply()

        body = list(parse_events(reply.body))[-1] if stream else json.loads(reply.body)
        assert message in body["error"]["message"]
        assert (reply.more, reply.status) == (False, 200)

    def test_fields_that_are_no_json_fail_their_request_alone(self, rig: Rig) -> None:
        def add_field(requests: list[Request]) -> list[Request]:
            for request in requests:
                request.fields["x"] = {1} if request.id == "a" else 1
            return requests

        rig.handler.postprocess = add_field  # type: ignore[method-assign]
        rig.admit("a")
        rig.admit("b", "a")
        rig.engine.say("a", "x", "stop")
        rig.engine.say("b", "x", "stop")

        bad, good = rig.step("a", "b")

        assert bad is not None and "error" in json.loads(bad.body)
        assert good is not None and json.loads(good.body)["x"] == 1

    def test_a_stream_that_cannot_be_written_ends_with_an_error(self, rig: Rig) -> None:
        class Broken(CompletionCodec):
            def stream(self, choice: Request) -> CompletionStream:
                raise RuntimeError("secret")

        rig.driver._routes = {ROUTE: Broken("tiny", SamplingParams())}
        rig.admit(stream=True)
        rig.engine.say("a", "x")
        assert rig.reply().more

        last = rig.reply()

        (event,) = parse_events(last.body)
        assert "internal error" in event["error"]["message"] and last.more is False
        assert rig.engine.cancelled == ["a"]

    def test_a_record_that_raises_changes_nothing(self, rig: Rig) -> None:
        rig.handler.record = raise_secret  # type: ignore[method-assign]
        rig.admit("gone")
        assert rig.admit("a").status == 200
        rig.engine.say("a", "x", "stop")
        assert json.loads(rig.reply().body)["choices"][0]["text"] == "x"
        (refused,) = rig.step(Incoming("bad", ROUTE, b"{"))
        assert refused is not None and refused.status == 400

    def test_tokens_that_cannot_be_decoded_fail_their_request_alone(self, rig: Rig) -> None:
        rig.admit("a")
        rig.admit("b", "a")
        rig.engine.events.append(Event("a", token_ids=(-1,)))
        rig.engine.say("b", "fine", "stop")

        bad, good = rig.step("a", "b")

        assert bad is not None and "error" in json.loads(bad.body)
        assert good is not None and json.loads(good.body)["choices"][0]["text"] == "fine"
        assert rig.engine.cancelled == ["a"]

    def test_an_engine_that_cannot_be_asked_fails_everyone_in_band(self, rig: Rig) -> None:
        rig.admit("a")
        rig.admit("b", "a", stream=True)
        rig.engine.failure = ConnectionError("secret")

        replies = rig.step("a", "b")

        for reply in replies:
            assert reply is not None and reply.more is False
            assert b"engine" in reply.body and b"secret" not in reply.body
        rig.engine.failure = None
        assert rig.admit("c").status == 200


def raise_secret(*args: Any) -> Any:
    raise RuntimeError("secret")


class TestHooks:
    def test_the_author_sees_each_request_once_at_each_stage(self, rig: Rig) -> None:
        seen: list[str] = []

        def watch(name: str) -> Any:
            original = getattr(HandlerHooks, name)

            def hook(requests: list[Request]) -> Any:
                seen.extend(f"{name} {request.id} {request.text!r}" for request in requests)
                return original(rig.handler, requests)

            return hook

        for name in ("preprocess", "postprocess"):
            setattr(rig.handler, name, watch(name))
        rig.admit()
        rig.engine.say("a", "x")
        rig.step("a")
        rig.engine.say("a", "y", "stop")
        rig.step("a")

        assert seen == ["preprocess a ''", "postprocess a 'xy'"]

    def test_emit_changes_what_is_streamed_and_what_postprocess_sees(self, rig: Rig) -> None:
        original = rig.handler.emit
        rig.handler.emit = lambda request, delta: original(request, Delta(delta.text.upper()))  # type: ignore[method-assign]
        rig.admit(stream=True)
        rig.engine.say("a", "x", "stop")

        assert texts([rig.reply()]) == "X"
        assert rig.recorded[0].text == "X"

    def test_an_authors_refusal_ends_the_request_before_the_engine(self, rig: Rig) -> None:
        def refuse(requests: list[Request]) -> list[Request]:
            requests[0].fail(403, "not for you")
            return requests

        rig.handler.preprocess = refuse  # type: ignore[method-assign]
        reply = rig.admit()

        assert (reply.status, rig.engine.added) == (403, {})


class TestDraining:
    def test_waits_until_the_last_answer_is_handed_over(self, rig: Rig) -> None:
        rig.admit(stream=True)
        with ThreadPoolExecutor() as pool:
            drained = pool.submit(rig.driver.drain)
            rig.engine.say("a", "x", "stop")
            with pytest.raises(TimeoutError):
                drained.result(timeout=0.05)
            assert texts([rig.reply()]) == "x"
            assert drained.result(timeout=10) is True

    def test_what_nobody_takes_is_not_done(self, rig: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr("handlers.driver._LAST_WORDS_S", 0.01)
        rig.admit(stream=True)
        rig.engine.say("a", "x", "stop")
        assert rig.driver.drain(0.0) is False  # no step comes
        assert texts([rig.reply()]) == "x"
        assert rig.driver.drain(0.0) is True

    def test_what_is_not_done_in_time_ends_with_an_error(self, rig: Rig) -> None:
        rig.admit(stream=True)
        rig.engine.say("a", "x")
        rig.engine.is_done_in_time = False
        with ThreadPoolExecutor() as pool:
            drained = pool.submit(rig.driver.drain, 0.0)
            wait_until(lambda: len(rig.engine.events) == 2)
            reply = rig.reply()
            assert drained.result(timeout=10) is False

        assert reply.more is False
        *_, last = parse_events(reply.body)
        assert last["error"]["message"] == SHUTTING_DOWN
        assert rig.recorded[0].error is not None and rig.recorded[0].error.status == 503


def test_requests_are_recorded_once_each(rig: Rig) -> None:
    rig.admit("a")
    rig.step(Incoming("bad", ROUTE, b"{"), shown("a"))
    rig.admit("b", "a", max_tokens=5)
    rig.engine.say("a", "x", "stop")
    rig.step("a", "b")
    rig.step()

    fates = {request.id: request.finish_reason or str(request.error and request.error.status) for request in rig.recorded}
    assert fates == {"bad": "400", "a": "stop", "b": "cancelled"} and len(rig.recorded) == 3
