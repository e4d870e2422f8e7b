"""Measure the engine on a GPU: ceilings, decoding, serving, prompts, where a step's time goes, and transformers beside it.

    python -m tests.bench.gpu_bench --shape 8b --out build/bench
    python -m tests.bench.gpu_bench --shape 8b --parts offline,split --streams 64 --contexts 1024
    python -m tests.bench.gpu_bench --device cpu --shape tiny --streams 1,2 --contexts 32 --steps 8

The model has an 8B's or a 1B's shape and random bf16 weights. The ceilings, a large copy and a large matrix product, are measured first in
every run: the rest is held against them. Cells that goals are set for come first, and what there is no time for is a row that says so. Rows
of several runs add up in ``gpu-SHAPE.json``, so that a whole run may be made in parts, and ``roofline-SHAPE.png`` beside it shows them.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Annotated

import torch
import typer
from rich.console import Console

from handlers.errors import ConfigError
from tests.bench.gpu.budget import Budget
from tests.bench.gpu.offline import Decoding, Prefill
from tests.bench.gpu.part import Part, run_part
from tests.bench.gpu.roofline import Roofline, measure_ceilings
from tests.bench.gpu.roofline_plot import plot_roofline
from tests.bench.gpu.rows import OtherDevice, Results, Row, cells_by_importance
from tests.bench.gpu.served import ServedInProcess
from tests.bench.gpu.setup import Setup, free_device, open_engine
from tests.bench.gpu.shapes import REHEARSAL, SHAPES, random_model
from tests.bench.gpu.step_split import StepSplit
from tests.bench.gpu.tables import notes, tables
from tests.bench.gpu.transformers_peers import PEERS, Peer
from tests.bench.report import Machine

_TABLE_WIDTH = 150
# Of the time, in the order in which they run; "ceilings" takes seconds and is not asked.
_SHARES = {"offline": 4.0, "prefill": 1.0, "split": 1.0, "served": 3.0, "peers": 2.0}
_PARTS = ("ceilings", *_SHARES)
_BY_TORCHSERVE = ("1b", "tiny")  # the checkpoint of an 8B is 15 GB to write and to read: only when it is asked for


class CannotRun(Exception):
    """What was asked for cannot be measured here; the message says what to do."""


def main(
    shape: Annotated[str, typer.Option(help=", ".join(SHAPES))] = "8b",
    device: Annotated[str, typer.Option(help="cuda, cpu, or auto: cuda, and a CPU for the tiny shape")] = "auto",
    parts: Annotated[str, typer.Option(help=f"of {', '.join(_PARTS)}")] = ",".join(_PARTS),
    streams: Annotated[str, typer.Option(help="sequences at once")] = "1,8,32,64,128,256",
    contexts: Annotated[str, typer.Option(help="tokens of each prompt")] = "128,1024,4096",
    steps: Annotated[int, typer.Option(help="decode steps that are timed in a cell")] = 128,
    chunk_tokens: Annotated[int, typer.Option(help="tokens of prompts in a step of the engine")] = 4096,
    answer_tokens: Annotated[int, typer.Option(help="of each request of the served part")] = 128,
    rounds: Annotated[int, typer.Option(help="requests of each client of the served part")] = 2,
    served: Annotated[str, typer.Option(help="torchserve, process, or auto: TorchServe where it can run, but for the 8B")] = "auto",
    budget_s: Annotated[float, typer.Option(help="for all parts together, in seconds")] = 500.0,
    out: Annotated[Path, typer.Option(help="directory for gpu-SHAPE.json and roofline-SHAPE.png")] = Path("build/bench"),
) -> None:
    """Run the parts, write JSON after each cell and a plot, print tables last."""
    console, machine = Console(width=_TABLE_WIDTH, highlight=False), Machine.here()
    try:
        chosen, target, torchserve = _choose_parts(parts), _choose_device(device, shape), _through_torchserve(served, shape)
        cells = cells_by_importance(_numbers("--streams", streams), _numbers("--contexts", contexts))
        budget = Budget(budget_s, {part: _SHARES[part] for part in chosen})
        roofline = Roofline(SHAPES[shape], measure_ceilings(target))
        free_device()
        setup = Setup(target, roofline, cells, steps, chunk_tokens, answer_tokens, rounds)
        results = Results.beside_earlier(out / f"gpu-{shape}.json", _device_name(target), shape, machine, roofline.ceilings)
        _run(setup, budget, chosen, torchserve, lambda row: _tell(row, results, console))
    except (CannotRun, OtherDevice, ConfigError) as error:
        typer.echo(error, err=True)
        raise typer.Exit(1 if isinstance(error, ConfigError) else 2) from None
    results.write()
    plot_roofline(results.rows, out / f"roofline-{shape}.png", f"{shape}, bf16, {results.device}")
    console.print(*notes(results.rows), sep="\n", markup=False, soft_wrap=True)
    console.print(*tables(results.rows, shape))
    ceilings = roofline.ceilings
    console.print(
        f"{results.device}: copies {ceilings.copy_gb_per_s:.0f} GB/s, matrix products {ceilings.matrix_tflops:.1f} TFLOP/s; {results.path}"
    )


def _run(setup: Setup, budget: Budget, chosen: Sequence[str], torchserve: bool, add: Callable[[Row], None]) -> None:
    """Run the engine's parts, then those that need the device for themselves."""
    in_process = [part for part in chosen if part != "peers" and not (part == "served" and torchserve)]
    if in_process:
        _run_engine(setup, budget, in_process, add)
        free_device()
    if "served" in chosen and torchserve:
        _run_torchserve(setup, budget, add)
    if "peers" in chosen:
        model, allotment = random_model(setup.shape, setup.device), budget.begin("peers")
        for who in PEERS:
            run_part(Peer(setup, model, who), allotment, add)


