"""Comparing recipes: rows for results and for failures, nothing done twice, the recommendation, table, plot and JSON."""

from __future__ import annotations

import json
import math
import shutil
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import pytest

from archiver.errors import ArchiverError, UsageError
from archiver.quantize.command import Quantized
from archiver.quantize.compare import compare_recipes
from archiver.quantize.comparison import SOURCE, Comparison, Row
from archiver.quantize.comparison_plot import plot_comparison
from archiver.quantize.plan import Plan
from archiver.quantize.receipt import Quality, Receipt
from archiver.quantize.request import QuantizeRequest
from archiver.quantize.speed import Speed, Speeds

TINYCHAT = Path(__file__).resolve().parents[3] / "examples" / "tinychat" / "model"
QUALITY = Quality("the source model's own samples", 1000, 8.0, 8.1, 0.01, 0.1, 0.97, 64, (64,), ())


class FakeQuantizer:
    """Copies the source and says that it lost ``kl``; the recipe ``broken`` fails."""

    def __init__(self, kl: float = 0.01, broken: str = "") -> None:
        self.kl = kl
        self.broken = broken
        self.done: list[str] = []

    def __call__(self, plan: Plan, on_progress: object, announce: object) -> Quantized:
        self.done.append(plan.recipe.name)
        if plan.recipe.name == self.broken:
            raise RuntimeError("mat1 and mat2 shapes\ncannot be multiplied")
        shutil.copytree(plan.source.directory, plan.out)
        quality = replace(QUALITY, kl=self.kl)
        receipt = Receipt(
            plan.recipe.name, plan.recipe.options, plan.source_name, {}, None, 4000, 1000, 3.0, 10**9, quality, plan.request.budget, ()
        )
        receipt.write(plan.out)
        return Quantized(plan.out, receipt)


def fake_speeds(models: Mapping[str, Path], on_progress: object) -> dict[str, Speeds]:
    return {name: speeds(80.0 if name == SOURCE else 100.0) for name in models}


def speeds(tokens_per_s: float) -> Speeds:
    """Return speeds with 8 streams, and a quarter of it with one."""
    return {1: Speed.of([tokens_per_s / 4]), 8: Speed.of([tokens_per_s - 1, tokens_per_s + 5, tokens_per_s])}


@pytest.fixture
def compare(tmp_path: Path):
    def compare(quantizer: FakeQuantizer, *, as_json: bool = True, **changes: object) -> Comparison:
        request = replace(QuantizeRequest(str(TINYCHAT), ("nf4", "torchao-int8"), out=tmp_path / "all"), **changes)
        return compare_recipes(request, as_json=as_json, carry_out=quantizer, measure_speeds=fake_speeds)

    return compare


def test_the_source_comes_first_and_each_recipe_has_a_row(compare, tmp_path, capsys):
    comparison = compare(FakeQuantizer())
    assert [row.name for row in comparison.rows] == [SOURCE, "nf4", "torchao-int8"]
    assert comparison.source.weight_bytes == (TINYCHAT / "model.safetensors").stat().st_size
    printed = json.loads(capsys.readouterr().out)
    assert printed == json.loads((tmp_path / "all" / "comparison.json").read_text())
    assert printed["rows"][1]["quality"]["kl"] == 0.01
    assert printed["rows"][1]["tokens_per_s"]["8"] == {"median": 100.0, "low": 99.0, "high": 105.0}
    assert printed["budget"] == {"kl": 0.1, "ppl": 1.05}
    assert (tmp_path / "all" / "comparison.png").read_bytes().startswith(b"\x89PNG")
    assert (tmp_path / "all" / "nf4" / "quantization.json").exists()


