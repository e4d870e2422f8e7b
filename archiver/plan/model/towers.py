"""What sees in a multimodal model: the size of vision towers and of their projectors into the language model.

Towers stay plain in every format and whole on every rank, so a number of elements is all that a plan needs of them. Facts from published
configurations and transformers' model definitions.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass

from archiver.plan.model.settings import Settings

_SECTIONS = ("vision_config", "audio_config")


@dataclass(frozen=True)
class Tower:
    """A tower with its projector; one whose kind ``is_known`` not counts as far as its settings are those of any transformer."""

    num_elements: int
    is_known: bool


def read_towers(whole: Settings, hidden_size: int) -> Iterator[Tower]:
    """Yield the towers of a model; ``hidden_size`` is its language model's. Raises UsageError for sizes that are missing."""
    for tower in (whole.section(name) for name in _SECTIONS):
        if tower is None:
            continue
        # In flat configurations a tower has no kind of its own.
        count = _TOWERS.get(str(tower.get("model_type") or whole.get("model_type")))
        yield Tower(count(tower, whole, hidden_size), True) if count else Tower(_guess(tower), False)


def _guess(tower: Settings) -> int:
    if tower.get("hidden_size") is None or tower.get("num_hidden_layers") is None:
        return 0
    return _layers(tower, tower.number("hidden_size"), tower.number("num_hidden_layers"))


def _layers(
    vision: Settings, width: int, depth: int, *, inner: int = 0, is_gated: bool = False, bias: bool = True, norm_vectors: int = 2
) -> int:
    inner = inner or vision.number("intermediate_size", 4 * width)
    matrices = 4 * width**2 + (2 + is_gated) * width * inner
    biases = 5 * width + (1 + is_gated) * inner if bias else 0
    return depth * (matrices + biases + 2 * norm_vectors * width)


def _patches(vision: Settings, width: int, *, bias: bool = False) -> int:
    channels = vision.number("num_channels", vision.number("in_channels", 3)) * vision.number("temporal_patch_size", 1)
    return channels * vision.number("patch_size") ** 2 * width + bias * width


def _positions(vision: Settings, width: int) -> int:
    return (vision.number("image_size") // vision.number("patch_size")) ** 2 * width


def _siglip(vision: Settings, whole: Settings, hidden_size: int) -> int:
    """Of Gemma 3."""
    width, inner = vision.number("hidden_size"), vision.number("intermediate_size")
    head = 4 * width**2 + 2 * width * inner + inner + 8 * width if vision.get("vision_use_head") is not False else 0
    tower = _patches(vision, width, bias=True) + _positions(vision, width) + 2 * width + head
    return tower + _layers(vision, width, vision.number("num_hidden_layers")) + width * hidden_size + width


def _clip(vision: Settings, whole: Settings, hidden_size: int) -> int:
    """Of LLaVA."""
    width = vision.number("hidden_size")
    tower = _patches(vision, width) + _positions(vision, width) + 6 * width
    projector = (width + 1) * hidden_size + (hidden_size + 1) * hidden_size
    return tower + _layers(vision, width, vision.number("num_hidden_layers")) + projector


def _pixtral(vision: Settings, whole: Settings, hidden_size: int) -> int:
    """Of Mistral Small 3.1 and Pixtral; the former merges patches first."""
    width, depth = vision.number("hidden_size"), vision.number("num_hidden_layers")
    tower = _patches(vision, width) + width + _layers(vision, width, depth, is_gated=True, bias=False, norm_vectors=1)
    biases = 2 * hidden_size if whole.flag("multimodal_projector_bias") else 0
    merger = width + whole.number("spatial_merge_size", 2) ** 2 * width**2 if whole.get("model_type") == "mistral3" else 0
    return tower + merger + width * hidden_size + hidden_size**2 + biases


def _llama4(vision: Settings, whole: Settings, hidden_size: int) -> int:
    width, projected = vision.number("hidden_size"), vision.number("projector_output_dim", 4096)
    tower = _patches(vision, width) + _positions(vision, width) + 6 * width
    adapter = vision.number("intermediate_size") * projected + projected**2
    projector = vision.number("vision_output_dim") * hidden_size
    return tower + _layers(vision, width, vision.number("num_hidden_layers")) + adapter + projector


def _qwen2_vl(vision: Settings, whole: Settings, hidden_size: int) -> int:
    width = vision.number("embed_dim", 1280)
    layers = _layers(vision, width, vision.number("depth"), inner=vision.number("mlp_ratio", 4) * width)
    return _patches(vision, width) + layers + 2 * width + _qwen_merger(vision, width, vision.number("hidden_size"))


def _qwen2_5_vl(vision: Settings, whole: Settings, hidden_size: int) -> int:
    width = vision.number("hidden_size")
    layers = _layers(vision, width, vision.number("depth"), is_gated=True, norm_vectors=1)
    return _patches(vision, width) + layers + width + _qwen_merger(vision, width, hidden_size)


def _qwen3_vl(vision: Settings, whole: Settings, hidden_size: int) -> int:
    """The output of some layers is merged, too."""
    width, merged = vision.number("hidden_size"), vision.number("spatial_merge_size", 2) ** 2 * vision.number("hidden_size")
    layers = _layers(vision, width, vision.number("depth")) + vision.number("num_position_embeddings") * width
    num_tapped = len(vision.items("deepstack_visual_indexes"))
    mergers = (1 + num_tapped) * _qwen_merger(vision, width, hidden_size) + 2 * width + num_tapped * 2 * merged
    return _patches(vision, width, bias=True) + layers + mergers


def _qwen_merger(vision: Settings, width: int, hidden_size: int) -> int:
    merged, hidden_size = vision.number("spatial_merge_size", 2) ** 2 * width, vision.number("out_hidden_size", hidden_size)
    return (merged + 1) * merged + (merged + 1) * hidden_size


_TOWERS: Mapping[str, Callable[[Settings, Settings, int], int]] = {
    "siglip_vision_model": _siglip,
    "clip_vision_model": _clip,
    "pixtral": _pixtral,
    "llama4_vision_model": _llama4,
    "qwen2_vl": _qwen2_vl,
    "qwen2_vl_vision": _qwen2_vl,
    "qwen2_5_vl": _qwen2_5_vl,
    "qwen2_5_vl_vision": _qwen2_5_vl,
    "qwen3_vl": _qwen3_vl,
    "qwen3_vl_vision": _qwen3_vl,
    "qwen3_vl_moe": _qwen3_vl,
    "qwen3_vl_moe_vision": _qwen3_vl,
}
"""By ``model_type`` of the tower's section."""