def _run_engine(setup: Setup, budget: Budget, chosen: Sequence[str], add: Callable[[Row], None]) -> None:
    with open_engine(setup) as client:
        parts: dict[str, Part] = {
            "offline": Decoding(setup, client),
            "prefill": Prefill(setup, client),
            "split": StepSplit(setup, client),
            "served": ServedInProcess(setup, client),
        }
        for part in chosen:
            run_part(parts[part], budget.begin(part), add)


def _run_torchserve(setup: Setup, budget: Budget, add: Callable[[Row], None]) -> None:
    from tests.bench.gpu.served_by_torchserve import torchserve_part  # needs the server's packages, and the rest does not

    with tempfile.TemporaryDirectory() as scratch, torchserve_part(setup, Path(scratch)) as part:
        run_part(part, budget.begin("served"), add)


def _tell(row: Row, results: Results, console: Console) -> None:
    console.print(str(row), markup=False, soft_wrap=True)
    results.add(row)


def _choose_parts(text: str) -> list[str]:
    """Return the parts that were asked for, in the order in which they run."""
    names = text.split(",")
    for name in names:
        if name not in _PARTS:
            raise CannotRun(f"--parts: there is no {name!r}, use {', '.join(_PARTS)}")
    return [part for part in _SHARES if part in names]


def _numbers(option: str, text: str) -> list[int]:
    numbers = text.split(",")
    if not all(number.isdecimal() and int(number) for number in numbers):
        raise CannotRun(f"{option}: {text!r} is no list of numbers, write 1,8,64")
    return [int(number) for number in numbers]


def _choose_device(name: str, shape: str) -> torch.device:
    if shape not in SHAPES:
        raise CannotRun(f"--shape: there is no {shape!r}, use {', '.join(SHAPES)}")
    if name not in ("auto", "cuda", "cpu"):
        raise CannotRun(f"--device: there is no {name!r}, use auto, cuda or cpu")
    if name != "cpu" and torch.cuda.is_available():
        return torch.device("cuda")
    if name == "cpu" or (name == "auto" and shape == REHEARSAL):
        return torch.device("cpu")
    raise CannotRun(f"no CUDA device is here; on a CPU it can be rehearsed: --device cpu --shape {REHEARSAL}")


def _device_name(device: torch.device) -> str:
    return torch.cuda.get_device_name(device) if device.type == "cuda" else "CPU"


def _through_torchserve(served: str, shape: str) -> bool:
    """Return whether clients go through TorchServe."""
    if served not in ("auto", "torchserve", "process"):
        raise CannotRun(f"--served: there is no {served!r}, use auto, torchserve or process")
    if served == "process" or (served == "auto" and shape not in _BY_TORCHSERVE):
        return False
    if _has_torchserve():
        return True
    if served == "auto":
        return False
    raise CannotRun("--served torchserve needs a Java runtime and the packages of marquee[serve]; --served process does without")


def _has_torchserve() -> bool:
    try:
        from tests.bench.gpu.served_by_torchserve import has_torchserve
    except ModuleNotFoundError:
        return False
    return has_torchserve()


if __name__ == "__main__":
    typer.run(main)
