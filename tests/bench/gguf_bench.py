"""The ways to run a GGUF file, in turns: packed in our kernels, llama.cpp's kernels, dequantized by transformers.

    python -m tests.bench.gguf_bench ./model-Q8_0.gguf ./model-Q4_K_M.gguf

All behind our own engine, in process. Needs the extra ``gguf``.
"""

from __future__ import annotations

import tempfile
from functools import partial
from pathlib import Path
from typing import Any

import typer

from archiver.quantize.speed import WORKLOAD, measure_speeds
from handlers.config import ModelConfig
from handlers.weights.checkpoint import Checkpoint
from handlers.weights.gguf import load_gguf

WAYS = ("packed", "llama.cpp", "dequantized")


def load(file: Path, way: str) -> Any:
    """Return the model of a file for the engine, in one of the WAYS."""
    with tempfile.TemporaryDirectory() as directory:
        Path(directory, file.name).symlink_to(file.resolve())
        checkpoint = Checkpoint.open(Path(directory), ModelConfig())
        if way == "dequantized":
            return checkpoint.load()
        model = load_gguf(checkpoint, "llamacpp" if way == "llama.cpp" else "continuous")
        return model if way == "packed" else type(model).open(file)  # the directory goes


def main(files: list[Path]) -> None:
    """Print generated tokens a second, medians with the lowest and the highest."""
    loaders = {f"{file.stem}, {way}": partial(load, file, way) for file in files for way in WAYS}
    print(WORKLOAD)
    for name, speeds in measure_speeds(loaders, lambda *_: None).items():
        print(f"{name:60}", *(f"{streams} streams {s.median:5.0f} ({s.low:.0f}-{s.high:.0f})" for streams, s in speeds.items()), sep="  ")


if __name__ == "__main__":
    typer.run(main)
