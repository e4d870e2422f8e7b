"""A GGUF file becomes a model: with its weights as they are packed, dequantized, or left to llama.cpp."""

from __future__ import annotations

import importlib.util
import logging
from typing import TYPE_CHECKING, Any

from handlers.gguf_file import GgufFile
from handlers.weights.checkpoint import Checkpoint
from handlers.weights.gguf.families import ROTARY_FACTORS, is_readable, model_config, tensor_names

if TYPE_CHECKING:
    from transformers import PreTrainedModel

logger = logging.getLogger(__name__)


def load_gguf(checkpoint: Checkpoint, engine_name: str) -> Any:
    """Load the GGUF file of ``checkpoint`` for an engine (``handler.engine.name``).

    Returns a transformers model: with its weights still packed where this machine multiplies them so, for the FAMILIES that are read
    tensor by tensor; for others as transformers dequantizes them. For the engine "llamacpp", and with "auto" for a model that would have
    to be dequantized where llama.cpp is installed, returns the file itself, a GgufFile. Raises ConfigError.
    """
    file = checkpoint.gguf
    assert file is not None, "a checkpoint of another format"
    if engine_name == "llamacpp":
        return file
    if is_readable(file):
        return _load_packed(checkpoint, file)
    if engine_name == "auto" and _prefers_llama_cpp():
        logger.info("%s (%s) runs on llama.cpp", file.path.name, file.architecture)
        return file
    model = checkpoint.load()
    model.generation_config.eos_token_id = sorted(file.eos_token_ids)
    return model


def _load_packed(checkpoint: Checkpoint, file: GgufFile) -> PreTrainedModel:
    import torch

    from handlers.weights.gguf.tensors import GgufTensors
    from handlers.weights.skeleton import fill_model

    names, tensors = tensor_names(file), GgufTensors(file)
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    model = fill_model(model_config(file), names, lambda name: tensors.read(names[name]), checkpoint.cpu_dtype, device)
    if ROTARY_FACTORS in file.tensors:
        model.get_decoder().rotary_emb.inv_freq /= tensors.read_dense(ROTARY_FACTORS).to(device)
    model.generation_config.eos_token_id = sorted(file.eos_token_ids)
    logger.info("loaded %s from %s: %s, on %s", type(model).__name__, file.path.name, model.dtype, device)
    return model


def _prefers_llama_cpp() -> bool:
    import torch

    return not torch.cuda.is_available() and importlib.util.find_spec("llama_cpp") is not None
