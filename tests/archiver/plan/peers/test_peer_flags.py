"""A deployment as other servers' flags: each, run through a model of how that server sizes its KV cache, allocates the same bytes."""

from __future__ import annotations

import json
import math
import shlex
from dataclasses import dataclass, replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from archiver.plan.peers import llama_cpp, sglang, tgi, triton, vllm
from archiver.plan.peers.catalogue import PEERS, render_all
from archiver.plan.peers.deployment import Deployment
from archiver.plan.peers.rendering import Rendering
from handlers.quant.formats import GGUF, PLAIN

GB = 10**9
LLAMA = Deployment(
    model="./llama",
    served_name="llama",
    dtype="bfloat16",
    format=GGUF,
    max_model_len=8192,
    max_running=64,
    prefill_chunk_tokens=512,
    block_tokens=16,
    device_bytes=85 * GB,
    weight_bytes=16_060_522_496,
    kv_bytes=50 * GB,
    activation_bytes=2 * GB,
    context_bytes=GB // 2,
    graph_bytes=GB,
    kv_bytes_per_token=131_072,
)
PRINTED = 1e-4  # the last digit of a fraction


@dataclass(frozen=True)
class Options:
    """A command's words, read as a parser of options would."""

    words: tuple[str, ...]

    def __getitem__(self, option: str) -> str:
        assert self.words.count(option) == 1
        return self.words[self.words.index(option) + 1]

    def __contains__(self, option: str) -> bool:
        return option in self.words


def options(rendering: Rendering) -> Options:
    """By way of a shell: quotes and all."""
    words = shlex.split(rendering.shell)
    return Options(tuple(words[len(rendering.environment) :]))


@st.composite
def deployments(draw):
    """What fits a device of 8 to 192 GB, and leaves a twentieth of it for what servers leave free themselves."""
    device = draw(st.integers(8 * GB, 192 * GB))
    shares = [draw(st.floats(0.01, 1)) for _ in range(6)]
    scale = 0.95 * device / sum(shares)
    weight, kv, activation, context, graph, _ = (int(share * scale) for share in shares)
    return replace(
        LLAMA,
        device_bytes=device,
        weight_bytes=weight,
        kv_bytes=kv,
        activation_bytes=activation,
        context_bytes=context,
        graph_bytes=graph,
        kv_bytes_per_token=draw(st.floats(1024, 2**20)),
        block_tokens=draw(st.sampled_from([16, 32, 64])),
        prefill_chunk_tokens=draw(st.integers(1, 8192)),
        kv_dtype=draw(st.sampled_from(["auto", "fp8"])),
        prefix_caching=draw(st.booleans()),
    )


def vllm_kv_bytes(deployment: Deployment, fraction: float) -> float:
    """What vLLM's trial run leaves of the share of total memory; the context was there before it looked."""
    requested = deployment.device_bytes * fraction
    return requested - deployment.weight_bytes - deployment.activation_bytes - deployment.graph_bytes


def sglang_kv_bytes(deployment: Deployment, fraction: float, cap: float = math.inf) -> float:
    """What is free after loading less the share of what was free before that is not static; then the cap."""
    free_before = deployment.device_bytes - deployment.context_bytes
    free_after = free_before - deployment.weight_bytes
    tokens = (free_after - free_before * (1 - fraction)) // deployment.kv_bytes_per_token
    return min(tokens, cap) * deployment.kv_bytes_per_token


def tgi_kv_bytes(deployment: Deployment, fraction: float, prefill_tokens: int) -> float:
    """0.95 of what a trial prefill leaves free within the limit, and the trial's own blocks, which are given back first."""
    return max(0, tgi_free_bytes(deployment, fraction, prefill_tokens)) * 0.95 + block_bytes(deployment, prefill_tokens)


def tgi_free_bytes(deployment: Deployment, fraction: float, prefill_tokens: int) -> float:
    trial = block_bytes(deployment, prefill_tokens)
    taken = deployment.context_bytes + deployment.weight_bytes + deployment.activation_bytes + trial
    return deployment.device_bytes - taken - (1 - fraction) * deployment.device_bytes


