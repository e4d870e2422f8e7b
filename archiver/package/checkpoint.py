"""Whether a directory, or a GGUF file, is a checkpoint that can be served, and which of its files serving needs."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from archiver.errors import UsageError
from archiver.package.tensors import TensorHeader, read_header
from archiver.quantize.receipt import RECEIPT_FILE
from handlers.errors import ConfigError
from handlers.gguf_file import GgufFile, find_gguf
from handlers.quant.formats import GGUF, Format
from handlers.quant.preflight import identify
from handlers.quant.quantization_config import find_quantization

WEIGHTS = "model.safetensors"
INDEX = "model.safetensors.index.json"
CONFIG = "config.json"

TOKENIZER_FILES = ("tokenizer.json", "tokenizer.model", "spiece.model", "sentencepiece.bpe.model", "vocab.json", "vocab.txt", "*.tiktoken")
SERVED_FILES = (
    CONFIG,
    "generation_config.json",
    *TOKENIZER_FILES,
    "tokenizer_config.json",
    "special_tokens_map.json",
    "added_tokens.json",
    "merges.txt",
    "chat_template.*",
    "additional_chat_templates/*.jinja",
    "*processor_config.json",
    "*quant*_config.json",
    RECEIPT_FILE,
    "LICENSE*",  # most licences of weights ask that they travel with them
    "NOTICE*",
)
REMOTE_CODE_FILES = ("*.py",)
PICKLED_WEIGHTS = ("pytorch_model*.bin", "pytorch_model*.bin.index.json")
_SAFETENSORS_ADVICE = "convert it to safetensors (load it with transformers and call save_pretrained), or set handler.model.allow_pickle"


@dataclass(frozen=True)
class Checkpoint:
    """A checked checkpoint: the ``files`` that serving needs (sorted, relative to ``directory``) and the ``architecture`` it names."""

    directory: Path
    architecture: str
    files: tuple[Path, ...]


def read_checkpoint(source: Path, *, trust_remote_code: bool = False, allow_pickle: bool = False) -> Checkpoint:
    """Check a checkpoint without loading it: a directory, or a GGUF file, which needs no other.

    Raises UsageError, in one line, for whatever would keep it from being served.
    """
    if file := _gguf_in(source):
        beside = SERVED_FILES if source.is_dir() else (RECEIPT_FILE,)
        return Checkpoint(file.parent, _read_gguf(file).architecture, _served_files(file.parent, beside, [file]))
    directory, config = source, read_config(source)
    if "auto_map" in config and not trust_remote_code:
        raise UsageError(
            f"{directory} brings its own code (auto_map in {CONFIG}); read it, then set handler.model.trust_remote_code to run it"
        )
    weights_format(directory)
    weights = _weight_files(directory, allow_pickle)
    if not any(True for pattern in TOKENIZER_FILES for _ in directory.glob(pattern)):
        raise UsageError(f"{directory} has no tokenizer: copy the model's tokenizer.json there, or its own tokenizer files")
    patterns = SERVED_FILES + (REMOTE_CODE_FILES if trust_remote_code else ())
    return Checkpoint(directory, config["architectures"][0], _served_files(directory, patterns, weights))


def check_checkpoint(source: Path) -> None:
    """Raise UsageError unless ``source`` is a GGUF file, a directory with one, or one whose config.json names an architecture."""
    if file := _gguf_in(source):
        _read_gguf(file)
    else:
        read_config(source)


def weights_format(source: Path) -> Format:
    """Return the format of a checkpoint's weights; raises UsageError for one that no machine serves."""
    if _gguf_in(source):
        return GGUF
    try:
        return identify(find_quantization(read_config(source)))
    except ConfigError as error:
        raise UsageError(f"{source}: {error}") from None


def _gguf_in(source: Path) -> Path | None:
    try:
        return source if source.is_file() else find_gguf(source)
    except ConfigError as error:
        raise UsageError(str(error)) from None


def _read_gguf(file: Path) -> GgufFile:
    try:
        model = GgufFile.open(file)
    except ConfigError as error:
        raise UsageError(str(error)) from None
    _check_architecture(model)
    return model


def _check_architecture(model: GgufFile) -> None:
    """Refuse what llama.cpp has no name for, where its list is installed; whether the chosen engine runs it, the engine says."""
    try:
        from gguf import MODEL_ARCH_NAMES
    except ImportError:
        return
    if model.architecture not in MODEL_ARCH_NAMES.values():
        raise UsageError(
            f"{model.path.name} is a model of the architecture {model.architecture!r}, which is unknown here:"
            " pip install --upgrade gguf llama-cpp-python, or convert it again"
        )


def _served_files(directory: Path, patterns: Iterable[str], weights: Iterable[Path]) -> tuple[Path, ...]:
    served = {file for pattern in patterns for file in directory.glob(pattern) if file.is_file()}
    return tuple(sorted(file.relative_to(directory) for file in {*served, *weights}))


def read_config(directory: Path) -> dict[str, Any]:
    """Return a checkpoint's config.json, whose ``architectures`` names one; raises UsageError if the directory is no checkpoint."""
    config = _read_json(directory / CONFIG, f"{directory} is no checkpoint: it has no {CONFIG}")
    architectures = config.get("architectures")
    if not (isinstance(architectures, list) and architectures and isinstance(architectures[0], str)):
        raise UsageError(f"{directory / CONFIG} names no architecture; save the model with save_pretrained")
    return config


def _weight_files(directory: Path, allow_pickle: bool) -> list[Path]:
    if (directory / INDEX).is_file():
        return [directory / INDEX, *_check_shards(directory)]
    if (directory / WEIGHTS).is_file():
        _check_weights(directory / WEIGHTS)
        return [directory / WEIGHTS]
    pickled = [file for pattern in PICKLED_WEIGHTS for file in directory.glob(pattern)]
    if pickled and allow_pickle:
        return pickled
    if pickled:
        raise UsageError(f"{directory} has pickled weights only ({pickled[0].name}), which can run code when loaded: {_SAFETENSORS_ADVICE}")
    raise UsageError(f"{directory} is no checkpoint: it has neither {WEIGHTS} nor {INDEX}")


def _check_shards(directory: Path) -> Iterator[Path]:
    index = directory / INDEX
    weight_map = _read_json(index, f"{index} is missing").get("weight_map")
    if not isinstance(weight_map, dict) or not weight_map:
        raise UsageError(f"{index} has no weight_map; download it again")
    for shard in sorted(set(weight_map.values())):
        if shard != Path(shard).name or not (directory / shard).is_file():
            raise UsageError(f"{directory} lacks the shard {shard} that {INDEX} lists; download it again")
        absent = {name for name, file in weight_map.items() if file == shard} - _check_weights(directory / shard).names
        if absent:
            raise UsageError(f"{directory / shard} lacks the tensor {min(absent)} that {INDEX} places there; download both again")
        yield directory / shard


def _check_weights(file: Path) -> TensorHeader:
    try:
        with file.open("rb") as stream:
            return read_header(stream, file.stat().st_size)
    except (OSError, ValueError) as error:
        raise UsageError(f"{file} {error}") from None


def _read_json(file: Path, missing: str) -> dict[str, Any]:
    if not file.is_file():
        raise UsageError(missing)
    try:
        content = json.loads(file.read_bytes())
    except ValueError as error:
        raise UsageError(f"{file} is not JSON ({error}); download it again") from None
    if not isinstance(content, dict):
        raise UsageError(f"{file} holds no JSON object; download it again")
    return content
