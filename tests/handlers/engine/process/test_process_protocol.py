"""Every message arrives as it was sent, however the stream is torn."""

from __future__ import annotations

import math
from dataclasses import asdict

from hypothesis import given, settings
from hypothesis import strategies as st

from handlers.config import HandlerConfig
from handlers.engine.admission import EngineLimits
from handlers.engine.client import EngineStats, Event, Start
from handlers.engine.process.protocol import Add, Cancel, Events, Hello, Load, LoadFailed, Message, Report, Watch, encode, message_reader
from handlers.requests import SamplingParams, TokenLogprob

token_ids = st.integers(0, 2**31 - 1)
floats = st.floats(allow_nan=False)
texts = st.text(st.characters(), max_size=20)  # lone surrogates among them: JSON from a client may hold them
pairs = st.tuples(token_ids, floats)

params = st.builds(
    SamplingParams,
    max_tokens=st.none() | st.integers(1, 10**6),
    temperature=floats,
    logit_bias=st.lists(pairs, max_size=3).map(tuple),
    seed=st.none() | st.integers(-(2**63), 2**64),
    stop=st.lists(texts, max_size=3).map(tuple),
    stop_token_ids=st.lists(token_ids, max_size=3).map(tuple),
    ignore_eos=st.booleans(),
    logprobs=st.none() | st.integers(0, 20),
)
logprobs = st.builds(TokenLogprob, token_ids, floats, st.lists(pairs, max_size=3).map(tuple))
events = st.builds(
    Event,
    texts,
    st.lists(token_ids, max_size=4).map(tuple),
    st.none() | st.sampled_from(["stop", "length", "cancelled", "expired", "error"]),
    st.integers(0, 1),
    st.none() | texts,
    st.lists(logprobs, max_size=2).map(tuple),
    st.none() | st.builds(Start, floats, st.integers(0, 10**6)),
)
plain_events = st.builds(Event, texts, st.lists(token_ids, max_size=3).map(tuple))
prompts = st.lists(token_ids, max_size=20)
messages = st.one_of(
    st.builds(Add, texts, prompts, params, st.integers(-(10**9), 10**9), st.none() | floats),
    st.builds(Cancel, texts),
    st.just(Watch()),
    st.builds(Hello, st.builds(EngineLimits, token_ids, token_ids, token_ids, token_ids, st.none() | token_ids)),
    st.builds(LoadFailed, texts, st.booleans()),
    st.lists(plain_events | events, max_size=4).map(tuple).map(Events),
    st.builds(Report, st.builds(EngineStats, running=token_ids, tokens_per_s=floats, step_ms_p99=floats)),
    st.builds(Load, st.just({"config": asdict(HandlerConfig())})),
)


@given(st.lists(messages, max_size=4), st.data())
@settings(deadline=None)
def test_messages_arrive_as_they_were_sent_however_the_stream_is_torn(sent: list[Message], data: st.DataObject) -> None:
    stream = b"".join(map(encode, sent))
    cuts = sorted(data.draw(st.lists(st.integers(0, len(stream)), max_size=6)))
    reader = message_reader()
    received = [message for start, end in zip([0, *cuts], [*cuts, len(stream)], strict=True) for message in reader.feed(stream[start:end])]
    assert received == sent


def test_byte_by_byte() -> None:
    event = Event("a", (1, 2), "stop", 1, logprobs=(TokenLogprob(2, -math.inf, ((3, -0.1),)),), start=Start(0.1, 16))
    sent: list[Message] = [Events((event, Event("b", (7,)))), Watch(), Cancel("b")]
    reader = message_reader()
    assert [message for byte in b"".join(map(encode, sent)) for message in reader.feed(bytes([byte]))] == sent


def test_a_message_is_complete_with_its_last_byte() -> None:
    frame = encode(Add("a", [1, 2, 3], SamplingParams()))
    reader = message_reader()
    assert reader.feed(frame[:-1]) == []
    assert len(reader.feed(frame[-1:] + frame)) == 2


def test_a_step_of_many_sequences_is_small() -> None:
    events = tuple(Event(f"request-{index:04d}", (index,)) for index in range(64))
    assert len(encode(Events(events))) < 64 * 24
