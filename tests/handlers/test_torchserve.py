"""The root of every handler: configuration, one batch at a time, and streaming when the batch is one."""

from __future__ import annotations

import json
import os
import threading
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from ts.context import Context, RequestProcessor
from ts.protocol import otf_message_handler

from handlers import BatchedCausalLMHandler, CausalLMHandler, Delta, Request
from handlers.config import HandlerConfig
from handlers.control_socket import send_command
from handlers.errors import ConfigError
from handlers.gate import Gate
from handlers.torchserve import check_frontend_mode
from handlers.worker_directory import control_socket, worker_directory
from tests.contract.clients import wait_until
from tests.fakes import keep_worker, make_context, parse_events, parse_response

CHAT, COMPLETIONS, BARE = "v1/chat/completions", "v1/completions", ""
GREEDY = {"temperature": 0, "max_tokens": 8}


@pytest.fixture(autouse=True)
def unchanged_worker(monkeypatch: pytest.MonkeyPatch) -> None:
    """What ``initialize`` changes in the process is changed back."""
    keep_worker(monkeypatch)


class Served:
    """A loaded synchronous handler and its context."""

    def __init__(self, handler: type[BatchedCausalLMHandler], model_dir: Path, name: str = "tiny") -> None:
        self.context: Context = make_context(handler, model_dir, name=name)
        self.handler = handler()
        self.handler.initialize(self.context)

    def send(self, *requests: tuple[str, Any]) -> list[Any]:
        """Return the frontend's view of the answers to one batch of (route, body)."""
        self.context.request_ids = {index: f"r{index}" for index in range(len(requests))}
        part = {"content-type": "application/json"}
        self.context.request_processor = [
            RequestProcessor({"url_path": route, "Content-Length": "9", "body": part}) for route, _ in requests
        ]
        data = [{"body": bytearray(body if isinstance(body, bytes) else json.dumps(body).encode())} for _, body in requests]
        bodies = self.handler.handle(data, self.context)
        message = otf_message_handler.create_predict_response(bodies, self.context.request_ids, "", 200, context=self.context)
        return parse_response(bytes(message))


@pytest.fixture(scope="module")
def loaded(model_dir: Path) -> Iterator[Served]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(otf_message_handler, "_retrieve_buffer", otf_message_handler._retrieve_buffer)
        patch.setattr("logging.root.filters", [])
        patch.setenv("TS_DECODE_INPUT_REQUEST", "true")
        yield Served(BatchedCausalLMHandler, model_dir)


@pytest.fixture
def served(loaded: Served) -> Iterator[Served]:
    """The loaded handler, with whatever hooks a test replaced taken away afterwards."""
    before = dict(loaded.handler.__dict__)
    yield loaded
    loaded.handler.__dict__.clear()
    loaded.handler.__dict__.update(before)


class TestFrontendMode:
    @pytest.mark.parametrize(
        ("handler", "keys", "line"),
        [
            (CausalLMHandler, {}, "continuousBatching: true"),
            (CausalLMHandler, {"continuousBatching": False}, "continuousBatching: true"),
            (CausalLMHandler, {"continuousBatching": True, "asyncCommunication": True}, "asyncCommunication: false"),
            (BatchedCausalLMHandler, {"continuousBatching": True}, "continuousBatching: false"),
            (BatchedCausalLMHandler, {"asyncCommunication": True}, "asyncCommunication: false"),
            (CausalLMHandler, {"continuousBatching": True, "minWorkers": 2, "maxWorkers": 2}, "maxWorkers: 1"),
            (CausalLMHandler, {"continuousBatching": True}, "batchSize: 2112"),
            (CausalLMHandler, {"continuousBatching": True, "batchSize": 2111}, "batchSize: 2112"),
        ],
    )
    def test_another_mode_is_refused_with_the_line_to_write(self, handler: Any, keys: dict[str, Any], line: str) -> None:
        with pytest.raises(ConfigError, match=f"{handler.__name__} .*'{line}'"):
            check_frontend_mode(handler, keys, HandlerConfig())

    @pytest.mark.parametrize("handler", [CausalLMHandler, BatchedCausalLMHandler])
    def test_the_keys_that_a_class_asks_for_are_accepted(self, handler: Any) -> None:
        check_frontend_mode(handler, handler.frontend_keys(HandlerConfig()), HandlerConfig())

    def test_a_static_handler_may_have_many_workers(self) -> None:
        check_frontend_mode(BatchedCausalLMHandler, {"minWorkers": 4, "maxWorkers": 4}, HandlerConfig())

    def test_the_batch_of_a_continuous_handler_holds_who_runs_and_who_waits(self) -> None:
        keys = CausalLMHandler.frontend_keys(HandlerConfig())
        assert keys["batchSize"] >= 64 + 192
        assert (keys["continuousBatching"], keys["minWorkers"], keys["maxWorkers"]) == (True, 1, 1)


