"""Load a checkpoint that is quantized already, in any safetensors format, without its library: its linear layers stay packed."""

from __future__ import annotations

import logging
import re
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from handlers.errors import ConfigError
from handlers.native.fp8_linear import Fp8Linear
from handlers.native.packed_linear import PackedLinear
from handlers.native.quantized_matrix import QuantizedMatrix
from handlers.quant.readers import reader_of
from handlers.quant.readers.reader import Reader
from handlers.weights.checkpoint import Checkpoint
from handlers.weights.safetensors_files import SafetensorsFiles
from handlers.weights.skeleton import CPU, Weight, fill_model

if TYPE_CHECKING:
    from transformers import PreTrainedConfig, PreTrainedModel

logger = logging.getLogger(__name__)

_BESIDES = (".k_scale", ".v_scale", ".q_scale")
"""Ends of names that are no weights: the scales of a quantized KV cache, which here is not quantized."""

_EXPERT = re.compile(r"\.experts\.\d+\.")
"""In files each expert has weights of its own; transformers' models hold those of all in one tensor."""


def load_quantized(checkpoint: Checkpoint, device: torch.device = CPU) -> PreTrainedModel:
    """Return the transformers model of a quantized checkpoint, its quantized linear layers as PackedLinear, or as Fp8Linear on a GPU.

    Computes in the checkpoint's dtype for the device. Memory: the quantized weights and one layer's tensors. Raises ConfigError for a
    format or a layout that cannot be read, and for tensors that are missing, too many, or of the wrong shape.
    """
    stored = checkpoint.quantization
    if stored is None:
        raise ConfigError(f"{checkpoint.directory.name}/ is not quantized: its config.json has no quantization_config")
    config = read_config(checkpoint)
    if hasattr(config, "quantization_config"):
        del config.quantization_config  # or transformers would look for the library
    weights = QuantizedWeights(SafetensorsFiles(checkpoint.directory), reader_of(stored))
    if any(_EXPERT.search(name) for name in weights.names):
        raise ConfigError("quantized mixtures of experts are not supported on a CPU; use a GGUF file with handler.engine.name: llamacpp")
    model = fill_model(config, weights.names, weights.read, checkpoint.dtype_on(device), device)
    model.generation_config = generation_config(checkpoint, model)
    packed = sum(isinstance(module, PackedLinear | Fp8Linear) for module in model.modules())
    logger.info("loaded %s: %d layers packed from %s, the rest %s", type(model).__name__, packed, stored.method, model.dtype)
    return model


class QuantizedWeights:
    """The weights of a quantized checkpoint by the names they have in the model, read when they are asked for."""

    def __init__(self, tensors: Mapping[str, Tensor], reader: Reader) -> None:
        ends = tuple(f".{mark}" for mark in reader.marks)
        layers = {name.removesuffix(end) for name in tensors for end in ends if name.endswith(end)}
        self._parts = {
            f"{layer}.weight": {part: name for part in reader.parts if (name := f"{layer}.{part}") in tensors} for layer in layers
        }
        used = {name for parts in self._parts.values() for name in parts.values()}
        self.names = {name for name in tensors if name not in used and not name.endswith(_BESIDES)} | self._parts.keys()
        self._tensors = tensors
        self._reader = reader

    def read(self, name: str) -> Weight:
        """Return one of ``names``, quantized or plain; raises ConfigError if its tensors make no weight."""
        return self._read_quantized(name) if name in self._parts else self._tensors[name]

    def _read_quantized(self, name: str) -> QuantizedMatrix:
        try:
            return self._reader.read({part: self._tensors[stored] for part, stored in self._parts[name].items()})
        except KeyError as error:
            raise ConfigError(f"the checkpoint has no {name.removesuffix('weight')}{error.args[0]}; copy or download it again") from error
        except (ConfigError, LookupError, RuntimeError, ValueError) as error:  # torch's words for shapes that do not fit
            raise ConfigError(f"{name}: {' '.join(str(error).split())}") from error


def read_config(checkpoint: Checkpoint) -> PreTrainedConfig:
    """Return a checkpoint's config.json as transformers reads it; raises ConfigError."""
    from transformers import AutoConfig

    try:
        return AutoConfig.from_pretrained(
            checkpoint.directory, local_files_only=True, trust_remote_code=checkpoint.config.trust_remote_code
        )
    except (OSError, ValueError) as error:
        raise ConfigError(f"cannot load {checkpoint.directory.name}/: {' '.join(str(error).split())}") from error


def generation_config(checkpoint: Checkpoint, model: PreTrainedModel) -> Any:
    """Return how the checkpoint's author wants it to generate; what transformers makes of ``model`` if there is no word of that."""
    from transformers import GenerationConfig

    has_own = (checkpoint.directory / "generation_config.json").exists()
    return GenerationConfig.from_pretrained(checkpoint.directory, local_files_only=True) if has_own else model.generation_config
