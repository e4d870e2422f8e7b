"""Queries in PromQL held against the metrics that are declared: every series and every label that one names must exist."""

from __future__ import annotations

import re
from pathlib import Path

import yaml

_DECLARED = yaml.safe_load((Path(__file__).parents[1] / "config" / "metrics.yaml").read_text())
_SCRAPED = {"up": {"job", "instance"}}
"""What Prometheus itself adds."""
_WORDS = {"and", "or", "unless", "bool", "offset", "by", "without", "on", "ignoring", "group_left", "group_right"}
_LISTS = r"\b(?:by|without|on|ignoring|group_left|group_right)\s*\(([^)]*)\)"


def check_query(query: str) -> None:
    """Fail unless all series and labels of a query are ones that a server of ours has."""
    for opening, closing in ("()", "[]", "{}"):
        assert query.count(opening) == query.count(closing), query
    series = _series()
    names = series_names(query)
    assert names and names <= series.keys(), f"{names - series.keys()} in {query}"
    for name, matchers in re.findall(r"([\w:]+)\s*\{([^}]*)\}", query):
        used = set(re.findall(r"(\w+)\s*(?:=~|!~|!=|=)", matchers))
        assert used <= series[name], f"{used - series[name]} of {name} in {query}"
    known = set().union(*(series[name] for name in names))
    for labels in re.findall(_LISTS, query):
        used = {label.strip() for label in labels.split(",") if label.strip()}
        assert used <= known, f"{used - known} in {query}"


def series_names(query: str) -> set[str]:
    """Return the names in a query that are neither functions nor labels nor keywords."""
    bare = re.sub(r'"[^"]*"', "", query)
    bare = re.sub(r"\{[^}]*\}|\[[^\]]*\]", "", bare)
    bare = re.sub(_LISTS, " ", bare)
    found = re.finditer(r"(?<![\w.$])[a-zA-Z_:][\w:]*", bare)
    return {match[0] for match in found if match[0] not in _WORDS and not bare[match.end() :].lstrip().startswith("(")}


def _series() -> dict[str, set[str]]:
    """Return every series that TorchServe publishes with its labels."""
    series = dict(_SCRAPED)
    for kinds in (_DECLARED["ts_metrics"], _DECLARED["model_metrics"]):
        for kind, metrics in kinds.items():
            for metric in metrics:
                labels = {"Hostname", "job", "instance", *metric["dimensions"]}
                for suffix in ("_bucket", "_sum", "_count") if kind == "histogram" else ("",):
                    series[metric["name"] + suffix] = labels | ({"le"} if suffix == "_bucket" else set())
    return series
