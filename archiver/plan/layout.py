"""How a model may be divided among GPUs, and why most ways are wrong: the guide's rules on tensor, pipeline and data parallelism."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from archiver.plan.model.facts import ModelFacts
from handlers import tensor_parallel


@dataclass(frozen=True)
class Layout:
    """``data`` replicas, each over ``tensor`` × ``pipeline`` GPUs."""

    tensor: int = 1
    pipeline: int = 1
    data: int = 1

    @property
    def gpus_per_replica(self) -> int:
        """GPUs that hold one copy of the weights."""
        return self.tensor * self.pipeline

    @property
    def num_gpus(self) -> int:
        """GPUs in all."""
        return self.gpus_per_replica * self.data

    def __str__(self) -> str:
        return f"tensor {self.tensor} × pipeline {self.pipeline} × data {self.data}"


def layouts(num_gpus: int) -> Iterator[Layout]:
    """Yield every way to use all of ``num_gpus``: the least divided first, tensor before pipeline parallelism."""
    found = [
        Layout(tensor, pipeline, num_gpus // (tensor * pipeline))
        for tensor in _divisors(num_gpus)
        for pipeline in _divisors(num_gpus // tensor)
    ]
    yield from sorted(found, key=lambda layout: (layout.gpus_per_replica, layout.pipeline))


def indivisible(model: ModelFacts, layout: Layout) -> str | None:
    """Say why a model cannot be cut so (``handlers.tensor_parallel``; quantized matrices only between groups); None if it can."""
    sizes = {"num_heads": model.num_heads, "num_kv_heads": model.num_kv_heads, "intermediate_size": model.intermediate_size}
    if reason := tensor_parallel.indivisible(layout.tensor, **sizes) or _cuts_a_group(model, layout.tensor):
        return reason
    if layout.pipeline > model.num_layers:
        return f"{layout.pipeline} stages for {model.num_layers} layers"
    return None


def _cuts_a_group(model: ModelFacts, tensor: int) -> str | None:
    """Matrices whose input columns are divided: the MLP's second one, and that after attention."""
    if model.group_size is None or tensor == 1:
        return None
    head_columns = model.num_heads * model.head_dim
    for what, columns in (("MLP", model.intermediate_size), ("attention output", head_columns)):
        if columns % tensor or columns // tensor % model.group_size:
            return f"{columns} input columns of the {what} / {tensor} are no whole number of quantization groups of {model.group_size}"
    return None


def _divisors(number: int) -> list[int]:
    return [divisor for divisor in range(1, number + 1) if number % divisor == 0]
