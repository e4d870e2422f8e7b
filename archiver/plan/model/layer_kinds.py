"""Which layers of a model attend to all tokens, to a window, or have recurrent parts: each family says so with keys of its own."""

from __future__ import annotations

from collections.abc import Mapping

from archiver.errors import UsageError
from archiver.plan.model.family import Family, Kind
from archiver.plan.model.settings import Settings

_MAX_LAYERS = 2048
_NAMES: Mapping[str, Kind] = {
    "sliding_attention": "sliding",
    "chunked_attention": "sliding",
    "linear_attention": "recurrent",
    "mamba": "recurrent",
    "mamba2": "recurrent",
    "conv": "recurrent",
    "hybrid": "both",
    "mlp": "mlp",
    "moe": "experts",
}
"""In ``layer_types``; any other is taken for attention to all, which keeps the most."""
_LETTERS: Mapping[str, Kind] = {"M": "recurrent", "*": "full", "-": "mlp", "E": "experts"}
"""In Nemotron-H's ``hybrid_override_pattern``."""


def layer_kinds(settings: Settings, family: Family) -> list[Kind]:
    """Return the kind of each layer; raises UsageError for a number of layers, or a list of them, that cannot be right."""
    num_layers = read_num_layers(settings)
    kinds = _named(settings) or _hybrid(settings, num_layers) or _windowed(settings, family, num_layers)
    if len(kinds) != num_layers:
        raise UsageError(f"{settings.origin} names {len(kinds)} layers where num_hidden_layers is {num_layers}; download it again")
    return kinds if family.recurrence else ["full" if kind in ("recurrent", "both") else kind for kind in kinds]


def read_num_layers(settings: Settings) -> int:
    """Return the number of layers; raises UsageError if it is missing, or more than any model has."""
    num_layers = settings.number("num_hidden_layers", len(_named(settings)) or None)
    if not 0 < num_layers <= _MAX_LAYERS:
        raise UsageError(f"{settings.origin} has {num_layers} as num_hidden_layers, which must be 1 to {_MAX_LAYERS}")
    return num_layers


def read_window(settings: Settings, family: Family) -> int | None:
    """Return the tokens of a sliding window, or of a chunk; None where nothing slides."""
    if settings.get("use_sliding_window") is False or not settings.get(family.window):
        return None
    return settings.number(family.window)


def _named(settings: Settings) -> list[Kind]:
    if pattern := settings.get("hybrid_override_pattern"):
        return [_LETTERS.get(letter, "full") for letter in str(pattern)]
    return [_NAMES.get(str(name), "full") for name in settings.items("layer_types")]


def _hybrid(settings: Settings, num_layers: int) -> list[Kind]:
    if period := settings.number("attn_layer_period", 0):
        attends = {layer for layer in range(num_layers) if layer % period == settings.number("attn_layer_offset", 0)}
    elif interval := settings.number("full_attention_interval", 0):
        attends = {layer for layer in range(num_layers) if (layer + 1) % interval == 0}
    elif indices := settings.items("attn_layer_indices") or settings.items("full_attn_idxs"):
        attends = set(indices)
    else:
        return []
    return ["full" if layer in attends else "recurrent" for layer in range(num_layers)]


def _windowed(settings: Settings, family: Family, num_layers: int) -> list[Kind]:
    if read_window(settings, family) is None:
        return [family.kind] * num_layers
    if without_positions := settings.items("no_rope_layers"):  # 0: the layer has no positions, and sees all
        return ["sliding" if has_positions else "full" for has_positions in without_positions]
    first = settings.number("max_window_layers", 0)  # Qwen's lower layers see all
    period = _full_period(settings, family)
    return ["sliding" if layer >= first and (not period or (layer + 1) % period) else "full" for layer in range(num_layers)]


def _full_period(settings: Settings, family: Family) -> int:
    """Gemma 3 writes 6, EXAONE 4 "LLLG" for its period of four."""
    pattern = settings.get("sliding_window_pattern")
    return len(pattern) if isinstance(pattern, str) else settings.number("sliding_window_pattern", family.full_period)
