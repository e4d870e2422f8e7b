"""The options that recipes can set, for each producer: their types and ranges."""

from __future__ import annotations

from typing import Annotated, ClassVar, Literal

from pydantic import ConfigDict, Field
from pydantic.dataclasses import dataclass

_STRICT = ConfigDict(extra="forbid", strict=True)
_IGNORED = ("lm_head",)

Share = Annotated[float, Field(ge=0, le=1)]


@dataclass(frozen=True, config=_STRICT)
class GptqOptions:
    """Frantar et al., GPTQ (2022). ``group_size`` 0: a scale for each row. ``damping``: a share of the mean of the Hessian's diagonal."""

    needs_calibration: ClassVar[bool] = True
    method: Literal["gptq"]
    bits: Literal[4, 8] = 4
    group_size: int = Field(default=128, ge=0)
    symmetric: bool = True
    damping: Share = 0.01
    activation_order: bool = True
    ignore: tuple[str, ...] = _IGNORED


@dataclass(frozen=True, config=_STRICT)
class AwqOptions:
    """Lin et al., AWQ (2023)."""

    needs_calibration: ClassVar[bool] = True
    method: Literal["awq"]
    bits: Literal[4, 8] = 4
    group_size: int = Field(default=128, ge=0)
    zero_point: bool = True
    num_grid: int = Field(default=20, ge=1)
    ignore: tuple[str, ...] = _IGNORED


@dataclass(frozen=True, config=_STRICT)
class RoundOptions:
    """Round to the nearest value."""

    needs_calibration: ClassVar[bool] = False
    method: Literal["round"]
    scheme: Literal["FP8_DYNAMIC", "W8A8", "W8A16", "W4A16"]
    ignore: tuple[str, ...] = _IGNORED


@dataclass(frozen=True, config=_STRICT)
class SmoothQuantOptions:
    """Xiao et al., SmoothQuant (2022), with GPTQ's rounding."""

    needs_calibration: ClassVar[bool] = True
    method: Literal["smoothquant"]
    smoothing: Share = 0.8
    damping: Share = 0.01
    ignore: tuple[str, ...] = _IGNORED


@dataclass(frozen=True, config=_STRICT)
class Nf4Options:
    """Dettmers et al., QLoRA (2023)."""

    needs_calibration: ClassVar[bool] = False
    method: Literal["nf4"]
    double_quantization: bool = False
    ignore: tuple[str, ...] = _IGNORED


@dataclass(frozen=True, config=_STRICT)
class Int8Options:
    """Dettmers et al., LLM.int8 (2022)."""

    needs_calibration: ClassVar[bool] = False
    method: Literal["int8"]
    ignore: tuple[str, ...] = _IGNORED


@dataclass(frozen=True, config=_STRICT)
class TorchaoOptions:
    """``Int8WeightOnlyConfig``."""

    needs_calibration: ClassVar[bool] = False
    ignore: tuple[str, ...] = _IGNORED


@dataclass(frozen=True, config=_STRICT)
class GgufOptions:
    """``type``: a quantization of llama.cpp's, for example ``Q4_K_M``."""

    needs_calibration: ClassVar[bool] = False
    type: str


@dataclass(frozen=True, config=_STRICT)
class GgufImportanceOptions:
    """As GgufOptions, with rounding errors weighed by llama.cpp's importance matrix."""

    needs_calibration: ClassVar[bool] = True
    method: Literal["importance"]
    type: str
