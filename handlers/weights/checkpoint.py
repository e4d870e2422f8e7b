"""A checkpoint directory: checked before it is loaded, loaded from safetensors only."""

from __future__ import annotations

import json
import logging
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from handlers.config import ModelConfig
from handlers.errors import ConfigError
from handlers.requests import SamplingParams

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Checkpoint:
    """A Hugging Face checkpoint that may be loaded under the operator's configuration."""

    directory: Path
    config: ModelConfig

    @classmethod
    def open(cls, directory: Path, config: ModelConfig) -> Checkpoint:
        """Check ``directory`` without reading weights; raise ConfigError if it is no checkpoint or needs what the configuration forbids."""
        model = _read_json(directory / "config.json")
        if "auto_map" in model and not config.trust_remote_code:
            raise ConfigError("the checkpoint brings its own code (auto_map in config.json); to run it set handler.model.trust_remote_code: true")
        if not any(directory.glob("*.safetensors")) and not config.allow_pickle:
            raise ConfigError(
                f"no *.safetensors in {directory.name}/; convert the weights with save_pretrained(), "
                "or, if you trust their author, set handler.model.allow_pickle: true"
            )
        return cls(directory, config)

    @property
    def sampling_defaults(self) -> SamplingParams:
        """What the checkpoint's author recommends (generation_config.json) for requests that do not say; temperature 1 otherwise."""
        path = self.directory / "generation_config.json"
        given = _read_json(path) if path.exists() else {}
        if given.get("do_sample") is False:
            return SamplingParams(temperature=0.0)
        default = SamplingParams()
        return SamplingParams(
            temperature=given.get("temperature") or default.temperature,
            top_p=given.get("top_p") or default.top_p,
            top_k=given.get("top_k") or default.top_k,
        )

    def load(self) -> Any:
        """Return the transformers model, ready for inference: on the GPUs there are (accelerate's ``device_map``), else on the CPU."""
        import torch
        from transformers import AutoModelForCausalLM

        has_gpu = torch.cuda.is_available()
        model = AutoModelForCausalLM.from_pretrained(
            self.directory,
            dtype=self.config.dtype if has_gpu or self.config.dtype != "auto" else self._cpu_dtype(),
            device_map="auto" if has_gpu else None,
            local_files_only=True,
            use_safetensors=None if self.config.allow_pickle else True,
            trust_remote_code=self.config.trust_remote_code,
        )
        logger.info("loaded %s: %d parameters, %s, on %s", type(model).__name__, model.num_parameters(), model.dtype, model.device)
        return model.eval()

    def _cpu_dtype(self) -> Any:
        """On a CPU half precision pays only where the instructions exist; elsewhere it is slower than float32."""
        import torch

        config = _read_json(self.directory / "config.json")
        stored = config.get("dtype") or config.get("torch_dtype") or "float32"
        if stored not in ("bfloat16", "float16"):
            return torch.float32
        has_bfloat16 = torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported()
        return torch.bfloat16 if has_bfloat16 else torch.float32


def eos_token_ids(model: Any) -> frozenset[int]:
    """Return the token ids that end a sequence of this transformers model."""
    ids = getattr(model.generation_config, "eos_token_id", None)
    return frozenset([ids] if isinstance(ids, int) else ids or ())


def _read_json(path: Path) -> dict[str, Any]:
    try:
        return dict(json.loads(path.read_text("utf-8")))
    except OSError as error:
        raise ConfigError(f"cannot read {path.parent.name}/{path.name}: {error.strerror}") from error
    except ValueError as error:
        raise ConfigError(f"{path.parent.name}/{path.name} is not valid JSON: {error}") from error
