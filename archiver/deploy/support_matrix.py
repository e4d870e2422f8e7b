"""The support matrix as a table in Markdown. ``python -m archiver.deploy.support_matrix README.md`` renews the one in a file."""

from __future__ import annotations

import re
import sys
from collections.abc import Iterable
from pathlib import Path

from handlers.quant.formats import FORMATS, Device, Format
from handlers.quant.machine import dotted

BEGIN, END = "<!-- formats: python -m archiver.deploy.support_matrix README.md -->", "<!-- end of formats -->"

_UNTRIED, _CALIBRATED = "†", "‡"


def support_matrix() -> str:
    """Return the table, a line a format, and what its marks mean."""
    head = ("format", "`quantization_config` says", "CPU", "CUDA GPU", "`--recipe`", "at load")
    table = "".join(_line(cells) for cells in (head, ["---"] * len(head), *map(_cells, FORMATS)))
    return f"\n{table}\n{_UNTRIED} written, never run. {_CALIBRATED} calibrated on sample texts. ≥: compute capability.\n\n"


def renewed(text: str) -> str:
    """Return a document with the table between its two marks brought up to date; raises ValueError if it lacks them."""
    if BEGIN not in text or END not in text:
        raise ValueError(f"no table to renew: put the lines {BEGIN!r} and {END!r} where it goes")
    return re.sub(f"{re.escape(BEGIN)}.*{re.escape(END)}", lambda _: f"{BEGIN}\n{support_matrix()}{END}", text, flags=re.DOTALL)


def _cells(row: Format) -> Iterable[str]:
    recipe = f"`{row.recipe}`" if row.recipe else ""
    at_load = f"`{row.load_recipe}`" if row.load_recipe else ""
    return row.name + _CALIBRATED * row.is_calibrated, row.sign, _route(row, "cpu"), _route(row, "cuda"), recipe, at_load


def _route(row: Format, device: Device) -> str:
    route = row.route(device)
    if route is None:
        return f"no: {row.obstacle}" if row.obstacle and device == "cpu" else "no"
    needs = [*route.packages, *([f"≥ {dotted(route.capability)}"] if any(route.capability) else [])]
    return route.way + (f" ({', '.join(needs)})" if needs else "") + _UNTRIED * (not route.has_run)


def _line(cells: Iterable[str]) -> str:
    return f"| {' | '.join(cells)} |\n"


if __name__ == "__main__":
    document = Path(sys.argv[1])
    document.write_text(renewed(document.read_text()))
