"""What follows attention in a layer: a multi-layer perceptron, or a router with experts."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from archiver.plan.model.facts import CacheLayer, Role
from archiver.plan.model.family import Family, Kind
from archiver.plan.model.settings import Settings
from archiver.plan.model.weights import Part, Plain, Weight, linear


@dataclass(frozen=True)
class Experts:
    """``num_experts`` perceptrons of ``width``, and one of ``shared_width`` for every token (0: none).

    ``router_vectors``: biases of the router, and the corrections that balance the experts' load.
    """

    hidden_size: int
    width: int
    num_experts: int
    shared_width: int = 0
    is_gated: bool = True
    bias: bool = False
    shared_bias: bool = False
    router_vectors: int = 0
    gates_shared: bool = False

    def weights(self) -> Iterator[Weight]:
        """Yield router, experts, and the shared expert, which is a plain perceptron."""
        yield Weight(Role.ROUTER, self.num_experts, self.hidden_size)
        if self.router_vectors:
            yield Weight(Role.ROUTER, self.num_experts, count=self.router_vectors)
        yield from perceptron(Role.EXPERT, self.hidden_size, self.width, is_gated=self.is_gated, bias=self.bias, count=self.num_experts)
        if self.shared_width:
            yield from perceptron(Role.MLP, self.hidden_size, self.shared_width, is_gated=self.is_gated, bias=self.shared_bias)
        if self.shared_width and self.gates_shared:
            yield Weight(Role.ROUTER, 1, self.hidden_size)

    def cache(self) -> Iterable[CacheLayer]:
        """Yield nothing."""
        return ()


def perceptron(role: Role, hidden_size: int, width: int, *, is_gated: bool = True, bias: bool = False, count: int = 1) -> Iterator[Weight]:
    """Yield ``count`` perceptrons: up, down, and where it is gated (SwiGLU, GeGLU) the gate."""
    yield from linear(role, width, hidden_size, bias=bias, count=(1 + is_gated) * count)
    yield from linear(role, hidden_size, width, bias=bias, count=count)


def read_feed_forward(settings: Settings, family: Family, layer: int, kind: Kind) -> Part:
    """Return what follows attention in a layer, or is all of it; raises UsageError for sizes that are missing."""
    hidden_size = settings.number("hidden_size")
    if kind == "experts" or (kind != "mlp" and has_experts(settings, layer)):
        return Experts(
            hidden_size,
            expert_width(settings),
            settings.number("num_experts"),
            _shared_width(settings),
            is_gated=family.is_gated,
            bias=settings.flag(family.expert_bias),
            shared_bias=settings.flag(family.mlp_bias),
            router_vectors=family.router_bias + family.corrects_router,
            gates_shared=family.gates_shared_expert,
        )
    width = dense_width(settings, layer)
    return Plain(tuple(perceptron(Role.MLP, hidden_size, width, is_gated=family.is_gated, bias=settings.flag(family.mlp_bias))))


def dense_width(settings: Settings, layer: int = 0) -> int:
    """Return the inner size of a layer without experts."""
    if settings.get("intermediate_size_mlp") is not None:  # of Llama 4, whose intermediate_size is that of experts
        return settings.number("intermediate_size_mlp")
    if settings.number("num_experts", 0) == 0 and settings.get("shared_intermediate_size"):  # of Granite 4 without experts
        return settings.number("shared_intermediate_size")
    width = _inner_size(settings, layer)
    if settings.flag("block_auto_adjust_ff_dim"):  # of LFM2, whose width is that before it was gated
        multiple = settings.number("block_multiple_of", 256)
        return -(-int(2 * width / 3) // multiple) * multiple
    return width


def expert_width(settings: Settings) -> int:
    """Return the inner size of one expert."""
    return settings.number("moe_intermediate_size", _inner_size(settings))


def _inner_size(settings: Settings, layer: int = 0) -> int:
    """Four times the outer one where nothing is said, as in GPT-2, BLOOM, MPT and Falcon."""
    default = settings.number("expansion_ratio", 4) * settings.number("hidden_size")
    return settings.number("intermediate_size", default, layer=layer)


def has_experts(settings: Settings, layer: int) -> bool:
    """Whether a layer has experts: in which ones they stand, each family says with keys of its own."""
    if settings.number("num_experts", 0) == 0:
        return False
    if settings.get("moe_layers") is not None:
        return layer in settings.items("moe_layers")
    if layer < settings.number("first_k_dense_replace", settings.number("moe_layer_start_index", 0)):
        return False
    if layer in settings.items("mlp_only_layers"):
        return False
    if period := settings.number("expert_layer_period", 0):
        return layer % period == settings.number("expert_layer_offset", 0)
    step = max(settings.number(key, 1) for key in ("decoder_sparse_step", "interleave_moe_layer_step", "moe_layer_interval"))
    return (layer + 1) % max(step, 1) == 0


def _shared_width(settings: Settings) -> int:
    one_by_one = settings.number("num_shared_experts", 0) * expert_width(settings)
    return settings.number("shared_expert_intermediate_size", settings.number("shared_intermediate_size", one_by_one))
