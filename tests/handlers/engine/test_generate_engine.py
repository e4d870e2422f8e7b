"""The engine over ``generate``: which models it takes, and that it is an engine like the other one."""

import pytest
import torch
from tiny_models import CONFIGS, EOS, VOCAB_SIZE, generate, make_model
from transformers import AutoModelForSeq2SeqLM, MambaConfig, RecurrentGemmaConfig, T5Config

from handlers.config import EngineConfig
from handlers.engine.generate_engine import build_generate_engine
from handlers.engine.thread import ThreadClient
from handlers.errors import ConfigError, InvalidRequest
from handlers.requests import SamplingParams

MAMBA = MambaConfig(vocab_size=VOCAB_SIZE, hidden_size=48, num_hidden_layers=2, bos_token_id=1, eos_token_id=EOS, pad_token_id=0)
CONFIG = EngineConfig(max_model_len=64, num_threads=1)


@pytest.fixture
def client():
    engine = build_generate_engine(make_model(MAMBA), CONFIG, eos_token_ids=frozenset({EOS}))
    client = ThreadClient(engine)
    yield client
    client.close()


def greedy(max_tokens=8, **params) -> SamplingParams:
    return SamplingParams(temperature=0.0, max_tokens=max_tokens, **params)


def finish(client: ThreadClient, *sequence_ids: str) -> dict[str, list]:
    """Return all events of the sequences, once they have ended."""
    events = {sequence_id: [] for sequence_id in sequence_ids}
    while not all(those and those[-1].finish_reason for those in events.values()):
        for event in client.poll(5.0):
            events[event.sequence_id].append(event)
    return events


def tokens(events: list) -> list[int]:
    return [token_id for event in events for token_id in event.token_ids]


def test_it_serves_behind_the_same_client(client):
    prompts = {"a": [10, 11, 12], "b": list(range(20, 40))}
    for sequence_id, prompt in prompts.items():
        client.add(sequence_id, prompt, greedy())
    events = finish(client, *prompts)
    model = make_model(MAMBA)
    assert {sequence_id: tokens(those) for sequence_id, those in events.items()} == {
        sequence_id: generate(model, prompt, 8) for sequence_id, prompt in prompts.items()
    }
    assert client.drain(5.0)


def test_a_stop_token_ends_a_sequence_and_min_tokens_puts_it_off(client):
    free = generate(make_model(MAMBA), [10, 11, 12], 8)
    client.add("stops", [10, 11, 12], greedy(stop_token_ids=(free[2],)))
    client.add("goes-on", [10, 11, 12], greedy(stop_token_ids=(free[2],), min_tokens=5))
    events = finish(client, "stops", "goes-on")
    assert tokens(events["stops"]) == free[: free.index(free[2]) + 1]
    assert events["stops"][-1].finish_reason == "stop"
    assert len(tokens(events["goes-on"])) >= 5


@torch.inference_mode()
def test_log_probabilities_are_the_models_own(client):
    client.add("a", [10, 11, 12], greedy(max_tokens=1, logprobs=3, repetition_penalty=1.7))
    [event] = finish(client, "a")["a"]
    expected = make_model(MAMBA)(torch.tensor([[10, 11, 12]])).logits[0, -1].log_softmax(-1)
    [logprob] = event.logprobs
    assert logprob.logprob == pytest.approx(expected[logprob.token_id].item(), abs=1e-4)
    assert [token_id for token_id, _ in logprob.top] == expected.topk(3).indices.tolist()


def test_a_cancelled_sequence_ends_and_its_neighbour_goes_on(client):
    client.add("leaves", [10, 11], greedy(max_tokens=60, ignore_eos=True))
    client.add("stays", [20, 21, 22], greedy(max_tokens=20, ignore_eos=True))
    client.cancel("leaves")
    events = finish(client, "leaves", "stays")
    assert events["leaves"][-1].finish_reason == "cancelled"
    assert len(tokens(events["stays"])) == 20


def test_a_sequence_that_has_waited_too_long_is_never_run():
    client = ThreadClient(build_generate_engine(make_model(MAMBA), CONFIG, max_running=1))
    client.add("runs", [10], greedy(max_tokens=40, ignore_eos=True))
    client.add("waits", [11], greedy(), max_queue_s=1e-6)
    events = finish(client, "runs", "waits")
    client.close()
    assert [event.finish_reason for event in events["waits"]] == ["expired"]
    assert len(tokens(events["runs"])) == 40


def test_what_never_fits_is_refused(client):
    with pytest.raises(InvalidRequest, match="64 tokens"):
        client.add("a", [10] * 64, greedy())


def test_an_encoder_decoder_answers_what_its_encoder_read():
    sizes = {"d_model": 32, "d_kv": 8, "d_ff": 64, "num_layers": 2, "num_heads": 4}
    torch.manual_seed(0)
    config = T5Config(vocab_size=VOCAB_SIZE, **sizes, decoder_start_token_id=0, eos_token_id=EOS, pad_token_id=0)
    model = AutoModelForSeq2SeqLM.from_config(config).eval()
    prompts = {"a": [10, 11, 12], "b": list(range(20, 40))}
    expected = {}
    for sequence_id, prompt in prompts.items():
        output = model.generate(torch.tensor([prompt]), max_new_tokens=8, do_sample=False)
        expected[sequence_id] = output[0, 1:].tolist()
    engine = build_generate_engine(model, CONFIG, eos_token_ids=frozenset({EOS}))
    said = {sequence_id: [] for sequence_id in prompts}
    for sequence_id, prompt in prompts.items():
        engine.add(engine.new_sequence(sequence_id, prompt, greedy()))
        for event in engine.step():
            said[event.sequence_id] += event.token_ids
    while engine.has_work:
        for event in engine.step():
            said[event.sequence_id] += event.token_ids
    assert said == expected


def test_a_model_that_keeps_the_state_of_a_batch_in_itself_is_refused():
    config = RecurrentGemmaConfig(
        vocab_size=VOCAB_SIZE, hidden_size=48, intermediate_size=96, num_hidden_layers=3, num_attention_heads=4, lru_width=48
    )
    with pytest.raises(ConfigError, match="RecurrentGemmaForCausalLM cannot be served"):
        build_generate_engine(make_model(config), CONFIG)


def test_a_model_that_fails_is_refused_with_its_reason():
    model = make_model(CONFIGS["llama"])
    model.register_forward_pre_hook(lambda *_: (_ for _ in ()).throw(NotImplementedError("no such kernel")))
    with pytest.raises(ConfigError, match="cannot run on transformers' generate: no such kernel"):
        build_generate_engine(model, CONFIG)


def test_a_length_must_come_from_somewhere():
    with pytest.raises(ConfigError, match="max_model_len"):
        build_generate_engine(make_model(MAMBA), EngineConfig(num_threads=1))


def test_the_models_own_defaults_change_nothing():
    model = make_model(CONFIGS["llama"])
    expected = generate(model, [10, 11, 12], 8)
    model.generation_config.repetition_penalty = 9.0
    model.generation_config.num_beams = 3
    engine = build_generate_engine(model, CONFIG, eos_token_ids=frozenset({EOS}))
    engine.add(engine.new_sequence("a", [10, 11, 12], greedy()))
    said = []
    while engine.has_work:
        said += [token_id for event in engine.step() for token_id in event.token_ids]
    assert said == expected
