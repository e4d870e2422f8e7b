"""Steps of a model that were timed, and the file that they are kept in."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

from pydantic import ConfigDict, Field, TypeAdapter, ValidationError
from pydantic.dataclasses import dataclass

from archiver.errors import UsageError

_STRICT = ConfigDict(extra="forbid", strict=True, allow_inf_nan=False)
_FORM = (
    '{"request_overhead_s": 0.003, "steps": [{"num_decodes": 1, "num_prompt_tokens": 0, "num_context_tokens": 80, "seconds": 0.012}, …]}'
)

Count = Annotated[int, Field(ge=0)]


@dataclass(frozen=True, config=_STRICT)
class MeasuredStep:
    """A step that took ``seconds``. ``num_decodes`` sequences advanced by one token, and ``num_prompt_tokens`` of prompts were read.

    ``num_context_tokens``: tokens whose keys and values it read, of each sequence all up to the last one in the step.
    """

    num_decodes: Count
    num_prompt_tokens: Count
    num_context_tokens: Count
    seconds: Annotated[float, Field(gt=0)]


@dataclass(frozen=True, config=_STRICT)
class Measurements:
    """Steps of one model on one machine, and what its server adds to a request, once: the way in and out, in seconds."""

    steps: tuple[MeasuredStep, ...]
    request_overhead_s: Annotated[float, Field(ge=0)] = 0.0

    @classmethod
    def read(cls, file: Path) -> Measurements:
        """Read a file that ``write`` wrote, or a person; raises UsageError for anything else."""
        try:
            return TypeAdapter(cls).validate_json(file.read_bytes())
        except OSError as error:
            raise UsageError(f"cannot read the measurements in {file}: {error.strerror}") from None
        except ValidationError as error:
            problem = error.errors()[0]
            place = ".".join(map(str, problem["loc"])) or "the file"
            raise UsageError(f"{file}: {place}: {problem['msg']}; it should look like {_FORM}") from None

    def write(self, file: Path) -> None:
        """Write a file for ``read``."""
        file.write_text(json.dumps(TypeAdapter(Measurements).dump_python(self, mode="json"), indent=2) + "\n")
