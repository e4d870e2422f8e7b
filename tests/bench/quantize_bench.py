"""Every recipe on tinychat, and on a model of 135M parameters: size, quality and speed on this machine.

    python -m tests.bench.quantize_bench --models tinychat,m135 --out /tmp/quantized

tinychat is calibrated and judged on conversations of its own kinds, of other seeds than those it was trained on. m135 has random weights,
of which no quality can be lost: its figures are for size and speed. Needs the extras ``quantize`` and ``gguf``.
"""

from __future__ import annotations

import json
import sys
from itertools import islice
from pathlib import Path
from typing import Annotated

import typer

from archiver.quantize.compare import compare_recipes
from archiver.quantize.comparison import Comparison, Row
from archiver.quantize.request import QuantizeRequest
from tests.bench.models import CACHE, make_model

TINYCHAT = Path(__file__).parents[2] / "examples" / "tinychat"
_ANY = {"kl": 1e9}  # m135: only its speed counts
_CALIBRATED = "gptq-int4", "awq-int4"
_OTHERS = "int8-w8a8", "fp8-dynamic", "nf4", "int8", "torchao-int8", "gguf:Q8_0", "gguf:Q4_0", "gguf:Q4_K_M"


def run_recipes(name: str, out: Path, cache: Path) -> Comparison:
    """Compare recipes on one model; what is done already in ``out`` is only measured for speed."""
    samples = {kind: _write_conversations(out / f"{kind}.jsonl", seed) for kind, seed in (("calibration", 1), ("evaluation", 2))}
    is_tinychat = name == "tinychat"
    recipes = (*(_CALIBRATED if is_tinychat else _narrow(out)), *_OTHERS)
    request = QuantizeRequest(
        model=str(TINYCHAT / "model" if is_tinychat else make_model(name, cache)),
        recipes=recipes,
        out=out / name,
        num_samples=256 if is_tinychat else 32,
        max_length=128,
        budget={} if is_tinychat else _ANY,
        **samples,
    )
    return compare_recipes(request, as_json=False)


def _narrow(out: Path) -> tuple[str, ...]:
    """Return recipes with groups of 64: they must divide m135's 576 columns."""
    files = [out / f"{name}-64.yaml" for name in _CALIBRATED]
    for name, file in zip(_CALIBRATED, files, strict=True):
        file.write_text(f"extends: {name}\noptions: {{group_size: 64}}\n")
    return tuple(map(str, files))


def _write_conversations(file: Path, seed: int, number: int = 400) -> Path:
    sys.path.insert(0, str(TINYCHAT))  # the example's modules import each other so
    from corpus import PLAIN_TEXT, conversations

    chats = (chat for chat in conversations(seed) if chat[0].role != PLAIN_TEXT)
    lines = [json.dumps({"messages": [{"role": turn.role, "content": turn.content} for turn in chat]}) for chat in islice(chats, number)]
    file.write_text("\n".join(lines) + "\n")
    return file


def markdown(comparison: Comparison) -> str:
    """Return the rows as a table for docs/quantization.md."""
    head = "| recipe | MB | smaller | KL | same first choice | perplexity | tokens/s at 1 | at 8 |\n|---|---|---|---|---|---|---|---|"
    return "\n".join([head, *(_line(row, comparison) for row in comparison.rows)])


def _line(row: Row, comparison: Comparison) -> str:
    if row.problem:
        return f"| {row.name} | {row.problem} |"
    speeds = " | ".join(f"{speed.median:.0f} ({speed.low:.0f}–{speed.high:.0f})" for speed in row.tokens_per_s.values())
    size = f"{row.weight_bytes / 1e6:.1f} | {comparison.source.weight_bytes / row.weight_bytes:.2f}x"
    quality = row.receipt.quality if row.receipt else None
    lost = f"{quality.kl:.4f} | {quality.top1_agreement:.1%} | {quality.perplexity_after:.3f}" if quality else " | | "
    return f"| {row.name} | {size} | {lost} | {speeds} |"


def main(
    models: Annotated[str, typer.Option(help="tinychat, m15, m135 …")] = "tinychat",
    out: Annotated[Path, typer.Option(help="where results are kept")] = Path("build/quantized"),
    cache: Annotated[Path, typer.Option(help="where made checkpoints are kept")] = CACHE,
) -> None:
    """Run the recipes and print tables."""
    out.mkdir(parents=True, exist_ok=True)
    tables = [f"{name}\n\n{markdown(run_recipes(name, out, cache))}" for name in models.split(",")]
    print("\n\n".join(tables))


if __name__ == "__main__":
    typer.run(main)
