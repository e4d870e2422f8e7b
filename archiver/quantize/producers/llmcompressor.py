"""Produce compressed-tensors checkpoints with llmcompressor: GPTQ, AWQ, SmoothQuant and plain rounding.

This file runs in llmcompressor's own environment, which has no Marquee. Memory: the whole source model, and on top of it the calibration
samples' activations between two layers and one layer's statistics, since calibration goes layer by layer.
"""

from __future__ import annotations

from collections.abc import Mapping
from importlib.metadata import version
from typing import TYPE_CHECKING, Any

import torch
from llmcompressor import oneshot
from llmcompressor.modifiers import Modifier
from llmcompressor.modifiers.gptq import GPTQModifier
from llmcompressor.modifiers.quantization import QuantizationModifier
from llmcompressor.modifiers.transform.awq import AWQModifier
from llmcompressor.modifiers.transform.smoothquant import SmoothQuantModifier
from llmcompressor.pipelines.cache import IntermediatesCache
from torch.utils.data import DataLoader
from transformers import AutoModelForCausalLM

if TYPE_CHECKING:
    from archiver.quantize.producer import CalibrationSet, Job, OnProgress

_PACKAGES = ("llmcompressor", "compressed-tensors", "transformers", "torch")


def produce(job: Job) -> Mapping[str, str]:
    """Quantize as ``job.options["method"]`` says."""
    if not torch.cuda.is_available():
        # AWQ pins memory for a GPU; without one that is an error, not a waste.
        IntermediatesCache.pin_memory = lambda *arguments, **options: None
    job.on_progress("loading", 0, 1)
    model = AutoModelForCausalLM.from_pretrained(job.source, dtype="auto", local_files_only=True)
    if job.calibration is None:
        job.on_progress("quantizing", 0, 1)
        oneshot(model=model, recipe=_modifiers(job.options), pipeline="datafree")
    else:
        recipe = [*_modifiers(job.options), _progress(model, job.on_progress)]
        oneshot(model=model, recipe=recipe, pipeline="sequential", **_dataset(job.calibration))
    if not any(hasattr(module, "quantization_scheme") for module in model.modules()):
        raise ValueError(f"{type(model).__name__} has no layer that this recipe quantizes")
    job.on_progress("saving", 0, 1)
    model.save_pretrained(job.out, save_compressed=True)
    (job.out / "recipe.yaml").unlink(missing_ok=True)  # llmcompressor's own; the receipt says it all
    return {package: version(package) for package in _PACKAGES}


def _modifiers(options: Mapping[str, Any]) -> list[Modifier]:
    """llmcompressor's words for our options."""
    ignore = list(options["ignore"])
    match options["method"]:
        case "gptq":
            weights = _weights(options, symmetric=options["symmetric"])
            order = "static" if options["activation_order"] else None
            return [GPTQModifier(config_groups=weights, ignore=ignore, dampening_frac=options["damping"], actorder=order)]
        case "awq":
            weights = _weights(options, symmetric=not options["zero_point"])
            return [AWQModifier(n_grid=options["num_grid"]), QuantizationModifier(config_groups=weights, ignore=ignore)]
        case "smoothquant":
            smooth = SmoothQuantModifier(smoothing_strength=options["smoothing"])
            return [smooth, GPTQModifier(scheme="W8A8", ignore=ignore, dampening_frac=options["damping"])]
        case _:
            return [QuantizationModifier(scheme=options["scheme"], ignore=ignore)]


def _weights(options: Mapping[str, Any], *, symmetric: bool) -> dict[str, Any]:
    size = options["group_size"]
    group = {"strategy": "group", "group_size": size} if size else {"strategy": "channel"}
    weights = {"num_bits": options["bits"], "type": "int", "symmetric": symmetric, **group}
    return {"group_0": {"targets": ["Linear"], "weights": weights}}


def _dataset(calibration: CalibrationSet) -> dict[str, Any]:
    ids = [torch.tensor([sample]) for sample in calibration.samples]
    batches = [{"input_ids": sample, "attention_mask": torch.ones_like(sample)} for sample in ids]
    # A sample a batch, as GPTQ's and AWQ's authors do: none is padded. The loader is there to be asked for, since shuffling is done.
    loader: DataLoader[Any] = DataLoader(batches, batch_size=None)  # type: ignore[arg-type]
    return {"dataset": loader, "num_calibration_samples": len(batches), "max_seq_length": calibration.max_length}


def _progress(model: Any, on_progress: OnProgress) -> Modifier:
    """Return a modifier that modifies nothing, but hears of each layer that is done."""
    num_layers = model.config.get_text_config().num_hidden_layers
    on_progress("layers", 0, num_layers)

    class Progress(Modifier):  # type: ignore[misc]  # mypy does not see llmcompressor
        """Stands last: what it hears of, the others are done with."""

        num_done: int = 0

        def on_initialize(self, state: Any, **kwargs: Any) -> bool:
            return True

        def on_sequential_epoch_end(self, state: Any, event: Any, **kwargs: Any) -> None:
            self.num_done += 1
            on_progress("layers", min(self.num_done, num_layers), num_layers)

    return Progress()
