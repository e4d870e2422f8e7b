"""When requests come and how long they are: read from a file, or drawn at random.

A file has one object a line: ``{"arrival_s": 0.25, "prompt_tokens": 120, "output_tokens": 64}``, and where prompts begin alike also
``"prefix": "system prompt", "prefix_tokens": 96``.
"""

from __future__ import annotations

import math
import random
from itertools import accumulate
from pathlib import Path
from statistics import NormalDist
from typing import Annotated

from pydantic import ConfigDict, Field, TypeAdapter, ValidationError
from pydantic.dataclasses import dataclass

from archiver.errors import UsageError
from archiver.plan.workload import Quantiles

_STRICT = ConfigDict(extra="forbid", strict=True, allow_inf_nan=False)
_FORM = '{"arrival_s": 0.25, "prompt_tokens": 120, "output_tokens": 64}'
_P95_DEVIATIONS = NormalDist().inv_cdf(0.95)

NumTokens = Annotated[int, Field(ge=1)]


@dataclass(frozen=True, config=_STRICT)
class TraceRequest:
    """A request that comes ``arrival_s`` after the trace's beginning, and is answered with exactly ``output_tokens``.

    The first ``prefix_tokens`` of its prompt are the same as those of all requests with the same ``prefix``.
    """

    arrival_s: Annotated[float, Field(ge=0)]
    prompt_tokens: NumTokens
    output_tokens: NumTokens
    prefix: str | None = None
    prefix_tokens: Annotated[int, Field(ge=0)] = 0

    def __post_init__(self) -> None:
        if (self.prefix is None) != (self.prefix_tokens == 0):
            raise ValueError("prefix and prefix_tokens go together")
        if self.prefix_tokens > self.prompt_tokens:
            raise ValueError(f"a prefix of {self.prefix_tokens} tokens is longer than its prompt of {self.prompt_tokens}")

    @property
    def num_tokens(self) -> int:
        """Prompt and answer together."""
        return self.prompt_tokens + self.output_tokens


def read_trace(file: Path) -> tuple[TraceRequest, ...]:
    """Read a trace and return it in order of arrival. Raises UsageError, with the line's number, for what is no request."""
    try:
        text = file.read_text("utf-8-sig")
    except OSError as error:
        raise UsageError(f"cannot read the trace {file}: {error.strerror}") from None
    except UnicodeDecodeError as error:
        raise UsageError(f"{file} is no UTF-8 text (byte {error.start}); a line of a trace is {_FORM}") from None
    lines = enumerate(text.splitlines(), 1)
    requests = [_parse_line(line, f"{file}:{number}") for number, line in lines if line.strip()]
    if not requests:
        raise UsageError(f"{file} holds no requests; a line is {_FORM}")
    return tuple(sorted(requests, key=lambda request: request.arrival_s))


def synthesize(
    rate: float, prompt_tokens: Quantiles, output_tokens: Quantiles, num_requests: int, seed: int = 0
) -> tuple[TraceRequest, ...]:
    """Draw a trace: arrivals of a Poisson process with ``rate`` requests a second, and log-normal lengths through the given quantiles.

    The same seed gives the same lengths at every rate, and the same arrivals but for their scale.
    """
    rng = random.Random(seed)
    draws = [(rng.expovariate(1.0), _draw(rng, prompt_tokens), _draw(rng, output_tokens)) for _ in range(num_requests)]
    arrivals_s = accumulate(pause / rate for pause, _, _ in draws)
    return tuple(TraceRequest(arrival_s, prompt, output) for arrival_s, (_, prompt, output) in zip(arrivals_s, draws, strict=True))


def _parse_line(line: str, place: str) -> TraceRequest:
    try:
        return TypeAdapter(TraceRequest).validate_json(line)
    except ValidationError as error:
        problem = error.errors()[0]
        key = ".".join(str(part) for part in problem["loc"])
        raise UsageError(f"{place} is no request ({key + ': ' if key else ''}{problem['msg']}); a line is {_FORM}") from None


def _draw(rng: random.Random, quantiles: Quantiles) -> int:
    spread = math.log(quantiles.p95 / quantiles.p50) / _P95_DEVIATIONS
    return max(round(rng.lognormvariate(math.log(quantiles.p50), spread)), 1)