class TestInitialize:
    def test_the_mode_is_checked_before_anything_is_loaded(self, tmp_path: Path) -> None:
        with pytest.raises(ConfigError, match="continuousBatching"):
            CausalLMHandler().initialize(make_context(CausalLMHandler, tmp_path, continuousBatching=False))

    def test_a_wrong_key_is_named(self, tmp_path: Path) -> None:
        context = make_context(BatchedCausalLMHandler, tmp_path, handler={"engin": {}})
        with pytest.raises(ConfigError, match=r"handler\.engin: unknown key"):
            BatchedCausalLMHandler().initialize(context)

    def test_an_archive_without_hashes_may_be_refused(self, model_dir: Path) -> None:
        context = make_context(BatchedCausalLMHandler, model_dir, handler={"integrity": "required"})
        with pytest.raises(ConfigError):
            BatchedCausalLMHandler().initialize(context)

    def test_bodies_are_delivered_as_they_came(self, model_dir: Path) -> None:
        Served(BatchedCausalLMHandler, model_dir)
        assert os.environ["TS_DECODE_INPUT_REQUEST"] == "false"

    def test_describe_names_the_handler_and_the_model(self, served: Served) -> None:
        told = served.handler.describe()
        assert told.pop("weight_bytes") > 0
        assert told == {"handler": "BatchedCausalLMHandler", "model": "tiny", "version": "1.0", "weights": "plain"}

    def test_describe_is_answered_to_the_management_api(self, served: Served) -> None:
        served.context.request_ids = {0: "r0"}
        served.context.request_processor = [RequestProcessor({"describe": "True"})]
        (body,) = served.handler.handle([{}], served.context)
        assert json.loads(body) == served.handler.describe()


