"""What the producers write loads without their libraries, and is the source's model still."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from archiver.quantize.command import carry_out, quantize
from archiver.quantize.plan import make_plan
from archiver.quantize.request import QuantizeRequest
from tests.checkpoints import make_checkpoint

TINYCHAT = Path(__file__).resolve().parents[3] / "examples" / "tinychat" / "model"


def relative_errors(source: Path, quantized: Path) -> list[float]:
    """Return the relative error of each layer's weight that is not what it was."""
    from archiver.quantize.quality.layers import layer_errors
    from handlers.config import ModelConfig
    from handlers.weights.checkpoint import Checkpoint
    from handlers.weights.quantized import load_quantized

    plain = Checkpoint.open(source, ModelConfig(dtype="float32")).load()
    model = load_quantized(Checkpoint.open(quantized, ModelConfig(dtype="float32")))
    return [error.relative_error for error in layer_errors(plain, model) if error.relative_error]


@pytest.mark.parametrize(
    ("recipe", "largest"),
    [
        ("nf4", 0.12),
        pytest.param("int8", 0.02, marks=pytest.mark.slow),
        pytest.param("torchao-int8", 0.02, marks=pytest.mark.slow),
    ],
)
def test_libraries_of_this_environment(tmp_path, monkeypatch, capsys, recipe, largest):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    source = make_checkpoint(tmp_path / "bot", hidden_size=64, intermediate_size=128)
    capsys.readouterr()
    receipt = quantize(QuantizeRequest(str(source), (recipe,), out=tmp_path / "out", measure=False), as_json=True)
    shown = json.loads(capsys.readouterr().out)
    assert (shown["directory"], shown["recipe"], receipt.recipe) == (str(tmp_path / "out"), recipe, recipe)
    errors = relative_errors(source, tmp_path / "out")
    assert len(errors) == 2 * 7  # all linear layers of both decoder layers, and no more
    assert 0 < max(errors) < largest


# AWQ and SmoothQuant move scales from one layer to the one before it: weights change while the model stays the same.
@pytest.mark.peer
@pytest.mark.timeout(1200)
@pytest.mark.parametrize(
    ("recipe", "kl"), [("gptq-int4", 0.05), ("awq-int4", 0.05), ("fp8-dynamic", 0.01), ("int8-w8a8", 0.01), ("int8-smoothquant", 0.01)]
)
def test_llmcompressor(tmp_path, recipe, kl):
    chats = [
        [{"role": "user", "content": f"What is {a} plus {b}?"}, {"role": "assistant", "content": f"{a + b}"}]
        for a in range(6)
        for b in range(6)
    ]
    calibration = tmp_path / "chats.jsonl"
    calibration.write_text("\n".join(json.dumps({"messages": chat}) for chat in chats))
    request = QuantizeRequest(str(TINYCHAT), (recipe,), out=tmp_path / "out", calibration=calibration, num_samples=24, budget={"kl": kl})
    stages = []
    result = carry_out(make_plan(request), lambda *step: stages.append(step), lambda line: None)
    assert result.receipt.is_accepted, result.receipt.exceeded
    assert ("layers", 5, 5) in stages or result.receipt.calibration is None
    assert result.receipt.bytes_after < 0.6 * result.receipt.bytes_before
