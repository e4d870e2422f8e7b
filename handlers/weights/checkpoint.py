"""A checkpoint directory: checked before it is loaded, loaded from safetensors or GGUF only."""

from __future__ import annotations

import functools
import json
import logging
import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from handlers.config import HandlerConfig, ModelConfig
from handlers.errors import ConfigError
from handlers.gguf_file import GgufFile, find_gguf
from handlers.quant.quantization_config import StoredQuantization, find_quantization
from handlers.requests import SamplingParams

logger = logging.getLogger(__name__)

_FITTING_SHARE = 0.9
"""Of a GPU's free memory: the rest is for a step, and for blocks of keys and values."""

# What GGUF files call the recommendations of generation_config.json, after "general.sampling.".
_GGUF_SAMPLING = {"temperature": "temp", "top_p": "top_p", "top_k": "top_k", "min_p": "min_p", "repetition_penalty": "penalty_repeat"}


@dataclass(frozen=True)
class Checkpoint:
    """A Hugging Face checkpoint, or the GGUF file in ``directory``, that may be loaded under the operator's configuration."""

    directory: Path
    config: ModelConfig
    gguf: GgufFile | None = None

    @classmethod
    def open(cls, directory: Path, config: ModelConfig) -> Checkpoint:
        """Check ``directory`` without reading weights; raise ConfigError if it is no checkpoint or needs what the configuration forbids."""
        if file := find_gguf(directory):
            return cls(directory, config, GgufFile.open(file))
        model = _read_json(directory / "config.json")
        if "auto_map" in model and not config.trust_remote_code:
            raise ConfigError(
                "the checkpoint brings its own code (auto_map in config.json); to run it set handler.model.trust_remote_code: true, "
                "or, if transformers knows this architecture itself, delete auto_map"
            )
        if not any(directory.glob("*.safetensors")) and not config.allow_pickle:
            raise ConfigError(
                f"no *.safetensors in {directory.name}/; convert the weights with save_pretrained(), "
                "or, if you trust their author, set handler.model.allow_pickle: true"
            )
        return cls(directory, config)

    @classmethod
    def open_draft(cls, model_dir: Path, config: HandlerConfig) -> Checkpoint | None:
        """Check the checkpoint of the draft model that the configuration asks for; None if it asks for none. Raises as ``open``."""
        speculation = config.engine.speculation
        return cls.open(model_dir / speculation.draft_model, config.model) if speculation.method == "draft" else None

    @functools.cached_property
    def sampling_defaults(self) -> SamplingParams:
        """What the checkpoint's author recommends (generation_config.json) for requests that do not say; temperature 1 otherwise."""
        given = self._recommendations()
        default = SamplingParams()
        temperature = 0 if given.get("do_sample") is False else _number(given, "temperature", default.temperature)
        return SamplingParams(
            temperature=float(temperature),
            top_p=float(_number(given, "top_p", default.top_p)),
            top_k=int(_number(given, "top_k", default.top_k)),
            min_p=float(_number(given, "min_p", default.min_p)),
            repetition_penalty=float(_number(given, "repetition_penalty", default.repetition_penalty)),
        )

    @functools.cached_property
    def settings(self) -> dict[str, Any]:
        """The whole of config.json; empty for a GGUF file."""
        return {} if self.gguf else _read_json(self.directory / "config.json")

    @functools.cached_property
    def quantization(self) -> StoredQuantization | None:
        """What config.json says of quantized weights; None for plain ones and GGUF files. Raises ConfigError if it does not say which."""
        return None if self.gguf else find_quantization(self.settings)

    def load(self, *, quantization: Any = None, dtype: str | None = None) -> Any:
        """Return the transformers model, ready for inference: on torch's current GPU, on all of them if it is too large, or on the CPU.

        ``quantization`` is transformers' configuration of one; ``dtype`` goes before what the operator and the checkpoint say. A GGUF file
        is dequantized. Raises ConfigError if the files cannot be read or do not hold every tensor: transformers itself would go on with
        random numbers.
        """
        import torch
        from safetensors import SafetensorError
        from transformers import AutoModelForCausalLM
        from transformers.utils.logging import disable_progress_bar

        disable_progress_bar()  # A worker's log is no terminal.

        has_gpu = torch.cuda.is_available()
        try:
            model, report = AutoModelForCausalLM.from_pretrained(
                self.directory,
                dtype=dtype or (self.config.dtype if has_gpu else self.cpu_dtype),
                quantization_config=quantization,
                device_map=self._device_map() if has_gpu else None,
                local_files_only=True,
                use_safetensors=None if self.config.allow_pickle else True,
                trust_remote_code=self.config.trust_remote_code,
                gguf_file=self.gguf.path.name if self.gguf else None,
                output_loading_info=True,
            )
        except (OSError, ValueError, SafetensorError) as error:
            raise ConfigError(f"cannot load {self.directory.name}/: {' '.join(str(error).split())}") from error
        if missing := sorted(report["missing_keys"]):
            raise ConfigError(f"{self.directory.name}/ lacks {len(missing)} tensors of its model, {missing[0]} for one")
        logger.info("loaded %s: %d parameters, %s, on %s", type(model).__name__, model.num_parameters(), model.dtype, model.device)
        return model.eval()

    def _device_map(self) -> Any:
        """Return where to load, for accelerate: its "auto" spreads what fits into one GPU over all, which no fast runner of ours takes."""
        import torch

        current = torch.cuda.current_device()
        files = self._weight_bytes()
        return {"": current} if files <= _FITTING_SHARE * torch.cuda.mem_get_info(current)[0] else "auto"

    def _weight_bytes(self) -> int:
        """Return about what the weights take in memory: what their files take, four times that for GGUF, which is dequantized."""
        if self.gguf:
            return 4 * self.gguf.path.stat().st_size
        return sum(file.stat().st_size for pattern in ("*.safetensors", "pytorch_model*.bin") for file in self.directory.glob(pattern))

    @property
    def cpu_dtype(self) -> Any:
        """The ``torch.dtype`` to compute in on a CPU: half precision pays only where the instructions exist; elsewhere it is slower."""
        import torch

        if self.config.dtype != "auto":
            return getattr(torch, self.config.dtype)
        if self._stored_dtype() not in ("bfloat16", "float16"):
            return torch.float32
        has_bfloat16 = torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported()
        return torch.bfloat16 if has_bfloat16 else torch.float32

    @property
    def gpu_dtype(self) -> Any:
        """The ``torch.dtype`` to compute in on a GPU: what the weights are stored in, unless the operator says another."""
        import torch

        return getattr(torch, self._stored_dtype() if self.config.dtype == "auto" else self.config.dtype)

    def dtype_on(self, device: Any) -> Any:
        """The ``torch.dtype`` to compute in on a ``torch.device``."""
        return self.cpu_dtype if device.type == "cpu" else self.gpu_dtype

    def _stored_dtype(self) -> str:
        """Return what the weights are stored in; what is quantized is meant for half precision."""
        if self.gguf:
            return "float32" if all(tensor.type == "F32" for tensor in self.gguf.tensors.values()) else "bfloat16"
        return self.settings.get("dtype") or self.settings.get("torch_dtype") or "float32"

    def _recommendations(self) -> dict[str, Any]:
        if self.gguf:
            return {name: self.gguf.metadata.get(f"general.sampling.{key}") for name, key in _GGUF_SAMPLING.items()}
        path = self.directory / "generation_config.json"
        return _read_json(path) if path.exists() else {}