class TestBatch:
    def test_good_and_bad_requests_are_answered_each_alone(self, served: Served) -> None:
        chat, many, broken, route, text, models = served.send(
            (CHAT, {"messages": [{"role": "user", "content": "hello"}], **GREEDY}),
            (COMPLETIONS, {"prompt": ["x", "y"], "n": 2, **GREEDY}),
            (COMPLETIONS, b"{"),
            ("v1/nothing", b"{}"),
            (BARE, {"inputs": "x", "parameters": {"max_new_tokens": 3}}),
            ("v1/models", b""),
        )

        assert [reply.status for reply in (chat, many, broken, route, text, models)] == [200, 200, 400, 404, 200, 200]
        assert json.loads(chat.body)["usage"]["completion_tokens"] == 8
        assert [choice["index"] for choice in json.loads(many.body)["choices"]] == [0, 1, 2, 3]
        assert json.loads(many.body)["usage"]["completion_tokens"] == 32
        assert json.loads(text.body)[0]["details"]["generated_tokens"] == 3
        assert json.loads(models.body)["data"][0]["id"] == "tiny"
        assert all("ts_stream_next" not in reply.headers for reply in (chat, many, broken, route, text, models))

    def test_a_neighbour_changes_nothing(self, served: Served) -> None:
        body = (COMPLETIONS, {"prompt": "the quick", **GREEDY})
        (alone,) = served.send(body)
        together = served.send((COMPLETIONS, {"prompt": "a much longer prompt than that", **GREEDY}), body, (COMPLETIONS, {"prompt": ""}))

        assert json.loads(together[1].body)["choices"] == json.loads(alone.body)["choices"]
        assert together[2].status == 400

    @pytest.mark.parametrize(
        "body",
        [
            {"prompt": [10**6], **GREEDY},
            {"prompt": "x", "max_tokens": 10**9},
            {"prompt": "word " * 500, "max_tokens": 1},
            {"prompt": "x" * 10**6, "max_tokens": 1},
        ],
    )
    def test_what_does_not_fit_the_model_is_the_clients_mistake(self, served: Served, body: dict[str, Any]) -> None:
        bad, good = served.send((COMPLETIONS, body), (COMPLETIONS, {"prompt": "fine", **GREEDY}))

        assert (bad.status, good.status) == (400, 200)

    def test_one_prompt_that_is_refused_takes_the_clients_others_with_it(self, served: Served) -> None:
        seen: list[Request] = []
        served.handler.postprocess = lambda requests: seen.extend(requests)  # type: ignore[assignment,method-assign,return-value]

        bad, good = served.send((COMPLETIONS, {"prompt": ["x", ""], "n": 2, **GREEDY}), (COMPLETIONS, {"prompt": "fine", **GREEDY}))

        assert (bad.status, good.status) == (400, 200)
        assert [request.id for request in seen] == ["r1"]

    def test_a_stream_in_a_batch_of_many_comes_at_once(self, served: Served) -> None:
        plain, streamed = served.send((COMPLETIONS, {"prompt": "x", **GREEDY}), (COMPLETIONS, {"prompt": "x", "stream": True, **GREEDY}))

        events = list(parse_events(streamed.body))
        assert events[-1] == "[DONE]" and streamed.headers["content-type"] == "text/event-stream"
        assert "".join(event["choices"][0]["text"] for event in events[:-1]) == json.loads(plain.body)["choices"][0]["text"]

    def test_stop_strings_end_a_row(self, served: Served) -> None:
        (whole,) = served.send((COMPLETIONS, {"prompt": "the fox", **GREEDY}))
        text = json.loads(whole.body)["choices"][0]["text"]
        stop = text[3:5]

        (cut,) = served.send((COMPLETIONS, {"prompt": "the fox", "stop": stop, **GREEDY}))

        answer = json.loads(cut.body)
        assert (answer["choices"][0]["text"], answer["choices"][0]["finish_reason"]) == (text[: text.find(stop)], "stop")
        assert answer["usage"]["completion_tokens"] < 8

    def test_a_hook_that_raises_is_a_500_and_the_next_batch_is_served(self, served: Served) -> None:
        def fail(requests: list[Request]) -> list[Request]:
            raise RuntimeError("secret")

        served.handler.preprocess = fail  # type: ignore[method-assign]
        (reply,) = served.send((COMPLETIONS, {"prompt": "x", **GREEDY}))
        assert reply.status == 500 and b"secret" not in reply.body
        del served.handler.preprocess
        assert served.send((COMPLETIONS, {"prompt": "x", **GREEDY}))[0].status == 200

    def test_an_emit_that_raises_fails_its_row_alone(self, served: Served) -> None:
        emit = served.handler.emit

        def fail_first(request: Request, delta: Delta) -> None:
            if request.id == "r0":
                raise RuntimeError
            emit(request, delta)

        served.handler.emit = fail_first  # type: ignore[method-assign]
        bad, good = served.send(*[(COMPLETIONS, {"prompt": "x", **GREEDY})] * 2)
        assert (bad.status, good.status) == (500, 200)

    def test_a_record_that_raises_changes_nothing(self, served: Served) -> None:
        def fail(request: Request) -> None:
            raise RuntimeError

        served.handler.record = fail  # type: ignore[method-assign]
        assert served.send((COMPLETIONS, {"prompt": "x", **GREEDY}))[0].status == 200

    def test_every_request_is_recorded_once(self, served: Served) -> None:
        recorded: list[Request] = []
        served.handler.record = recorded.append  # type: ignore[method-assign]

        served.send((COMPLETIONS, {"prompt": "x", **GREEDY}), (COMPLETIONS, b"{"), ("v1/models", b""))

        assert [request.id for request in recorded] == ["r0", "r1", "r2"]


