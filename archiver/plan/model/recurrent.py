"""Recurrent parts: state-space layers, linear attention and short convolutions, which keep a state of constant size.

Sources: Mamba (Gu and Dao 2023), Mamba-2 (Dao and Gu 2024), gated delta networks (Yang et al. 2024), LFM2's convolutions. Besides the
state, each keeps the last inputs of its convolution.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass

from archiver.plan.model.facts import CacheLayer, Role
from archiver.plan.model.family import Family, Recurrence
from archiver.plan.model.settings import Settings
from archiver.plan.model.weights import Part, Weight, linear

_FLOAT32_BYTES = 4


@dataclass(frozen=True)
class Recurrent:
    """A recurrent part with ``state_elements`` in ``num_heads`` equal parts, and a convolution of ``conv_elements`` (0: there is none)."""

    made_of: tuple[Weight, ...]
    num_heads: int
    state_elements: int
    conv_elements: int
    state_bytes: int = 0

    def weights(self) -> Iterable[Weight]:
        """Yield what it is made of."""
        return self.made_of

    def cache(self) -> Iterator[CacheLayer]:
        """Yield the last inputs of the convolution, and the state."""
        yield CacheLayer("state", self.num_heads, state_elements=self.conv_elements)
        if self.state_elements:
            yield CacheLayer("state", self.num_heads, state_elements=self.state_elements, state_bytes=self.state_bytes)


def read_recurrent(settings: Settings, family: Family) -> Part:
    """Return the recurrent part of a layer; raises UsageError for sizes that are missing."""
    return _READERS[family.recurrence](settings)


def _mamba(settings: Settings) -> Recurrent:
    hidden_size = settings.number("hidden_size")
    channels = settings.number("expand") * hidden_size
    state_size, kernel = settings.number("state_size"), settings.number("conv_kernel")
    rank = -(-hidden_size // 16) if settings.get("time_step_rank") == "auto" else settings.number("time_step_rank")
    norms = rank + 2 * state_size if settings.flag("mamba_inner_norms") else 0
    weights = [
        *linear(Role.RECURRENT, 2 * channels, hidden_size, bias=settings.flag("use_bias")),
        *_convolution(channels, kernel, settings.flag("use_conv_bias")),
        *linear(Role.RECURRENT, rank + 2 * state_size, channels),
        *linear(Role.RECURRENT, channels, rank, bias=True),
        Weight(Role.RECURRENT, channels * (state_size + 1) + norms),
        *linear(Role.RECURRENT, hidden_size, channels, bias=settings.flag("use_bias")),
    ]
    return Recurrent(tuple(weights), channels, channels * state_size, channels * kernel)


def _mamba2(settings: Settings) -> Recurrent:
    hidden_size, num_heads = settings.number("hidden_size"), settings.number("mamba_num_heads")
    channels = _mamba2_channels(settings, num_heads)
    state_size, kernel = settings.number("state_size"), settings.number("conv_kernel")
    convolved = channels + 2 * settings.number("n_groups") * state_size
    norms = channels if settings.flag("mamba_rms_norm") else 0
    out_bias = settings.flag("projectors_bias" if settings.get("projectors_bias") is not None else "use_bias")
    weights = [
        *linear(Role.RECURRENT, channels + convolved + num_heads, hidden_size, bias=settings.flag("use_bias")),
        *_convolution(convolved, kernel, settings.flag("use_conv_bias")),
        Weight(Role.RECURRENT, 3 * num_heads + norms),
        *linear(Role.RECURRENT, hidden_size, channels, bias=out_bias),
    ]
    in_float32 = settings.get("mamba_ssm_cache_dtype") == "float32"
    return Recurrent(tuple(weights), num_heads, channels * state_size, convolved * kernel, state_bytes=_FLOAT32_BYTES if in_float32 else 0)


def _mamba2_channels(settings: Settings, num_heads: int) -> int:
    if settings.get("mamba_d_ssm"):
        return settings.number("mamba_d_ssm")
    if settings.get("mamba_head_dim") in (None, "auto"):
        return settings.number("expand") * settings.number("hidden_size")
    return num_heads * settings.number("mamba_head_dim")


def _delta(settings: Settings) -> Recurrent:
    hidden_size, num_heads = settings.number("hidden_size"), settings.number("linear_num_value_heads")
    key_dim, value_dim = settings.number("linear_key_head_dim"), settings.number("linear_value_head_dim")
    keys, values = settings.number("linear_num_key_heads") * key_dim, num_heads * value_dim
    kernel = settings.number("conv_kernel")
    weights = [
        *linear(Role.RECURRENT, 2 * keys + 2 * values, hidden_size),
        *linear(Role.RECURRENT, 2 * num_heads, hidden_size),
        *_convolution(2 * keys + values, kernel, bias=False),
        Weight(Role.RECURRENT, 2 * num_heads + value_dim),
        *linear(Role.RECURRENT, hidden_size, values),
    ]
    return Recurrent(tuple(weights), num_heads, num_heads * key_dim * value_dim, (2 * keys + values) * kernel)


def _short_convolution(settings: Settings) -> Recurrent:
    hidden_size, kernel, bias = settings.number("hidden_size"), settings.number("conv_kernel"), settings.flag("conv_bias")
    weights = [
        *linear(Role.RECURRENT, 3 * hidden_size, hidden_size, bias=bias),
        *_convolution(hidden_size, kernel, bias),
        *linear(Role.RECURRENT, hidden_size, hidden_size, bias=bias),
    ]
    return Recurrent(tuple(weights), hidden_size, 0, hidden_size * kernel)


def _convolution(channels: int, kernel: int, bias: bool) -> Iterator[Weight]:
    """Each channel has a kernel of its own: no matrix that is ever quantized."""
    yield Weight(Role.RECURRENT, channels * (kernel + bias))


_READERS: Mapping[Recurrence, Callable[[Settings], Recurrent]] = {
    "mamba": _mamba,
    "mamba2": _mamba2,
    "delta": _delta,
    "convolution": _short_convolution,
}
