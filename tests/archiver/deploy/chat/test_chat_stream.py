"""From bytes to pieces of text."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from archiver.deploy.chat.stream import ChatError, Chunk, error_from, read_chunks


def event(data: object) -> bytes:
    return b"data: " + json.dumps(data, ensure_ascii=False).encode() + b"\n\n"


def piece(text: str) -> bytes:
    return event({"choices": [{"index": 0, "delta": {"content": text}, "finish_reason": None}]})


DONE = b"data: [DONE]\n\n"
ANSWER = (
    event({"choices": [{"index": 0, "delta": {"role": "assistant", "content": ""}, "finish_reason": None}]})
    + piece("Grüße,\u2028")
    + b": a comment\r\n\r\n"
    + piece("Welt")
    + event({"choices": [{"index": 0, "delta": {}, "finish_reason": "stop"}]})
    + event({"choices": [], "usage": {"prompt_tokens": 5, "completion_tokens": 4, "total_tokens": 9}})
    + DONE
)


@given(st.lists(st.integers(0, len(ANSWER)), max_size=8))
def test_pieces_are_the_same_wherever_the_network_cuts(cuts):
    edges = [0, *sorted(cuts), len(ANSWER)]
    received = [ANSWER[start:end] for start, end in zip(edges, edges[1:], strict=False)]
    assert list(read_chunks(received)) == [
        Chunk(""),
        Chunk("Grüße,\u2028"),
        Chunk("Welt"),
        Chunk(finish_reason="stop"),
        Chunk(num_prompt_tokens=5, num_tokens=4),
    ]


def test_an_answer_without_its_end_is_broken_off():
    chunks = read_chunks([piece("Hel")])
    assert next(chunks).text == "Hel"
    with pytest.raises(ChatError, match="broke the answer off"):
        next(chunks)


def test_an_error_in_the_stream_is_raised_with_its_code():
    with pytest.raises(ChatError, match="^the engine failed$") as error:
        list(read_chunks([event({"error": {"message": "the engine\nfailed", "code": "engine_failed"}}), DONE]))
    assert error.value.code == "engine_failed"


@pytest.mark.parametrize("data", [b"nonsense", b"[]", b"3", b'{"choices": 7}', b'{"choices": [{"delta": []}]}', b'{"text": "x"}'])
def test_what_is_no_chat_completion_is_said_to_be_none(data):
    with pytest.raises(ChatError, match="what the server streams is no chat completion: "):
        list(read_chunks([b"data: " + data + b"\n"]))


@pytest.mark.parametrize(
    ("body", "message"),
    [
        (b'{"error": {"message": "temperature: too hot", "code": null}}', "temperature: too hot"),
        (b'{"code": 404, "type": "ModelNotFoundException", "message": "Model not found: x"}', "Model not found: x"),
        (b"<html>\nBad gateway\x1b[2J</html>", "the server answers HTTP 502: <html> Bad gateway[2J</html>"),
        (b"", "the server answers HTTP 502: nothing more"),
        (b'{"error": "no"}', 'the server answers HTTP 502: {"error": "no"}'),
    ],
)
def test_a_refusal_is_one_line(body, message):
    assert str(error_from(body, 502)) == message
