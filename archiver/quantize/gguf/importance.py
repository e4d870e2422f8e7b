"""Which columns of a model's matrices matter: the mean squares of what they are multiplied with ("importance matrix").

llama.cpp's quantizer weighs rounding errors by them, as its own tool ``llama-imatrix`` measures them.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from archiver.quantize.gguf.conversion import name_tensors
from archiver.quantize.producer import CalibrationSet, OnProgress

if TYPE_CHECKING:
    import numpy as np
    import torch
    from numpy.typing import NDArray


def measure_importance(checkpoint: Path, calibration: CalibrationSet, on_progress: OnProgress) -> Mapping[str, NDArray[np.float32]]:
    """Return one number for each column of every linear layer, by the tensor's name in GGUF. The whole model is in memory meanwhile."""
    import torch
    from transformers import AutoModelForCausalLM

    names = name_tensors(checkpoint)
    model = AutoModelForCausalLM.from_pretrained(checkpoint, dtype="auto", local_files_only=True).eval()
    # A tied output matrix goes by the embeddings' name.
    embeddings = names["model.embed_tokens.weight"]
    layers = {name: layer for name, layer in model.named_modules() if isinstance(layer, torch.nn.Linear)}
    inputs = {names.get(f"{name}.weight", embeddings): _SquaredInputs(layer) for name, layer in layers.items()}
    with torch.inference_mode():
        for done, sample in enumerate(calibration.samples):
            on_progress("samples", done, len(calibration.samples))
            model(torch.tensor([sample]), use_cache=False)
    return {name: seen.mean() for name, seen in inputs.items()}


class _SquaredInputs:
    """Watches what a linear layer is given, and sums its squares by column."""

    def __init__(self, layer: torch.nn.Linear) -> None:
        self._sums = layer.weight.new_zeros(layer.in_features).float()
        self._num_rows = 0
        layer.register_forward_pre_hook(self._add)

    def _add(self, layer: torch.nn.Module, arguments: tuple[Any, ...]) -> None:
        rows = arguments[0].float().reshape(-1, len(self._sums))  # (num_tokens, in_features)
        self._sums += rows.square().sum(0)
        self._num_rows += len(rows)

    def mean(self) -> NDArray[np.float32]:
        """Return the means, one a column."""
        means: NDArray[np.float32] = (self._sums / max(self._num_rows, 1)).numpy()
        return means
