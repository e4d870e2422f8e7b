"""How many bytes a matrix takes in each format of weights: its codes, scales and zero points.

Layouts: the readers in ``handlers.quant.readers``, which say where each is documented; figures are checked against written checkpoints.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from archiver.plan.model.facts import Role
from handlers.errors import ConfigError
from handlers.quant import formats
from handlers.quant.formats import Format
from handlers.quant.preflight import identify
from handlers.quant.quantization_config import StoredQuantization

LINEAR = frozenset({Role.QUERY, Role.KEY_VALUE, Role.OUTPUT, Role.LATENT, Role.MLP, Role.EXPERT, Role.RECURRENT})
"""What formats quantize: embeddings, head, norms, routers and towers stay plain."""


@dataclass(frozen=True)
class Scheme:
    """A format with its sizes: codes of ``bits``, and for each ``group_size`` input columns (None: a whole row) of ``block_rows`` rows a
    scale of ``scale_bytes`` and a zero point of ``zero_bits``.

    ``column_bytes``: for each input column besides (its group, after activation order); ``matrix_bytes``: for each matrix (tables, shape).
    """

    format: Format
    bits: float
    group_size: int | None = None
    block_rows: int = 1
    scale_bytes: float = 2
    zero_bits: float = 0
    column_bytes: int = 0
    matrix_bytes: int = 0
    roles: frozenset[Role] = LINEAR

    def stored_bytes(self, outputs: int, inputs: int) -> int:
        """Return what a matrix takes."""
        groups = -(-inputs // (self.group_size or inputs)) * -(-outputs // self.block_rows)
        codes = -(-outputs * inputs * self.bits // 8)
        return int(codes + math.ceil(groups * (self.scale_bytes + self.zero_bits / 8)) + inputs * self.column_bytes + self.matrix_bytes)


PLAIN = Scheme(formats.PLAIN, 16, scale_bytes=0, roles=frozenset())
_INT64_SHAPE = 16
_CODE_TABLE = 64  # 16 values in float32
_SCALE_TABLE = 1024  # 256 values in float32
_STATE_JSON = 84
_NESTED_JSON = 75

_SCHEMES: Mapping[Format, Scheme] = {
    scheme.format: scheme
    for scheme in (
        PLAIN,
        Scheme(formats.NF4, 4, 64, scale_bytes=4, matrix_bytes=_CODE_TABLE + _STATE_JSON),
        Scheme(formats.FP4, 4, 64, scale_bytes=4, matrix_bytes=_CODE_TABLE + _STATE_JSON),
        Scheme(formats.BNB_INT8, 8, scale_bytes=4),
        Scheme(formats.TORCHAO_INT8, 8, scale_bytes=4, zero_bits=8),
        Scheme(formats.TORCHAO_INT4, 4, 128, zero_bits=16),
        Scheme(formats.TORCHAO_FP8, 8, scale_bytes=4),
        Scheme(formats.W4A16, 4, 128, matrix_bytes=_INT64_SHAPE),
        Scheme(formats.W4A16_ASYM, 4, 128, zero_bits=4, matrix_bytes=_INT64_SHAPE),
        Scheme(formats.W8A16, 8, matrix_bytes=_INT64_SHAPE),
        Scheme(formats.W8A8, 8),
        Scheme(formats.CT_FP8, 8),
        Scheme(formats.GPTQ, 4, 128, zero_bits=4, column_bytes=4),
        Scheme(formats.AWQ, 4, 128, zero_bits=4),
        Scheme(formats.FINE_GRAINED_FP8, 8, 128, block_rows=128, scale_bytes=4),
        Scheme(formats.FBGEMM_FP8, 8, scale_bytes=4),
        Scheme(formats.MXFP4, 4, 32, scale_bytes=1, roles=frozenset({Role.EXPERT})),
        # Q4_K_M mixes blocks of 4.5 and 6.56 bits, scales included: 4.9 bits on average in Llama-3.1-8B's file of 4.92 GB.
        Scheme(formats.GGUF, 4.9, scale_bytes=0, roles=LINEAR | {Role.EMBEDDING, Role.HEAD, Role.ROUTER}),
    )
}


def scheme_of(format: Format, group_size: int | None = None) -> Scheme:
    """Return a format's scheme as its tools write it by default, with other groups if it has any of a free size."""
    scheme = _SCHEMES[format]
    has_free_groups = scheme.group_size is not None and scheme.block_rows == 1 and format not in (formats.NF4, formats.FP4, formats.MXFP4)
    return replace(scheme, group_size=group_size) if group_size and has_free_groups else scheme


def find_scheme(stored: StoredQuantization | None) -> Scheme:
    """Return the scheme that a checkpoint declares; raises ConfigError for one that no machine can serve."""
    scheme = _SCHEMES[identify(stored)]
    settings = stored.settings if stored else {}
    match stored and stored.method:
        case "gptq":
            bits = _number(settings, "bits", 4)
            return replace(scheme, bits=bits, zero_bits=bits, group_size=_group(settings, "group_size", 128))
        case "awq":
            return replace(scheme, group_size=_group(settings, "group_size", _group(settings, "q_group_size", 128)))
        case "compressed-tensors":
            return _compressed_tensors(scheme, settings)
        case "fp8":
            rows, columns = _block(settings, "weight_block_size") or (128, 128)
            return replace(scheme, block_rows=rows, group_size=columns)
        case "bitsandbytes" if settings.get("bnb_4bit_use_double_quant") and scheme.bits == 4:
            # Scales are codes of a byte, with a scale of their own for every 256.
            return replace(scheme, scale_bytes=1 + 4 / 256, matrix_bytes=scheme.matrix_bytes + _SCALE_TABLE + _NESTED_JSON)
    return scheme


def _compressed_tensors(scheme: Scheme, settings: Mapping[str, Any]) -> Scheme:
    """The first group with weights decides, as it does for the format."""
    groups = [group.get("weights") for group in settings["config_groups"].values() if isinstance(group, Mapping)]
    weights = next(group for group in groups if isinstance(group, Mapping))
    bits = _number(weights, "num_bits", int(scheme.bits))
    rows, columns = _block(weights, "block_structure") or (1, _group(weights, "group_size", -1))
    if weights.get("strategy") == "tensor":
        return replace(scheme, scale_bytes=0, matrix_bytes=2)
    return replace(
        scheme,
        bits=bits,
        zero_bits=bits if scheme.zero_bits else 0,
        group_size=columns,
        block_rows=rows,
        column_bytes=4 if weights.get("actorder") == "group" else 0,
    )


def _block(settings: Mapping[str, Any], name: str) -> tuple[int, int] | None:
    """Rows and columns that share a scale."""
    match settings.get(name):
        case None:
            return None
        case [int(rows), int(columns)] if rows > 0 and columns > 0:
            return rows, columns
        case value:
            raise ConfigError(f"quantization_config has {value!r} as {name}, which must be a number of rows and one of columns")


def _group(settings: Mapping[str, Any], name: str, default: int | None) -> int | None:
    """-1 and null: a whole row."""
    size = settings.get(name, default)
    return size if isinstance(size, int) and size > 0 else None


def _number(settings: Mapping[str, Any], name: str, default: int) -> int:
    value = settings.get(name, default)
    return value if isinstance(value, int) and 0 < value <= 32 else default
