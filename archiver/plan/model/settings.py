"""The values of a config.json by name, checked where they are asked for: what is missing or wrong is one line with file and key."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from archiver.errors import UsageError

_MAX_NUMBER = 2**40  # what is larger is no size of a model, and would only keep the arithmetic busy
SYNONYMS: Mapping[str, tuple[str, ...]] = {
    "hidden_size": ("n_embd", "d_model"),
    "num_hidden_layers": ("n_layer", "n_layers", "num_layers"),
    "num_attention_heads": ("n_head", "n_heads", "num_heads"),
    "num_key_value_heads": ("num_kv_heads", "attn_config.kv_n_heads"),
    "head_dim": ("attention_head_dim",),
    "intermediate_size": ("n_inner", "ffn_dim", "ffn_hidden_size"),
    "max_position_embeddings": ("n_positions", "max_seq_len", "n_ctx", "seq_length"),
    "num_experts": ("num_local_experts", "n_routed_experts", "moe_num_experts"),
    "num_experts_per_tok": ("num_experts_per_token", "moe_k", "moe_topk"),
    "num_shared_experts": ("n_shared_experts", "moe_num_shared_experts", "num_shared_expert"),
    "layer_types": ("layers_block_type",),
    "expand": ("mamba_expand",),
    "state_size": ("mamba_d_state", "ssm_state_size"),
    "conv_kernel": ("mamba_d_conv", "linear_conv_kernel_dim", "conv_L_cache"),
    "time_step_rank": ("mamba_dt_rank",),
    "n_groups": ("mamba_n_groups",),
    "mamba_num_heads": ("mamba_n_heads", "num_heads"),
    "mamba_head_dim": ("mamba_d_head", "head_dim"),
    "use_conv_bias": ("mamba_conv_bias",),
    "use_bias": ("mamba_proj_bias",),
}
"""The other names that families have for the same sizes; a dot leads into a section."""


@dataclass(frozen=True)
class Settings:
    """The ``values`` of a configuration, or of a section of one; ``origin`` is its file, for messages."""

    values: Mapping[str, Any]
    origin: str

    def get(self, name: str) -> Any:
        """Return a value under its name or one of its synonyms; None where there is none."""
        found = (self._look_up(alias) for alias in (name, *SYNONYMS.get(name, ())))
        return next((value for value in found if value is not None), None)

    def number(self, name: str, default: int | None = None, *, layer: int = 0) -> int:
        """Return a whole number, from a list of one a layer that of ``layer``; raises UsageError if it is none, or missing without a
        ``default``.
        """
        value = self.get(name)
        if isinstance(value, list) and layer < len(value):
            value = value[layer]
        if value is None and default is not None:
            return default
        if isinstance(value, float) and value.is_integer():
            value = int(value)
        if value is None or isinstance(value, bool) or not isinstance(value, int) or not 0 <= value <= _MAX_NUMBER:
            said = "lacks" if value is None else f"has {value!r} as"
            raise UsageError(f"{self.origin} {said} {self._known_as(name)}, which must be a number; give the model's own config.json")
        return value

    def flag(self, name: str | bool) -> bool:
        """Return whether a value is set and true; a bool instead of a name is itself."""
        return name if isinstance(name, bool) else bool(self.get(name))

    def items(self, name: str) -> list[Any]:
        """Return a list, empty where there is none; raises UsageError for anything else."""
        value = self.get(name)
        if value is not None and not isinstance(value, list | tuple):
            raise UsageError(f"{self.origin} has {value!r} as {name}, which must be a list; give the model's own config.json")
        return list(value or ())

    def section(self, name: str) -> Settings | None:
        """Return the settings of a part of the model; None where there is none. Raises UsageError for anything but an object."""
        value = self.get(name)
        if value is not None and not isinstance(value, Mapping):
            raise UsageError(f"{self.origin} has {value!r} as {name}, which must be an object; give the model's own config.json")
        return None if value is None else replace(self, values=value)

    def with_defaults(self, defaults: Mapping[str, Any]) -> Settings:
        """Return the same settings where keys that are absent, also under synonyms, have default values; a null is a value."""
        silent = {key: value for key, value in defaults.items() if not {key, *SYNONYMS.get(key, ())} & self.values.keys()}
        return replace(self, values={**self.values, **silent})

    def _look_up(self, path: str) -> Any:
        value: Any = self.values
        for key in path.split("."):
            value = value.get(key) if isinstance(value, Mapping) else None
        return value

    def _known_as(self, name: str) -> str:
        others = SYNONYMS.get(name, ())
        return f"{name} (or {', '.join(others)})" if others else name