def llama_cpp_kv_bytes(deployment: Deployment, num_tokens: int, cache_type: str) -> float:
    """Every token of the context has its place from the start."""
    padded = -(-num_tokens // 256) * 256
    bytes_of = {"f32": 4, "f16": 2, "bf16": 2, "q8_0": 34 / 32}
    planned = {"auto": 2, "fp8": 1}[deployment.kv_dtype]
    return padded * deployment.kv_bytes_per_token / planned * bytes_of[cache_type]


def block_bytes(deployment: Deployment, num_tokens: int) -> float:
    return num_tokens * deployment.kv_bytes_per_token


@given(deployments())
def test_vllm_allocates_the_same_by_bytes_and_by_fraction(deployment):
    found = options(vllm.render(deployment))
    assert int(found["--kv-cache-memory-bytes"]) == deployment.kv_bytes
    by_fraction = vllm_kv_bytes(deployment, float(found["--gpu-memory-utilization"]))
    assert -1 - PRINTED * deployment.device_bytes <= by_fraction - deployment.kv_bytes <= 1


@given(deployments())
def test_vllm_finds_as_much_free_as_it_asks_for(deployment):
    fraction = float(options(vllm.render(deployment))["--gpu-memory-utilization"])
    assert fraction * deployment.device_bytes <= deployment.device_bytes - deployment.context_bytes


@given(deployments())
def test_sglang_allocates_the_same_within_a_block(deployment):
    found = options(sglang.render(deployment))
    fraction, cap = float(found["--mem-fraction-static"]), int(found["--max-total-tokens"])
    allocated = sglang_kv_bytes(deployment, fraction, cap)
    assert 0 <= deployment.kv_bytes - allocated <= block_bytes(deployment, deployment.block_tokens) + 1
    assert (
        abs(sglang_kv_bytes(deployment, fraction) - deployment.kv_bytes)
        <= PRINTED * deployment.device_bytes + deployment.kv_bytes_per_token
    )


def test_tgi_will_not_start_where_its_trial_prefill_does_not_fit():
    """Found by the property below: with only the trial's blocks too large, no smaller KV cache may be promised."""
    notes = tgi.render(replace(LLAMA, prefill_chunk_tokens=1_000_000, max_model_len=1_000_000)).notes
    assert any("will not start" in note for note in notes)
    assert not any("smaller than planned" in note for note in notes)


@given(deployments())
def test_tgi_allocates_the_same_within_the_fractions_last_digit(deployment):
    rendering = tgi.render(deployment)
    found = options(rendering)
    allocated = tgi_kv_bytes(deployment, float(found["--cuda-memory-fraction"]), int(found["--max-batch-prefill-tokens"]))
    trial = block_bytes(deployment, deployment.prefill_chunk_tokens)
    wanted = max(deployment.kv_bytes, trial)  # the trial's blocks are there in any case
    missing = wanted - allocated
    if any("will not start" in note for note in rendering.notes):
        assert tgi_free_bytes(deployment, 1, deployment.prefill_chunk_tokens) < 0
    elif any("smaller than planned" in note for note in rendering.notes):
        assert found["--cuda-memory-fraction"] in ("1", "1.0")
        assert missing > 0
    else:
        assert -1 <= missing <= PRINTED * deployment.device_bytes + 1


@given(deployments())
def test_llama_cpp_allocates_the_same_within_what_it_pads_to(deployment):
    found = options(llama_cpp.render(deployment))
    assert "--kv-unified" in found
    allocated = llama_cpp_kv_bytes(deployment, int(found["--ctx-size"]), found["--cache-type-k"])
    assert -1 <= deployment.kv_bytes - allocated <= block_bytes(deployment, 256) * 34 / 32 + 1


@given(deployments())
def test_triton_hands_vllm_the_same(deployment):
    (model_json,) = [text for path, text in triton.render(deployment).files.items() if path.endswith("model.json")]
    arguments = json.loads(model_json)
    assert arguments["kv_cache_memory_bytes"] == deployment.kv_bytes
    assert str(arguments["gpu_memory_utilization"]) == options(vllm.render(deployment))["--gpu-memory-utilization"]


def test_the_fractions_of_one_deployment_differ_because_their_meanings_do():
    fractions = {name: rendering.fraction for name, rendering in render_all(LLAMA).items()}
    assert fractions == {"vLLM": 0.8124, "SGLang": 0.7818, "TGI": 0.8375, "llama.cpp": None, "Triton": 0.8124}


def test_a_command_is_what_a_shell_understands():
    rendering = vllm.render(replace(LLAMA, model="./it's here", speculative_tokens=4))
    words = shlex.split(rendering.shell)
    assert words == list(rendering.command)
    assert words[:3] == ["vllm", "serve", "./it's here"]
    assert json.loads(Options(tuple(words))["--speculative-config"]) == {"method": "ngram", "num_speculative_tokens": 4}


def test_sizes_are_passed_on():
    deployment = replace(LLAMA, tensor_parallel=2, pipeline_parallel=2, data_parallel=3, kv_dtype="fp8", prefix_caching=False)
    of_vllm, of_sglang = options(vllm.render(deployment)), options(sglang.render(deployment))
    for kind, short, degree in [("tensor", "tp", "2"), ("pipeline", "pp", "2"), ("data", "dp", "3")]:
        assert of_vllm[f"--{kind}-parallel-size"] == degree
        assert of_sglang[f"--{short}-size"] == degree
    assert (of_vllm["--max-model-len"], of_vllm["--max-num-seqs"], of_vllm["--max-num-batched-tokens"]) == ("8192", "64", "576")
    assert of_vllm["--kv-cache-dtype"] == "fp8" and "--no-enable-prefix-caching" in of_vllm
    assert of_sglang["--kv-cache-dtype"] == "fp8_e4m3" and "--disable-radix-cache" in of_sglang
    of_tgi, of_llama = options(tgi.render(deployment)), options(llama_cpp.render(deployment))
    assert (of_tgi["--num-shard"], of_tgi["--max-total-tokens"], of_tgi["--max-input-tokens"]) == ("4", "8192", "8191")
    assert of_tgi["--kv-cache-dtype"] == "fp8_e4m3fn" and tgi.render(deployment).environment == {"PREFIX_CACHING": "0"}
    assert (of_llama["--cache-type-k"], of_llama["--cache-type-v"], of_llama["--flash-attn"]) == ("q8_0", "q8_0", "on")
    assert of_llama["--tensor-split"] == "1,1,1,1" and "--no-cache-prompt" in of_llama


def test_what_is_a_default_is_not_said():
    words = " ".join(word for rendering in render_all(LLAMA).values() for word in rendering.command)
    assert not [kind for kind in ("parallel-size", "tp-size", "split", "specul", "kv-cache-dtype", "None", "False") if kind in words]


@pytest.mark.parametrize(
    ("peer", "change", "said"),
    [
        ("vLLM", {}, "GGUF files experimentally"),
        ("SGLang", {}, "GGUF files of some architectures"),
        ("SGLang", {"device": "cpu", "speculative_tokens": 3}, "n-grams on CUDA only"),
        ("TGI", {}, "cannot read weights in the format GGUF"),
        ("TGI", {"pipeline_parallel": 2}, "no pipeline parallelism"),
        ("TGI", {"data_parallel": 2}, "run 2 of it"),
        ("TGI", {"has_latent_attention": True}, "keys and values of all heads"),
        ("TGI", {"kv_bytes": 65 * GB}, "smaller than planned"),
        ("TGI", {"device": "cpu"}, "cannot be set"),
        ("llama.cpp", {"format": PLAIN}, "GGUF files only"),
        ("llama.cpp", {"kv_dtype": "fp8"}, "fewer tokens fit"),
        ("llama.cpp", {"tensor_parallel": 2}, "one after the other"),
        ("llama.cpp", {"data_parallel": 2}, "run 2 of it"),
        ("llama.cpp", {"speculative_tokens": 3}, "n-grams"),
        ("llama.cpp", {"has_latent_attention": True}, "latents"),
        ("Triton", {"data_parallel": 2}, "run 2 of it"),
    ],
)
def test_what_a_server_cannot_be_told_is_said(peer, change, said):
    assert any(said in note for note in PEERS[peer](replace(LLAMA, **change)).notes)


def test_a_plain_model_needs_few_words():
    notes = {name: len(rendering.notes) for name, rendering in render_all(replace(LLAMA, format=PLAIN)).items()}
    assert notes == {"vLLM": 1, "SGLang": 0, "TGI": 1, "llama.cpp": 2, "Triton": 2}


def test_on_a_cpu_bytes_and_threads_are_given():
    deployment = replace(LLAMA, device="cpu", context_bytes=0, graph_bytes=0, num_threads=8)
    for name, rendering in render_all(deployment).items():
        assert "memory-utilization" not in rendering.shell and "cuda" not in rendering.shell, name
    of_vllm = vllm.render(deployment)
    assert of_vllm.environment == {"OMP_NUM_THREADS": "8", "VLLM_CPU_OMP_THREADS_BIND": "nobind"}
    assert of_vllm.shell.startswith("OMP_NUM_THREADS=8 VLLM_CPU_OMP_THREADS_BIND=nobind vllm serve ./llama ")
    assert options(llama_cpp.render(deployment))["--threads"] == "8"
    assert options(llama_cpp.render(deployment))["--n-gpu-layers"] == "0"
    assert options(sglang.render(deployment))["--device"] == "cpu"


def test_triton_gets_a_repository_under_a_name_that_is_a_directory():
    rendering = triton.render(replace(LLAMA, served_name="meta/llama 3"))
    assert set(rendering.files) == {"model_repository/meta_llama_3/config.pbtxt", "model_repository/meta_llama_3/1/model.json"}
    assert 'backend: "vllm"' in rendering.files["model_repository/meta_llama_3/config.pbtxt"]
    assert options(rendering)["--model-repository"] == "model_repository"
    assert "/v2/models/meta_llama_3/generate" in rendering.notes[-1]


def test_what_does_not_fit_has_no_flags():
    with pytest.raises(ValueError, match=r"takes 100,.* bytes of a device that has 85,"):
        replace(LLAMA, kv_bytes=81 * GB)
