"""``marquee plan`` as its users meet it: a report, JSON, files, a picture, and one line for a mistake."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from typer.testing import CliRunner

from archiver.cli import app, main
from archiver.deploy.properties import read_properties
from handlers.config import parse_handler_config
from handlers.memory_ledger import read_memory_ledger

TINYCHAT = "examples/tinychat/model"
LLAMA = {
    "architectures": ["LlamaForCausalLM"],
    "model_type": "llama",
    "hidden_size": 4096,
    "num_hidden_layers": 32,
    "num_attention_heads": 32,
    "num_key_value_heads": 8,
    "intermediate_size": 14336,
    "vocab_size": 128256,
    "max_position_embeddings": 131072,
    "torch_dtype": "bfloat16",
}
GUIDE = ("--gpu", "h100", "--prompt-tokens", "7168", "--output-tokens", "1024", "--concurrency", "256")


@pytest.fixture
def llama(tmp_path: Path) -> str:
    file = tmp_path / "llama-3.1-8b.json"
    file.write_text(json.dumps(LLAMA))
    return str(file)


def plan(*arguments: str):
    return CliRunner().invoke(app, ["plan", *arguments])


def failure(capsys, monkeypatch, *arguments: str) -> tuple[int, str]:
    """Return the exit code and the one line that a user would see."""
    monkeypatch.setattr(sys, "argv", ["marquee", "plan", *arguments])
    with pytest.raises(SystemExit) as exit_:
        main()
    (line,) = capsys.readouterr().err.splitlines()
    return exit_.value.code, line


def test_the_guides_example_from_a_bare_configuration(llama):
    result = plan(llama, *GUIDE)
    assert result.exit_code == 1  # found a problem
    words = " ".join(result.output.split())
    assert "8,030,261,248 parameters" in words
    assert "won't fit: 256 sequences of 8,192 tokens take 256 GiB of KV cache" in words
    assert words.count("would fit:") == 3
    assert "= 131,072 a token" in words


def test_json_is_all_of_it(llama):
    result = plan(llama, "--gpu", "h100", "--count", "2", "--concurrency", "64", "--peers", "--json")
    assert result.exit_code == 0
    content = json.loads(result.output)
    assert content["verdict"]["fits"] == "yes"
    assert content["layout"] == {"tensor": 1, "pipeline": 1, "data": 2}
    expected = sum(line["bytes"]["expected"] for line in content["ledger"]["lines"])
    assert expected == pytest.approx(content["ledger"]["device_bytes"], rel=1e-4)
    assert set(content["peers"]) == {"vLLM", "SGLang", "TGI", "llama.cpp", "Triton"}
    assert {rejected["layout"]["tensor"] for rejected in content["rejected"]} == {1, 2}


def test_files_are_ones_that_their_readers_take(llama, tmp_path):
    out = tmp_path / "planned"
    assert plan(llama, "--gpu", "h100", "--rate", "2", "--concurrency", "32", "--out", str(out)).exit_code == 0
    assert sorted(file.name for file in out.iterdir()) == [
        "config.properties",
        "model-config.yaml",
        "peers.sh",
        "plan.json",
        "static-model-config.yaml",
    ]
    ledger = read_memory_ledger(out)
    assert ledger is not None
    assert ledger.device_name == "NVIDIA H100 SXM 80 GB"
    content = yaml.safe_load((out / "model-config.yaml").read_text())
    assert parse_handler_config(content).engine.max_running == 32
    assert content["batchSize"] == parse_handler_config(content).engine.frontend_places
    static = yaml.safe_load((out / "static-model-config.yaml").read_text())
    assert static["batchSize"] >= 1 and "continuousBatching" not in static
    properties = read_properties(out / "config.properties")
    assert "-Dlog4j.configurationFile=" in properties["vmargs"]
    assert properties["inference_address"] == "http://127.0.0.1:8080"
    assert subprocess.run(["sh", "-n", str(out / "peers.sh")], check=False).returncode == 0


@pytest.mark.parametrize("suffix", [".png", ".svg"])
def test_a_picture(llama, tmp_path, suffix):
    file = tmp_path / f"plan{suffix}"
    assert plan(llama, "--gpu", "l4", "--chart", str(file)).exit_code == 0
    assert file.read_bytes().startswith(b"\x89PNG" if suffix == ".png" else b"<?xml")


def test_a_recipe_plans_as_if_it_had_been_carried_out(llama):
    plain, quantized = (json.loads(plan(llama, "--gpu", "h100", "--json", *more).output) for more in ((), ("--recipe", "awq-int4")))
    assert quantized["model"]["format"] == "compressed-tensors W4A16, asymmetric"
    assert 2.5 < plain["model"]["weight_bytes"] / quantized["model"]["weight_bytes"] < 3  # embedding and head stay plain


def test_a_gpu_without_bfloat16_computes_in_float16(llama):
    assert json.loads(plan(llama, "--gpu", "t4", "--recipe", "awq-int4", "--json").output)["model"]["dtype"] == "float16"


def test_a_checkpoint_is_planned_by_its_headers():
    content = json.loads(plan(TINYCHAT, "--gpu", "l4", "--json").output)
    assert content["model"] == {
        "name": "model",
        "architecture": "LlamaForCausalLM",
        "num_parameters": 3_967_744,
        "weight_bytes": 2 * 3_967_744,
        "format": "plain",
        "dtype": "bfloat16",
        "is_exact": True,
    }


def test_a_trace_is_replayed(llama, tmp_path):
    trace = tmp_path / "trace.jsonl"
    lines = [{"arrival_s": 0.05 * index, "prompt_tokens": 100 + index, "output_tokens": 20} for index in range(100)]
    trace.write_text("".join(json.dumps(line) + "\n" for line in lines))
    content = json.loads(plan(llama, "--gpu", "h100", "--simulate", str(trace), "--json").output)
    continuous, static = content["simulation"]["continuous batching"], content["simulation"]["static batching"]
    assert continuous["num_requests"] == static["num_requests"] == 100
    assert continuous["latency"]["p50_s"] < static["latency"]["p50_s"]
    points = tmp_path / "points.json"
    steps = [
        {"num_decodes": 1, "num_prompt_tokens": 0, "num_context_tokens": 100, "seconds": 0.5},
        {"num_decodes": 0, "num_prompt_tokens": 512, "num_context_tokens": 512, "seconds": 1.0},
    ]
    points.write_text(json.dumps({"steps": steps}))
    slower = json.loads(plan(llama, "--gpu", "h100", "--simulate", str(trace), "--points", str(points), "--json").output)
    assert slower["simulation"]["continuous batching"]["latency"]["p50_s"] > 9
    assert "The trace, simulated" in plan(llama, "--gpu", "h100", "--simulate", str(trace)).output


def test_this_machine_is_what_is_planned_for_unless_another_is_named():
    content = json.loads(plan(TINYCHAT, "--cpu", "--json").output)
    assert (content["hardware"]["id"], content["ledger"]["device"]) == ("cpu", "cpu")
    assert content == json.loads(plan(TINYCHAT, "--cpu", "--json").output)


def test_planning_needs_no_torch(llama):
    code = (
        "import sys\n"
        "from archiver.plan.command import PlanOptions, plan_for\n"
        "from archiver.plan.target import TargetOptions\n"
        f"plan, _ = plan_for(PlanOptions({llama!r}, target=TargetOptions(gpu='h100')))\n"
        "plan.to_json()\n"
        "print([name for name in ('torch', 'transformers', 'numpy') if name in sys.modules])"
    )
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.strip() == "[]"


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        (("--gpu", "h1000"), "no GPU named 'h1000'; did you mean"),
        (("--gpu", "h100", "--cpu"), "--gpu, --auto and --cpu exclude each other"),
        (("--measure", "--gpu", "h100"), "--measure measures this machine's CPU: add --cpu"),
        (("--gpu", "h100", "--count", "0"), "--count is a number of GPUs, 1 or more; got 0"),
        (("--gpu", "h100", "--prompt-tokens", "many"), "--prompt-tokens takes two lengths in tokens, as in 512,2048"),
        (("--gpu", "h100", "--output-tokens", "9,3"), "--output-tokens: the median must be at least 1"),
        (("--gpu", "h100", "--rate", "-1"), "--rate must be a number above 0, got -1.0"),
        (("--gpu", "h100", "--rate", "nan"), "--rate must be a number above 0, got nan"),
        (("--gpu", "h100", "--rate", "inf"), "--rate must be a number above 0, got inf"),
        (("--gpu", "h100", "--max-model-len", "200000"), "max_model_len is 200,000, and llama-3.1-8b takes sequences of at most 131,072"),
        (("--gpu", "h100", "--tensor-parallel", "0"), "--tensor-parallel 0"),
        (("--gpu", "h100", "--recipe", "awk"), "no recipe named 'awk'; there are "),
        (("--gpu", "h100", "--tensor-parallel", "3"), "--tensor-parallel 3 × --pipeline-parallel 1 does not divide 1 GPUs"),
        (("--gpu", "h100", "--chart", "plan.gif"), "--chart writes .png, .svg, .pdf; got plan.gif"),
        (("--gpu", "h100", "--simulate", "nowhere.jsonl"), "cannot read the trace nowhere.jsonl"),
        (("--gpu", "h100", "--config", "nowhere.yaml"), "cannot read nowhere.yaml"),
    ],
)
def test_a_mistake_is_one_line(capsys, monkeypatch, llama, arguments, complaint):
    code, line = failure(capsys, monkeypatch, llama, *arguments)
    assert code == 2
    assert complaint in line


def test_a_model_that_is_not_there_is_one_line(capsys, monkeypatch):
    code, line = failure(capsys, monkeypatch, "./nowhere", "--gpu", "h100")
    assert code == 2 and "nowhere" in line


def test_the_users_own_configuration_is_kept_to(llama, tmp_path):
    config = tmp_path / "model-config.yaml"
    config.write_text("handler: {engine: {max_running: 5, block_tokens: 32}}\n")
    content = json.loads(plan(llama, "--gpu", "h100", "--config", str(config), "--json").output)
    assert content["settings"] == {"max_running": 5, "max_waiting": 64, "block_tokens": 32}
    assert content["sizes"]["block_tokens"] == 32
