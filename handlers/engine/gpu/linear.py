"""Linear layers of the CUDA runner: those in FP8 get their inputs from a kernel, all others are what they are anywhere."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor, nn

from handlers.engine.gpu.kernels.round_rows import round_rows
from handlers.engine.linear import Linear, beside
from handlers.native.fp8_linear import Fp8Linear, multiply


def beside_on_gpu(modules: Sequence[nn.Module]) -> Linear:
    """Return one function for modules with the same input; see ``linear.beside``."""
    layers = [module for module in modules if isinstance(module, Fp8Linear)]
    if len(layers) < len(modules):
        return beside(modules)
    fused = Fp8Linear.beside(layers)

    def linear(inputs: Tensor) -> Tensor:
        return multiply(*round_rows(inputs), fused.weight, fused.scales, fused.bias).to(inputs.dtype)

    return linear
