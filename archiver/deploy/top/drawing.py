"""Numbers as small pictures and short texts."""

from __future__ import annotations

from collections.abc import Sequence

_LEVELS = "▁▂▃▄▅▆▇█"


def bar(share: float, width: int) -> str:
    """Return a bar that is ``share`` (0 to 1) full."""
    full = round(min(max(share, 0.0), 1.0) * width)
    return "█" * full + "░" * (width - full)


def sparkline(values: Sequence[float], width: int) -> str:
    """Return the course of ``values``, at most ``width`` of them, each the mean of as many; the largest is as high as a line."""
    per_column = -(-len(values) // width)
    groups = [values[max(end - per_column, 0) : end] for end in range(len(values), 0, -per_column)][::-1] if values else []
    means = [sum(group) / len(group) for group in groups]
    top = max(means, default=0.0)
    return "".join(_LEVELS[round(mean / top * (len(_LEVELS) - 1))] if top else _LEVELS[0] for mean in means)


def number(value: float) -> str:
    """Return a rate or a count; a small fraction with one digit after the point."""
    return f"{value:,.0f}" if value >= 9.95 or value == round(value) else f"{value:.1f}"


def duration(seconds: float) -> str:
    """Return a time in milliseconds or seconds with about two digits that matter."""
    if seconds < 0.0995:
        return f"{seconds * 1000:.1f} ms" if seconds < 0.00995 else f"{seconds * 1000:.0f} ms"
    return f"{seconds * 1000:.0f} ms" if seconds < 0.9995 else f"{seconds:.1f} s"
