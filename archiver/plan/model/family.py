"""How the layers of one model family are built, where config.json does not say it: a row of the table of families."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from archiver.plan.model.settings import Settings
from archiver.plan.model.weights import Weight

Rule = bool | str
"""Always, never, or if a key of config.json is set."""

Kind = Literal["full", "sliding", "recurrent", "both", "mlp", "experts"]
"""What a layer mixes tokens with: attention to all or to a window, a recurrent part, attention beside a recurrent part; or that it only
is a perceptron, or experts, in a model whose layers are one of these each."""

Recurrence = Literal["", "mamba", "mamba2", "delta", "convolution"]


def _none(settings: Settings) -> Iterable[Weight]:
    return ()


@dataclass(frozen=True)
class Family:
    """One family; the fields' own defaults are Llama's.

    ``defaults``: what transformers assumes where a config.json is silent. Of norms: ``norm_vectors`` each has (a layer norm has a bias,
    too), and ``num_norms`` in a layer. ``qk_norm``: one for all heads alike ("head"), or a weight of its own for each ("heads").
    ``full_period``: every so many-th layer attends to all, those before it to a window (of as many tokens as the key ``window`` says).
    ``kind``: of all layers, where config.json does not say which is which; ``recurrence``: the recurrent part of a model that has one.
    ``positions``: how many rows more than positions a learned table has. ``corrects_router``: a bias an expert, which balances their load.
    ``extras``: what else a family has, once and in each layer.
    """

    defaults: Mapping[str, Any] = field(default_factory=dict)
    norm_vectors: int = 1
    num_norms: int | Callable[[Settings], int] = 2
    has_final_norm: Rule = True
    has_one_part_a_layer: bool = False
    qkv_bias: Rule = "attention_bias"
    out_bias: Rule = "attention_bias"
    qk_norm: Literal["", "head", "heads"] = ""
    has_qk_norm: Rule = True
    has_output_gate: bool = False
    has_sinks: bool = False
    window: str = "sliding_window"
    full_period: int = 0
    is_gated: bool = True
    mlp_bias: Rule = "mlp_bias"
    router_bias: bool = False
    corrects_router: bool = False
    expert_bias: Rule = False
    gates_shared_expert: bool = False
    positions: int | None = None
    has_embedding_norm: bool = False
    head_bias: Rule = False
    kind: Kind = "full"
    recurrence: Recurrence = ""
    extras: Callable[[Settings], Iterable[Weight]] = _none
    extras_of_layer: Callable[[Settings], Iterable[Weight]] = _none