class TestStreamAtOnce:
    """A batch of one is streamed through the worker's socket while ``handle`` runs."""

    @pytest.fixture
    def sent(self, served: Served) -> list[Any]:
        messages: list[Any] = []
        served.context.cl_socket = SimpleNamespace(sendall=lambda data: messages.extend(parse_response(bytes(data))))
        return messages

    def test_pieces_go_out_one_by_one(self, served: Served, sent: list[Any]) -> None:
        body = {"prompt": "the fox", **GREEDY}
        (last,) = served.send((COMPLETIONS, body | {"stream": True, "stream_options": {"include_usage": True}}))

        assert len(sent) > 1
        assert {message.headers["ts_stream_next"] for message in sent} == {"true"}
        assert last.headers["ts_stream_next"] == "false"
        assert {message.headers["content-type"] for message in (*sent, last)} == {"text/event-stream"}
        *events, done = parse_events(b"".join(message.body for message in (*sent, last)))
        (plain,) = served.send((COMPLETIONS, body))
        assert done == "[DONE]"
        assert "".join(choice["text"] for event in events for choice in event["choices"]) == json.loads(plain.body)["choices"][0]["text"]
        assert events[-1]["usage"] == json.loads(plain.body)["usage"]

    def test_an_error_in_the_middle_is_an_event(self, served: Served, sent: list[Any]) -> None:
        emit = served.handler.emit

        def fail_later(request: Request, delta: Delta) -> None:
            if request.text:
                raise RuntimeError("secret")
            emit(request, delta)

        served.handler.emit = fail_later  # type: ignore[method-assign]
        (last,) = served.send((COMPLETIONS, {"prompt": "the fox", "stream": True, **GREEDY}))

        assert len(sent) == 1 and last.headers["ts_stream_next"] == "false"
        (event,) = parse_events(last.body)
        assert "internal error" in event["error"]["message"]

    def test_an_error_before_the_first_piece_has_its_status(self, served: Served, sent: list[Any]) -> None:
        (reply,) = served.send((COMPLETIONS, {"prompt": "", "stream": True}))

        assert (sent, reply.status) == ([], 400)
        assert "ts_stream_next" not in reply.headers

    def test_a_plain_request_sends_nothing_ahead(self, served: Served, sent: list[Any]) -> None:
        (reply,) = served.send((COMPLETIONS, {"prompt": "x", **GREEDY}))

        assert (sent, reply.status) == ([], 200)


class TestOrders:
    """What an operator may tell a synchronous worker."""

    def test_a_draining_worker_refuses_what_comes(self, served: Served) -> None:
        served.handler._gate = Gate()
        assert served.handler._gate.drain(timeout_s=0)
        (reply,) = served.send((COMPLETIONS, {"prompt": "fox"} | GREEDY))
        assert (reply.status, reply.headers["Retry-After"]) == (503, "1")
        assert b"shutting down" in reply.body

    def test_a_client_cannot_ask_for_a_description(self, served: Served) -> None:
        served.context.request_ids = {0: "r0"}
        served.context.request_processor = [RequestProcessor({"url_path": COMPLETIONS, "describe": "True"})]
        (body,) = served.handler.handle([{"body": b"{}"}], served.context)
        assert b"error" in body and b"handler" not in body

    def test_it_listens_in_a_directory_of_the_model(self, model_dir: Path) -> None:
        served = Served(BatchedCausalLMHandler, model_dir, "ordered")
        path = control_socket(worker_directory(os.getppid(), "ordered", "1.0"), os.getpid())
        assert send_command(path, "describe") == {"working": False, "draining": False, "parked": False}
        send_command(path, "park", timeout_s=30)
        description = threading.Thread(target=lambda: served.handler.handle([{}], describe_context(served)))
        description.start()
        wait_until(lambda: send_command(path, "describe")["parked"])
        send_command(path, "unpark")
        description.join(10)
        assert not description.is_alive()
        served.handler.close()
        assert not path.exists()


def describe_context(served: Served) -> Context:
    served.context.request_processor = [RequestProcessor({"describe": "True"})]
    return served.context
