"""The types that a GGUF file can be written in, by llama.cpp's names, and what writes each."""

from __future__ import annotations

import difflib

from gguf import GGML_QUANT_SIZES, GGMLQuantizationType, LlamaFileType

from archiver.errors import UsageError

WRITTEN_HERE = ("F32", "F16", "BF16", "Q8_0", "Q5_1", "Q5_0", "Q4_1", "Q4_0")
"""By the gguf package alone: rounding to the nearest, block by block."""
MIXED_BY_LLAMA_CPP = ("Q6_K", "Q5_K_M", "Q5_K_S", "Q4_K_M", "Q4_K_S", "Q3_K_L", "Q3_K_M", "Q3_K_S", "Q2_K", "IQ4_NL", "IQ4_XS")
"""By llama.cpp's own quantizer, which gives the tensors that matter most more bits."""
NEED_IMPORTANCE = ("IQ3_M", "IQ3_S", "IQ3_XXS", "IQ2_M", "IQ2_S", "IQ2_XS", "IQ2_XXS", "IQ1_M", "IQ1_S")
"""By llama.cpp's quantizer too, which refuses to guess what so few bits are best spent on."""


def parse_type(name: str) -> str:
    """Return the type called ``name`` as llama.cpp writes it, in capitals; raise UsageError if there is none."""
    known = WRITTEN_HERE + MIXED_BY_LLAMA_CPP + NEED_IMPORTANCE
    if name.upper() in known:
        return name.upper()
    nearest = difflib.get_close_matches(name.upper(), known, n=1)
    hint = f"; did you mean {nearest[0]}?" if nearest else ""
    raise UsageError(f"no GGUF type is called {name!r}{hint} (known: {', '.join(known)})")


def file_type_number(name: str) -> int:
    """Return the number of a type in ``general.file_type``, which is also what llama.cpp's quantizer is asked for."""
    return int(LlamaFileType[f"{'ALL' if name == 'F32' else 'MOSTLY'}_{name}"])


def tensor_type(name: str, shape: tuple[int, ...], *, is_output: bool) -> GGMLQuantizationType:
    """Return how a tensor of ``shape`` is stored in a file of a type in WRITTEN_HERE.

    Vectors stay in 32 bits: they are small, and llama.cpp adds and multiplies them so. The matrix that makes the logits gets at least 8
    bits, since its errors reach every distribution. Rows that are no whole blocks stay in 16 bits.
    """
    if len(shape) == 1:
        return GGMLQuantizationType.F32
    wanted = GGMLQuantizationType["Q8_0" if is_output and name.startswith(("Q4", "Q5")) else name]
    block, _ = GGML_QUANT_SIZES[wanted]
    return wanted if shape[-1] % block == 0 else GGMLQuantizationType.F16