def eos_token_ids(model: Any) -> frozenset[int]:
    """Return the token ids that end a sequence of this transformers model, or GGUF file."""
    if isinstance(model, GgufFile):
        return model.eos_token_ids
    ids = getattr(model.generation_config, "eos_token_id", None)
    return frozenset([ids] if isinstance(ids, int) else ids or ())


def _number(given: dict[str, Any], name: str, default: float) -> float:
    value = default if given.get(name) is None else given[name]
    if not isinstance(value, int | float) or isinstance(value, bool) or not 0 <= value < math.inf:
        raise ConfigError(f"{name} in generation_config.json (GGUF: general.sampling) must be a number from 0 up, got {value!r}")
    if name == "repetition_penalty" and value == 0:
        raise ConfigError("repetition_penalty in generation_config.json (GGUF: general.sampling) must be above 0; 1 is none")
    return value


def _read_json(path: Path) -> dict[str, Any]:
    name = f"{path.parent.name}/{path.name}"
    try:
        value = json.loads(path.read_text("utf-8"))
    except OSError as error:
        raise ConfigError(f"cannot read {name}: {error.strerror}") from error
    except ValueError as error:
        raise ConfigError(f"{name} is not valid JSON: {error}") from error
    if not isinstance(value, dict):
        raise ConfigError(f"{name} must hold a JSON object, not {type(value).__name__}")
    return value
