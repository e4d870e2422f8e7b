"""Turn a plain checkpoint into one GGUF file, tensor by tensor."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from gguf import GGML_QUANT_VERSION, GGUFWriter

from archiver.errors import ArchiverError, UsageError
from archiver.package.checkpoint import CONFIG, read_config
from archiver.package.staging import staged_file
from archiver.quantize.gguf.families import Family, describe_sizes, find_family
from archiver.quantize.gguf.file_types import file_type_number
from archiver.quantize.gguf.rotary import Rotary, describe_rotary
from archiver.quantize.gguf.special_tokens import describe_sampling, describe_special_tokens
from archiver.quantize.gguf.tensors import PlannedTensor, check_names, encode, plan_tensors
from archiver.quantize.gguf.vocabulary import read_vocabulary
from archiver.quantize.producer import OnProgress
from handlers.quant.quantization_config import find_quantization
from handlers.weights.safetensors_files import SafetensorsFiles

if TYPE_CHECKING:
    from torch import Tensor

_EMBEDDINGS = "token_embd.weight"


def convert(checkpoint: Path, target: Path, file_type: str, on_progress: OnProgress) -> None:
    """Write the checkpoint to the file ``target``, whole or not at all, as one of WRITTEN_HERE.

    Holds a tensor at a time in memory. Raises UsageError for a model or tokenizer that GGUF has no words for, and ArchiverError for a
    damaged checkpoint or a full disk.
    """
    family = _check_source(checkpoint)
    config = _load("AutoConfig", checkpoint)
    rotary = describe_rotary(config)
    planned = plan_tensors(config, family, file_type)
    stored = SafetensorsFiles(checkpoint)
    check_names(planned, stored)
    writer = GGUFWriter(None, family.architecture)
    _add_metadata(writer, _describe(checkpoint, config, family, rotary, planned, file_type))
    _add_tensor_infos(writer, rotary, planned)
    check_space(target.parent, sum(tensor.num_bytes for tensor in planned))
    with staged_file(target) as staged:
        _write(writer, staged, rotary, planned, stored, on_progress)


def name_tensors(checkpoint: Path) -> Mapping[str, str]:
    """Return GGUF's name of each of the checkpoint's tensors; those that are tied to another have none."""
    planned = plan_tensors(_load("AutoConfig", checkpoint), _check_source(checkpoint), "F32")
    return {tensor.source: tensor.name for tensor in planned}


def check_space(directory: Path, num_bytes: int) -> None:
    """Raise ArchiverError if the disk has not that much free."""
    free = shutil.disk_usage(directory).free
    if free < num_bytes:
        raise ArchiverError(f"the GGUF file needs {num_bytes / 1e9:.1f} GB in {directory}, and {free / 1e9:.1f} GB are free")


def _check_source(checkpoint: Path) -> Family:
    config = read_config(checkpoint)
    if quantization := find_quantization(config):
        raise UsageError(
            f"{checkpoint.name} is quantized already ({quantization.method}), and quantizing it again would lose twice: "
            "convert the checkpoint that it was made from"
        )
    return find_family(str(config.get("model_type")))


def _describe(
    checkpoint: Path, config: Any, family: Family, rotary: Rotary, planned: list[PlannedTensor], file_type: str
) -> Mapping[str, Any]:  # fmt: skip
    """Return everything that the file says beside its tensors."""
    from transformers import GenerationConfig

    (num_rows,) = (tensor.shape[0] for tensor in planned if tensor.name == _EMBEDDINGS)
    tokenizer = _load("AutoTokenizer", checkpoint)
    if not tokenizer.is_fast:
        raise UsageError("this tokenizer has no tokenizer.json and cannot be turned into one, which converting it needs")
    has_generation = (checkpoint / "generation_config.json").exists()
    generation = _load("GenerationConfig", checkpoint) if has_generation else GenerationConfig.from_model_config(config)
    sizes = describe_sizes(config, family, num_rows) | rotary.metadata
    general = {"type": "model", "name": checkpoint_name(checkpoint), "file_type": file_type_number(file_type)}
    return (
        {f"general.{key}": value for key, value in general.items()}
        | {"general.quantization_version": GGML_QUANT_VERSION}
        | describe_sampling(generation)
        | {f"{family.architecture}.{key}": value for key, value in sizes.items()}
        | read_vocabulary(json.loads(tokenizer.backend_tokenizer.to_str()), num_rows).describe()
        | describe_special_tokens(tokenizer, generation)
    )


def checkpoint_name(checkpoint: Path) -> str:
    """Return what a model is called by its directory, also in the hub's cache: ``models--owner--name/snapshots/<commit>``."""
    directory = checkpoint.resolve()
    return directory.parents[1].name.split("--")[-1] if directory.parent.name == "snapshots" else directory.name


def _load(kind: str, checkpoint: Path) -> Any:
    """Call ``from_pretrained`` of a class of transformers', which raises about anything over a broken file."""
    import transformers

    load: Callable[..., Any] = getattr(transformers, kind).from_pretrained
    try:
        return load(checkpoint, local_files_only=True)
    except Exception as error:
        raise ArchiverError(f"cannot read {checkpoint.name}/ ({kind}; its {CONFIG}?): {' '.join(str(error).split())}") from error


def _add_metadata(writer: GGUFWriter, metadata: Mapping[str, Any]) -> None:
    add: Mapping[type, Callable[[str, Any], None]] = {
        bool: writer.add_bool,
        int: writer.add_uint32,
        float: writer.add_float32,
        str: writer.add_string,
        list: writer.add_array,
    }
    for key, value in metadata.items():
        add[type(value)](key, value)


def _add_tensor_infos(writer: GGUFWriter, rotary: Rotary, planned: list[PlannedTensor]) -> None:
    import numpy as np

    for name, divisors in rotary.divisors.items():
        writer.add_tensor_info(name, divisors.shape, divisors.dtype, divisors.nbytes)
    for tensor in planned:
        writer.add_tensor_info(tensor.name, tensor.shape, np.dtype(np.float32), tensor.num_bytes, raw_dtype=tensor.type)


def _write(
    writer: GGUFWriter, path: Path, rotary: Rotary, planned: list[PlannedTensor], stored: Mapping[str, Tensor], on_progress: OnProgress
) -> None:  # fmt: skip
    try:
        writer.write_header_to_file(path)
        writer.write_kv_data_to_file()
        writer.write_ti_data_to_file()
        for divisors in rotary.divisors.values():
            writer.write_tensor_data(divisors)
        for done, tensor in enumerate(planned):
            on_progress("tensors", done, len(planned))
            writer.write_tensor_data(encode(tensor, stored))
        on_progress("tensors", len(planned), len(planned))
    finally:
        writer.close()
