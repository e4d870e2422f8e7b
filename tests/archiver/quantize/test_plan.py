"""What is wrong with a request is found before any work, and said in one line."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from archiver.errors import UsageError
from archiver.quantize.plan import make_plan, weight_bytes
from archiver.quantize.request import QuantizeRequest
from tests.checkpoints import make_checkpoint
from tests.gguf_files import make_gguf


@pytest.fixture(scope="module")
def plain(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_checkpoint(tmp_path_factory.mktemp("checkpoints") / "bot")


@pytest.fixture
def source(plain: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return Path(shutil.copytree(plain, tmp_path / "bot"))


def change_config(source: Path, **changes: object) -> None:
    file = source / "config.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | changes))


def refusal(source: Path, *recipes: str, **changes: object) -> str:
    with pytest.raises(UsageError) as error:
        make_plan(QuantizeRequest(str(source), recipes, **changes))
    assert "\n" not in str(error.value)
    return str(error.value)


def test_the_result_is_named_after_model_and_recipe(source, tmp_path):
    plan = make_plan(QuantizeRequest(str(source), ("gguf:Q8_0",)))
    assert plan.out == tmp_path / "bot-gguf-Q8_0"
    assert (plan.source.directory, plan.source_name, plan.calibration) == (source, "bot", None)
    assert weight_bytes(source) == (source / "model.safetensors").stat().st_size


def test_a_calibrated_recipe_gets_its_samples(source, tmp_path):
    (tmp_path / "chats.txt").write_text("one\n\ntwo")
    recipe = tmp_path / "rows.yaml"
    recipe.write_text("extends: gptq-int4\noptions: {group_size: 32}")
    plan = make_plan(QuantizeRequest(str(source), (str(recipe),), calibration=tmp_path / "chats.txt"))
    assert plan.calibration is not None
    assert plan.calibration.record.num_samples == 2


def test_one_recipe_is_wanted(source):
    assert "say how, with --recipe" in refusal(source)
    assert "unless --compare" in refusal(source, "nf4", "int8")


def test_a_budget_needs_a_measurement(source):
    assert "leave --no-measure out" in refusal(source, "nf4", budget={"kl": 0.1}, measure=False)


def test_calibration_is_asked_for(source):
    change_config(source, hidden_size=128, intermediate_size=256)
    assert "give --calibration FILE" in refusal(source, "gptq-int4")


def test_groups_must_divide_the_layers(source):
    assert "groups of 128 columns, which do not divide the model's hidden_size of 32" in refusal(source, "gptq-int4")


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"quantization_config": {"quant_method": "gptq"}}, "is quantized already (gptq)"),
        ({"architectures": ["BertForSequenceClassification"]}, "only causal language models"),
    ],
)
def test_models_that_cannot_be_quantized_are_refused(source, changes, message):
    change_config(source, **changes)
    assert message in refusal(source, "nf4")


def test_a_gguf_file_is_refused(source, tmp_path):
    file = make_gguf(source, tmp_path / "bot.gguf")
    assert "is a GGUF file: quantize the checkpoint" in refusal(file, "nf4")


def test_the_place_of_the_result_is_checked(source, tmp_path):
    (tmp_path / "there").mkdir()
    (tmp_path / "file").touch()
    assert "replace it with --force" in refusal(source, "nf4", out=tmp_path / "there")
    assert "is no directory" in refusal(source, "nf4", out=tmp_path / "file", force=True)
    assert "no such directory" in refusal(source, "nf4", out=tmp_path / "none" / "out")
    assert "take its source's place" in refusal(source, "nf4", out=source, force=True)
    assert make_plan(QuantizeRequest(str(source), ("nf4",), out=tmp_path / "there", force=True)).out == tmp_path / "there"
