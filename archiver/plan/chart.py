"""A plan as a picture: what takes the memory, and how throughput and latency grow with the batch."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from archiver.errors import UsageError
from archiver.plan.plan import Plan

_GIB = 1 << 30
_COLOURS = {
    "weights": "#4c72b0",
    "activations": "#dd8452",
    "logits": "#e7ba52",
    "context": "#8c8c8c",
    "graphs": "#c44e52",
    "kv_cache": "#55a868",
    "reserve": "#dddddd",
}
_HEADLINES = {"yes": "fits", "if": "fits if …", "no": "won't fit"}
SUFFIXES = (".png", ".svg", ".pdf")


def draw_plan(plan: Plan, file: Path) -> None:
    """Write the picture to ``file``, in the format that its name says; raises UsageError for another, and without matplotlib."""
    if file.suffix not in SUFFIXES:
        raise UsageError(f"--chart writes {', '.join(SUFFIXES)}; got {file.name}")
    try:
        from matplotlib.figure import Figure
    except ImportError:
        raise UsageError("--chart needs matplotlib: pip install 'marquee[quantize]', or pip install matplotlib") from None
    figure = Figure(figsize=(11, 4.6), layout="constrained")
    memory, speed = figure.subplots(1, 2, width_ratios=(1, 1.6))
    request, fits = plan.request, _HEADLINES[plan.verdict.fits]
    figure.suptitle(f"{request.model.name} on {request.count} × {request.hardware.name}: {fits}", fontsize=11)
    _draw_memory(plan, memory)
    _draw_speed(plan, speed)
    figure.savefig(file, dpi=150)


def _draw_memory(plan: Plan, axes: Any) -> None:
    """One bar from the bottom up, with whiskers where a part is uncertain."""
    ledger, bottom = plan.option.ledger, 0.0
    for index, line in enumerate(ledger.lines):
        height = line.bytes.expected / _GIB
        axes.bar(0, height, bottom=bottom, color=_COLOURS[line.part], width=0.5, label=f"{line.part.replace('_', ' ')} {height:,.3g}")
        if line.bytes.high > line.bytes.low:
            x = -0.18 + 0.36 * index / len(ledger.lines)
            axes.plot([x, x], [bottom + line.bytes.low / _GIB, bottom + line.bytes.high / _GIB], color="black", linewidth=1)
        bottom += height
    axes.axhline(ledger.device_bytes / _GIB, color="black", linestyle="--", linewidth=1)
    axes.set(xticks=[], xlim=(-0.4, 1.1), ylabel="GiB of each device", title="memory (whiskers: interval)")
    handles, labels = axes.get_legend_handles_labels()
    axes.legend(handles[::-1], labels[::-1], loc="center right", fontsize=8, frameon=False)


def _draw_speed(plan: Plan, axes: Any) -> None:
    points = plan.operating_points()
    batches = [point.batch for point in points]
    rates, times = [point.tokens_per_s for point in points], [point.itl_s * 1000 for point in points]
    axes.plot(batches, [rate.expected for rate in rates], color="#4c72b0", marker=".", label="tokens/s")
    axes.fill_between(batches, [rate.low for rate in rates], [rate.high for rate in rates], color="#4c72b0", alpha=0.2)
    axes.set(xscale="log", yscale="log", xlabel="sequences at once, each replica", ylabel="tokens/s, all replicas", title="bounds by batch")
    axes.set_xticks(batches, [str(batch) for batch in batches], rotation=45, fontsize=8)
    axes.minorticks_off()
    latency = axes.twinx()
    latency.plot(batches, [time.expected for time in times], color="#dd8452", marker=".", label="ms between tokens")
    latency.fill_between(batches, [time.low for time in times], [time.high for time in times], color="#dd8452", alpha=0.2)
    latency.set(yscale="log", ylabel="ms between tokens")
    for axis in (latency.yaxis, axes.yaxis):
        axis.set_major_formatter("{x:,.4g}")
        axis.set_minor_formatter("{x:,.4g}")
    axes.axvline(plan.option.max_running, color="black", linestyle="--", linewidth=1)
    axes.annotate(f" planned: {plan.option.max_running}", (plan.option.max_running, axes.get_ylim()[0]), fontsize=8, va="bottom")
    lines = [*axes.get_lines()[:1], *latency.get_lines()]
    axes.legend(lines, [line.get_label() for line in lines], loc="upper left", fontsize=8, frameon=False)
