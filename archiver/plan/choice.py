"""Choose among the ways to use the devices, and say of each of the others why not."""

from __future__ import annotations

from dataclasses import dataclass

from archiver.plan.capacity import NOT_KV
from archiver.plan.engines import VLLM, own_engine
from archiver.plan.layout import layouts
from archiver.plan.option import Option, evaluate
from archiver.plan.request import PlanRequest
from archiver.plan.verdict import judge
from handlers.memory_ledger import Interval


@dataclass(frozen=True)
class Rejection:
    """A way that was not taken, and why."""

    option: Option
    reason: str


@dataclass(frozen=True)
class Choice:
    """The way that was taken, why, and the others."""

    option: Option
    reason: str
    rejected: tuple[Rejection, ...]


def choose(request: PlanRequest) -> Choice:
    """Return the least divided way that fits and is fast enough: whole replicas on as few devices as hold one give the most throughput.

    Ways are compared as an engine that knows them all would run them; the one that is taken runs on ours, if that fits and is fast enough.
    """
    own = own_engine(request.hardware)
    engine = request.engine or (VLLM if request.hardware.device == "cuda" else own)
    options = [evaluate(request, engine, layout) for layout in ([request.layout] if request.layout else layouts(request.count))]
    fitting = [option for option in options if judge(option).fits != "no"]
    fast = [option for option in fitting if missed_target(option) is None]
    chosen = (fast or fitting or [max(options, key=_closeness)])[0]
    rejected = tuple(Rejection(option, _fault(option, chosen)) for option in options if option is not chosen)
    ours = evaluate(request, own, chosen.layout)
    is_taken = request.engine is None and (not fitting or judge(ours).fits != "no") and (not fast or missed_target(ours) is None)
    return Choice(ours if is_taken and not ours.engine_lacks else chosen, _praise(chosen, bool(fast)), rejected)


def _closeness(option: Option) -> tuple[bool, float]:
    return option.obstacle is None, option.capacity.kv_bytes.expected - option.ledger.total(*NOT_KV).expected


def missed_target(option: Option) -> str | None:
    """Say which latency or rate the option is expected to miss; None if it meets what is asked for."""
    workload = option.request.workload
    for name, wanted_ms, expected_s in (("ITL", workload.itl_ms, option.itl_s), ("TTFT", workload.ttft_ms, option.ttft_s)):
        if wanted_ms is not None and 1000 * expected_s.expected > wanted_ms:
            return f"{name} {_ms(expected_s)}, and {wanted_ms:g} ms are asked for"
    if (busy := _busy_share(option)) > 1:
        return f"{workload.rate:g} requests a second would keep {option.layout.num_gpus} device(s) busy for {busy:,.1f} s of each second"
    return None


def _busy_share(option: Option) -> float:
    """Return which share of the time the stated rate takes, prompts and answers of median length; 0 without one."""
    workload = option.request.workload
    if workload.rate is None:
        return 0.0
    prompt = max(workload.prompt_tokens.p50 - workload.shared_prefix_tokens, 1)
    answer_s = workload.output_tokens.p50 * option.itl_s.expected / option.max_running
    return workload.rate / option.layout.data * (option.speed.prefill(prompt).expected + answer_s)


def _praise(option: Option, is_fast: bool) -> str:
    layout = option.layout
    if layout.num_gpus == 1:
        return "one device"
    if option.request.layout:
        return "as asked for"
    if judge(option).fits == "no":
        return "no way fits; this one comes nearest"
    if not is_fast and (missed := missed_target(option)):
        return f"no way is fast enough: {missed}"
    if layout.gpus_per_replica == 1:
        return f"{layout.data} whole replicas: data parallelism needs no exchange between devices, and gives the most throughput"
    return f"the fewest devices that hold a replica and are fast enough: {layout.gpus_per_replica}"


def _fault(option: Option, chosen: Option) -> str:
    verdict = judge(option)
    if verdict.fits == "no":
        return verdict.sentence
    if missed := missed_target(option):
        return missed
    reason = _loss(option, chosen)
    at_full_load = f"{reason}: {option.full_load_tokens_per_s:,.0f} tokens/s at full load against {chosen.full_load_tokens_per_s:,.0f}"
    here, there = option.tokens_per_s.expected, chosen.tokens_per_s.expected
    if here <= there:
        return at_full_load
    faster = f"{here:,.0f} tokens/s against {there:,.0f}, ITL {_ms(option.itl_s)} against {_ms(chosen.itl_s)}"
    return f"{at_full_load}; at the load of this plan it would be faster ({faster}): --itl-ms asks for it"


def _loss(option: Option, chosen: Option) -> str:
    """Say what a way pays for being more divided than another."""
    if option.layout.pipeline > chosen.layout.pipeline:
        return "pipeline stages wait for each other, and are rarely worth it for serving"
    if option.request.hardware.link.kind == "pcie":
        return "its ranks exchange over PCIe, which makes them 30–50 % slower than NVLink would"
    return "its ranks exchange twice a layer, and whole replicas never"


def _ms(seconds: Interval) -> str:
    return f"{1000 * seconds.expected:,.3g} ms"
