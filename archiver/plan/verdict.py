"""Does it fit? Yes, under a condition that is named, or no."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from archiver.plan.capacity import NOT_KV
from archiver.plan.option import Option


@dataclass(frozen=True)
class Verdict:
    """``sentence`` says why, in numbers; it is a condition where ``fits`` is "if"."""

    fits: Literal["yes", "if", "no"]
    sentence: str

    def __str__(self) -> str:
        return {"yes": "fits", "if": "fits if", "no": "won't fit"}[self.fits] + f": {self.sentence}"


def judge(option: Option) -> Verdict:
    """Compare what the load takes with what is left for keys and values. Sequences that find no room wait, so "if" loses no request."""
    if option.obstacle:
        return Verdict("no", option.obstacle)
    available, wanted = option.capacity.kv_bytes, option.wanted_sequences
    lengths = option.request.workload.sequence_tokens
    at_p50, at_p95 = (wanted * option.replica.sequence_bytes(length) for length in (lengths.p50, lengths.p95))
    where = f"on {'each ' if option.layout.num_gpus > 1 else ''}{option.request.hardware.name}"
    if lengths.p95 > option.replica.sizes.max_model_len:
        longest = option.replica.sizes.max_model_len
        return Verdict("no", f"sequences of {lengths.p95:,} tokens are asked for, and {longest:,} is the longest")
    if available.expected <= 0:
        alone = gib(option.ledger.total(*NOT_KV).expected)
        return Verdict("no", f"the model alone takes {alone}, and {gib(_share(option))} may be used {where}")
    need = f"{wanted:,} sequence{'s' * (wanted > 1)} of {lengths.p95:,} tokens take{'s' * (wanted == 1)} {gib(at_p95)} of KV cache"
    if at_p95 <= available.low:
        return Verdict("yes", f"{need}, and {gib(available.low)} or more are left {where}")
    if at_p95 <= available.expected:
        return Verdict("if", f"{need}; {gib(available.expected)} are expected to be left {where}, and {gib(available.low)} are certain")
    if at_p50 <= available.expected and wanted > 1:
        together = f"{option.capacity.sequences.p95:,} such run together"
        return Verdict("if", f"not all are long at once: {need}, and {gib(available.expected)} are left {where}; {together}")
    return Verdict("no", f"{need}, and {gib(available.expected)} are left {where}")


def gib(num_bytes: float) -> str:
    """Return a size in GiB, as memory is counted; of tiny ones in MiB."""
    return f"{num_bytes / 2**30:,.4g} GiB" if num_bytes >= 2**28 else f"{num_bytes / 2**20:,.3g} MiB"


def _share(option: Option) -> float:
    device = option.request.hardware
    return device.memory_bytes * (option.replica.sizes.memory_fraction if device.device == "cuda" else 1)
