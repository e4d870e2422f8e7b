"""The safetensors of a checkpoint as one mapping: tensors are read from their file when they are asked for."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from pathlib import Path

from safetensors import SafetensorError, safe_open
from torch import Tensor

from handlers.errors import ConfigError

_INDEX = "model.safetensors.index.json"


class SafetensorsFiles(Mapping[str, Tensor]):
    """The tensors of a directory by name, of the files that its index names, or of all where there is none.

    Opening reads the headers only; a look-up points into the file, mapped into memory, and nothing is kept. Raises ConfigError for a file
    that cannot be read, and for a tensor that two files hold. Not thread-safe.
    """

    def __init__(self, directory: Path) -> None:
        self._file_of: dict[str, safe_open] = {}
        for path in _paths(directory):
            self._open(path)

    def __getitem__(self, name: str) -> Tensor:
        tensor: Tensor = self._file_of[name].get_tensor(name)  # type: ignore[no-untyped-call]
        return tensor

    def __iter__(self) -> Iterator[str]:
        return iter(self._file_of)

    def __len__(self) -> int:
        return len(self._file_of)

    def _open(self, path: Path) -> None:
        name = f"{path.parent.name}/{path.name}"
        try:
            file = safe_open(path, framework="pt")
        except (OSError, SafetensorError) as error:
            raise ConfigError(f"cannot read {name}: {error}; copy or download it again") from error
        file_of = dict.fromkeys(file.keys(), file)  # type: ignore[no-untyped-call]
        if twice := sorted(file_of.keys() & self._file_of.keys()):
            raise ConfigError(f"{name} holds {twice[0]}, and so does another file: remove the one that is not the model's")
        self._file_of |= file_of


def _paths(directory: Path) -> list[Path]:
    """Beside an index there may be files for other programs, with the same weights under other names."""
    index = directory / _INDEX
    if not index.exists():
        return sorted(directory.glob("*.safetensors"))
    try:
        return [directory / name for name in sorted(set(json.loads(index.read_text("utf-8"))["weight_map"].values()))]
    except (OSError, ValueError, LookupError, TypeError, AttributeError) as error:
        raise ConfigError(f"{directory.name}/{_INDEX} is no index of tensors; save or download the checkpoint again") from error