def test_what_fails_or_is_not_available_has_a_row_with_the_reason(compare, capsys):
    comparison = compare(FakeQuantizer(broken="nf4"), as_json=False, recipes=("nf4", "gptq-int4", "nonesuch", "torchao-int8"))
    problems = {row.name: row.problem for row in comparison.rows}
    assert problems["nf4"] == "mat1 and mat2 shapes cannot be multiplied"
    assert "--calibration FILE" in problems["gptq-int4"]
    assert "no recipe named 'nonesuch'" in problems["nonesuch"]
    assert problems["torchao-int8"] is None
    assert comparison.recommendation.name == "torchao-int8"
    shown = capsys.readouterr().out
    assert "nf4 failed: mat1 and mat2" in shown
    assert "recommended: torchao-int8. " in shown


def test_what_is_done_is_not_done_again_unless_forced_or_asked_for_otherwise(compare, tmp_path):
    compare(first := FakeQuantizer())
    compare(again := FakeQuantizer(), recipes=("nf4", "torchao-int8", "gguf"))
    compare(forced := FakeQuantizer(), recipes=("nf4",), force=True)
    (tmp_path / "text.txt").write_text("another text to measure on\n")
    compare(elsewhere := FakeQuantizer(), recipes=("nf4",), evaluation=tmp_path / "text.txt")
    assert (first.done, again.done, forced.done, elsewhere.done) == (["nf4", "torchao-int8"], ["gguf"], ["nf4"], ["nf4"])


def test_an_earlier_result_is_held_against_the_new_budget(compare):
    assert compare(FakeQuantizer(kl=0.03)).recommendation.name is not SOURCE
    strict = compare(FakeQuantizer(), budget={"kl": 0.02})
    assert all("0.03" in row.exceeded[0] for row in strict.rows[1:])
    assert strict.recommendation.name == SOURCE


def test_a_model_that_cannot_be_quantized_at_all_is_an_error(compare):
    with pytest.raises(ArchiverError, match="no such directory"):
        compare(FakeQuantizer(), model="/nowhere")
    with pytest.raises(UsageError, match="--no-measure"):
        compare(FakeQuantizer(), measure=False)


def row(name: str, weight_bytes: int, speed: float, **changes: object) -> Row:
    receipt = None if name == SOURCE else Receipt(name, {}, "m", {}, None, 100, weight_bytes, 1.0, 1, QUALITY, {}, ())
    return replace(Row(name, Path(name), weight_bytes, receipt, tokens_per_s=speeds(speed)), **changes)


def recommend(*rows: Row) -> str | None:
    return Comparison("m", "a machine", "CPU", {"kl": 0.1}, rows).recommendation.name


def test_the_recommendation_is_the_fastest_within_the_budget_and_of_equals_the_smallest():
    source = row(SOURCE, 100, 100.0)
    assert recommend(source, row("a", 30, 150.0), row("b", 50, 200.0)) == "b"
    assert recommend(source, row("a", 30, 195.0), row("b", 50, 200.0)) == "a"
    assert recommend(source, row("a", 30, 195.0), row("b", 25, 300.0, exceeded=("kl: too much",))) == "a"
    assert recommend(source, row("a", 30, 60.0)) == SOURCE
    assert recommend(source, Row("a", problem="no such package")) == SOURCE
    assert recommend(Row(SOURCE)) is None


def test_the_reason_names_rule_gain_and_usual_choice():
    reason = Comparison("m", "a machine", "GPU", {"kl": 0.1}, (row(SOURCE, 100, 100.0), row("a", 25, 150.0))).recommendation.reason
    for part in ("within the budget (kl=0.1)", "fastest at 8 streams", "1.5x the source's speed", "4x smaller", "for a GPU is AWQ"):
        assert part in reason


def test_broken_and_failed_rows_do_not_spoil_the_plot(tmp_path):
    broken = row("a", 25, 90.0, exceeded=("not finite",))
    broken = replace(broken, receipt=replace(broken.receipt, quality=replace(QUALITY, kl=math.nan)))
    comparison = Comparison("m", "a machine", "CPU", {"ppl": 1.1}, (row(SOURCE, 100, 100.0), broken, Row("b", problem="failed")))
    plot_comparison(comparison, tmp_path / "plot.png")
    assert (tmp_path / "plot.png").stat().st_size > 1000
    assert json.loads(json.dumps(comparison.to_dict()))["rows"][1]["quality"]["kl"] is None
