"""What ``marquee doctor`` finds, of this machine and of others."""

from __future__ import annotations

import configparser
import io
import json
import re
from pathlib import Path

import pytest
from rich.console import Console
from typer.testing import CliRunner

from archiver.cli import app
from archiver.deploy.diagnosis import print_findings
from archiver.deploy.doctor import EXTRAS, examine, examine_formats
from archiver.deploy.support_matrix import renewed, support_matrix
from handlers.quant.formats import FORMATS
from handlers.quant.machine import Gpu, Machine

ROOT = Path(__file__).parents[3]
T4 = Machine((Gpu("Tesla T4", (7, 5), 16 << 30),), {"bitsandbytes": "0.50"})


def printed(machine: Machine) -> str:
    output = io.StringIO()
    print_findings(examine(machine), Console(file=output, width=200))
    return output.getvalue()


def test_every_format_gets_a_row_with_a_way_or_what_it_lacks() -> None:
    rows = examine_formats(Machine())
    assert [row.name for row in rows] == [row.name for row in FORMATS]
    assert all((row.way is None) != (row.lacks is None) for row in rows)


def test_a_gpu_is_shown_with_what_it_is_too_old_for() -> None:
    text = printed(T4)
    assert "Tesla T4 (compute capability 7.5), 17.2 GB" in text
    assert re.search(r"compressed-tensors FP8 +needs a GPU of compute capability 8.9 or newer", text)
    assert re.search(r"bitsandbytes NF4 +runs: bitsandbytes' kernels +no", text)
    assert re.search(r"AWQ +needs the package gptqmodel \(pip install gptqmodel\)", text)


def test_a_machine_without_gpus_says_so() -> None:
    text = printed(Machine(packages={"gguf": "1"}))
    assert "none that torch can use" in text
    assert re.search(r"bitsandbytes NF4 +runs: packed, our kernels +yes", text)
    assert re.search(r"mxfp4 +needs a CUDA GPU", text)


def test_json_has_the_same_findings(monkeypatch: pytest.MonkeyPatch) -> None:
    result = CliRunner().invoke(app, ["doctor", "--json"])
    assert result.exit_code == 0
    findings = json.loads(result.stdout)
    assert {row["name"] for row in findings["formats"]} == {row.name for row in FORMATS}
    assert {extra["name"] for extra in findings["extras"]} == set(EXTRAS)
    assert findings["python"] and findings["num_cores"] >= 1


def test_the_packages_of_an_extra_are_those_of_the_installation() -> None:
    setup = configparser.ConfigParser(interpolation=None)
    setup.read(ROOT / "setup.cfg")
    for extra, (_, packages) in EXTRAS.items():
        lines = [line.strip() for line in setup["options.extras_require"][extra].splitlines()]
        names = [re.split(r"[^\w-]", line)[0] for line in lines if line and not line.startswith(("#", "marquee["))]
        assert list(packages) == names, extra


def test_a_missing_package_is_shown_with_what_that_costs(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(EXTRAS, "gguf", ("no engine on llama.cpp", ("no-such-package",)))  # type: ignore[arg-type]
    text = printed(Machine())
    assert "no-such-package missing" in text
    assert "no engine on llama.cpp: pip install 'marquee[gguf]'" in text


def test_a_document_without_marks_is_not_touched() -> None:
    with pytest.raises(ValueError, match="no table to renew"):
        renewed("# Title\n")
    assert all(f"| {row.name}" in support_matrix() for row in FORMATS)
