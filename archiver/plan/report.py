"""A plan for a person to read: the verdict first, then what it rests on."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from rich.console import Console, Group, RenderableType
from rich.table import Table
from rich.text import Text

from archiver.plan.hardware.profile import Hardware
from archiver.plan.peers.rendering import Rendering
from archiver.plan.plan import Plan
from archiver.plan.verdict import gib
from handlers.memory_ledger import Interval

_STYLES = {"yes": "bold green", "if": "bold yellow", "no": "bold red"}
_PART_NAMES = {"kv_cache": "KV cache"}


def show_plan(plan: Plan, console: Console) -> None:
    """Print the whole report."""
    for section in _sections(plan):
        console.print(section, highlight=False, soft_wrap=False)
        console.print()


def show_peers(renderings: dict[str, Rendering], console: Console) -> None:
    """Print the same plan as commands of other servers, and what they cannot be told."""
    for name, rendering in renderings.items():
        share = "" if rendering.fraction is None else f"{rendering.fraction:.4g} = "
        console.print(Text(f"{name}: {share}{rendering.fraction_meaning}", style="bold"))
        console.print(rendering.shell, highlight=False, markup=False, soft_wrap=True)
        for path, content in rendering.files.items():
            console.print(Text(f"{path}:", style="dim"))
            console.print(content.rstrip(), highlight=False, markup=False, soft_wrap=True)
        for note in rendering.notes:
            console.print(f"  {note}", style="dim", highlight=False, markup=False, soft_wrap=True)
        console.print()


def _sections(plan: Plan) -> Iterator[RenderableType]:
    yield _headline(plan)
    yield _ledger(plan)
    yield _limits(plan)
    yield _speed(plan)
    yield _advice(plan)
    if plan.rejected:
        yield _rejected(plan)


def _headline(plan: Plan) -> RenderableType:
    option, request = plan.option, plan.request
    model, device = request.model, request.hardware
    where = f"{request.count} × {device.name}, {option.layout}: {plan.reason}" if request.count > 1 else device.name
    exactness = "from headers" if model.is_exact else "computed from the configuration" + ("" if model.is_known else ", as of a Llama")
    lines = [
        Text(f"{model.name}: {model.architecture}, {model.num_elements:,} parameters, {model.format.name} {model.dtype} ({exactness})"),
        Text(f"on {where}; figures are of the engine {option.replica.engine.name}"),
        Text(str(plan.verdict), style=_STYLES[plan.verdict.fits]),
    ]
    if plan.missed_target:
        lines.append(Text(f"misses its target: {plan.missed_target}", style=_STYLES["if"]))
    lines += [Text(f"  would fit: {remedy.change}") for remedy in plan.remedies]
    return Group(*lines)


def _ledger(plan: Plan) -> Table:
    ledger = plan.option.ledger
    table = Table(title="Memory of each device" if plan.request.count > 1 else "Memory", title_justify="left", box=None, pad_edge=False)
    for column in ("", "expected", "between", "and"):
        table.add_column(column, justify="left" if not column else "right", no_wrap=True)
    table.add_column("how", overflow="fold")
    for line in ledger.lines:
        sizes = (line.bytes.expected, line.bytes.low, line.bytes.high)
        table.add_row(_PART_NAMES.get(line.part, line.part), *map(gib, sizes), line.formula)
    table.add_section()
    table.add_row("all", gib(ledger.total().expected), "", "", f"of {gib(ledger.device_bytes)}", style="bold")
    return table


def _limits(plan: Plan) -> Table:
    option, workload = plan.option, plan.request.workload
    capacity, lengths = option.capacity, workload.sequence_tokens
    table = _facts("Limits of each replica" if option.layout.data > 1 else "Limits")
    table.add_row("KV cache", f"{capacity.tokens:,} tokens of {capacity.bytes_per_token:,.0f} bytes on each device{_state(plan)}")
    longest = f" of the model's {plan.request.model.max_model_len:,}" if plan.request.model.max_model_len else ""
    table.add_row("longest sequence", f"{capacity.max_context:,} tokens{longest}")
    table.add_row(f"sequences of {lengths.p50:,} tokens (p50)", f"{capacity.sequences.p50:,} at once")
    table.add_row(f"sequences of {lengths.p95:,} tokens (p95)", f"{capacity.sequences.p95:,} at once")
    table.add_row("planned", f"{option.max_running:,} run at once; more wait, and the last are preempted where memory runs short")
    return table


def _state(plan: Plan) -> str:
    replica = plan.option.replica
    state = replica.sequence_bytes(replica.sizes.block_tokens) - replica.token_bytes * replica.sizes.block_tokens
    return f", and {gib(state)} for each sequence, whatever its length" if state >= 1 else ""


def _speed(plan: Plan) -> Table:
    option, workload, places = plan.option, plan.request.workload, plan.option.max_running * plan.option.layout.data
    table = _facts("Speed bounds")
    table.add_row("tokens/s", f"{_between(option.tokens_per_s)} with all {places:,} places taken, prompts left out")
    table.add_row("between tokens", f"{_between(option.itl_s * 1000)} ms{_target(workload.itl_ms)}")
    prompt = f"a prompt of {workload.prompt_tokens.p95:,} tokens that need not wait"
    table.add_row("first token", f"{_between(option.ttft_s * 1000)} ms for {prompt}{_target(workload.ttft_ms)}")
    table.add_row("balanced batch", f"{option.speed.balanced_batch():,}: weights alone; reading contexts comes on top")
    table.add_row("calibrated", _calibration(plan.request.hardware))
    if plan.batching:
        setting = f"batchSize {plan.batching.batch_size}, maxBatchDelay {plan.batching.max_batch_delay_ms} ms"
        table.add_row("static batching", f"{setting}: {plan.batching.latency_s:,.3g} s an answer at this rate")
    elif workload.rate is not None:
        table.add_row("static batching", "cannot keep up with this rate, or not in this time")
    return table


def _calibration(device: Hardware) -> str:
    kinds: Sequence[tuple[str, bool]] = (("decode", device.decode_efficiency.calibrated), ("prompts", device.prefill_efficiency.calibrated))
    measured = " and ".join(kind for kind, done in kinds if done)
    guessed = " and ".join(kind for kind, done in kinds if not done)
    return "; ".join(f"{kind} {how}" for kind, how in ((measured, "by measurement"), (guessed, "not: intervals are wide")) if kind)


def _advice(plan: Plan) -> Table:
    table = Table(title="Advice", title_justify="left", box=None, pad_edge=False, show_header=False)
    table.add_column(no_wrap=True)
    table.add_column(style="bold", overflow="fold", max_width=34)
    table.add_column(overflow="fold")
    for advice in plan.advice:
        table.add_row(advice.topic, advice.choice, advice.reason)
    return table


def _rejected(plan: Plan) -> Table:
    table = _facts("Other ways to use the devices")
    for rejection in plan.rejected:
        table.add_row(str(rejection.option.layout), rejection.reason)
    return table


def _facts(title: str) -> Table:
    table = Table(title=title, title_justify="left", box=None, pad_edge=False, show_header=False)
    table.add_column(no_wrap=True)
    table.add_column(overflow="fold")
    return table


def _between(estimate: Interval) -> str:
    ends = (estimate.expected, estimate.low, estimate.high)
    expected, low, high = (f"{end:,.0f}" if end >= 100 else f"{end:.3g}" for end in ends)
    return f"{expected} ({low} to {high})"


def _target(wanted_ms: float | None) -> str:
    return "" if wanted_ms is None else f"; {wanted_ms:g} ms are asked for"
