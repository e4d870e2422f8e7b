"""How a frame looks in a terminal of a given width."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal

from rich.console import Group, RenderableType
from rich.filesize import decimal
from rich.table import Table
from rich.text import Text

from archiver.deploy.top.drawing import bar, duration, number, sparkline
from archiver.deploy.top.snapshot import ModelRow, Snapshot
from archiver.printable import printable

_FULL_KV = 0.9
_UNKNOWN = Text("–", style="dim")


@dataclass(frozen=True)
class Column:
    """``cell`` fits into ``width`` characters; ``rank``: of the columns for which there is no room, those of the highest ranks go."""

    title: str
    width: int
    rank: int
    cell: Callable[[ModelRow], Text]
    justify: Literal["left", "right"] = "right"


def draw(snapshot: Snapshot, width: int) -> RenderableType:
    """Return the frame."""
    url = Text(printable(snapshot.url), style="bold", no_wrap=True, overflow="ellipsis")
    if snapshot.problem:
        return Group(url, "", Text(printable(snapshot.problem), style="red"))
    running = sum(model.running or 0 for model in snapshot.models)
    tokens_per_s = sum(model.tokens_per_s or 0 for model in snapshot.models)
    totals = Text(f"  {running:,.0f} streams  {tokens_per_s:,.0f} tokens/s")
    return Group(url + totals, "", _table(snapshot.models, width) if snapshot.models else Text("no models", style="dim"))


def _table(models: Sequence[ModelRow], width: int) -> Table:
    table = Table(box=None, padding=(0, _GAP, 0, 0), pad_edge=False, header_style="dim")
    columns = fitting(width)
    spare = width + _GAP - sum(column.width + _GAP for column in columns)
    for column in columns:
        most = column.width + spare if column is _COLUMNS[0] else column.width
        table.add_column(column.title, min_width=column.width, max_width=most, justify=column.justify, no_wrap=True)
    for model in models:
        table.add_row(*(column.cell(model) for column in columns))
    return table


def fitting(width: int) -> list[Column]:
    """Return the columns that ``width`` characters have room for, the most important ones, in their order."""
    room, chosen = width + _GAP, []  # no gap after the last
    for column in sorted(_COLUMNS, key=lambda column: column.rank):
        room -= column.width + _GAP
        if room < 0:
            break
        chosen.append(column)
    return [column for column in _COLUMNS if column in chosen]


def _known(value: float | None, text: Callable[[float], str], style: str = "") -> Text:
    return _UNKNOWN if value is None else Text(text(value), style=style)


def _model(row: ModelRow) -> Text:
    return Text.assemble((printable(row.name), "bold"), (f" {printable(row.version)}", "dim"), overflow="ellipsis")


def _streams(row: ModelRow) -> Text:
    limit = "" if row.max_running is None else f"/{row.max_running:.0f}"
    return _known(row.running, lambda running: f"{running:.0f}{limit}")


def _workers(row: ModelRow) -> Text:
    engines = f" × {row.num_engines:.0f}" if row.num_engines and row.num_engines > 1 else ""
    is_short = row.num_ready is not None and row.num_ready < (row.num_workers or 1)
    return _known(row.num_ready, lambda ready: f"{ready:.0f}/{row.num_workers}{engines}", "red" if is_short else "")


def _kv(row: ModelRow) -> Text:
    return _known(row.kv_share, lambda share: f"{bar(share, _BAR)} {share:4.0%}", "red" if (row.kv_share or 0) > _FULL_KV else "")


def _ttft(row: ModelRow) -> Text:
    if row.ttft_p50_s is None or row.ttft_p90_s is None:
        return _UNKNOWN
    return Text(f"{duration(row.ttft_p50_s)} / {duration(row.ttft_p90_s)}")


def _counted(value: float | None, style: str) -> Text:
    return _known(value, number, style if value else "")


_GAP = 2
_BAR = 8
_TREND = 20
_COLUMNS = (
    Column("model", 14, 0, _model, "left"),
    Column("workers", 7, 9, _workers),
    Column("streams", 7, 1, _streams),
    Column("waiting", 7, 2, lambda row: _counted(row.waiting, "yellow")),
    Column("tokens/s", 8, 3, lambda row: _known(row.tokens_per_s, number)),
    Column("last minute", _TREND, 12, lambda row: Text(sparkline(row.tokens_lately, _TREND))),
    Column("KV cache", _BAR + 5, 4, _kv, "left"),
    Column("prefix", 6, 10, lambda row: _known(row.prefix_hit_share, lambda share: f"{share:.0%}")),
    Column("req/s", 6, 5, lambda row: _known(row.requests_per_s, number)),
    Column("4xx/s", 5, 7, lambda row: _counted(row.refused_per_s, "yellow")),
    Column("5xx/s", 5, 6, lambda row: _counted(row.failed_per_s, "red")),
    Column("TTFT p50 / p90", 15, 8, _ttft),
    Column("inter-token", 11, 11, lambda row: _known(row.inter_token_p50_s, duration)),
    Column("memory", 8, 13, lambda row: _known(row.memory_bytes, lambda count: decimal(int(count)))),
)
