"""How fast archives are written and verified, beside ``cp`` and torch-model-archiver, in one run on one machine.

    python tests/bench/archive_bench.py --gib 2 --repeats 5 --json archive.json

The contenders take turns; each ends with its data flushed to the disk. ``write`` is the archive alone; ``build`` is all of ``marquee
archive``, with the checks before it (most of them the import of the handler in a subprocess). Rates are of the checkpoint's bytes.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
from rich.console import Console
from rich.table import Table
from safetensors.numpy import save_file
from tokenizers import Tokenizer, models

from archiver.package import ArchiveSpec, build_archive, verify_archive
from archiver.package.archive import collect_members, write_members
from handlers.integrity import verify_directory

HANDLER = "class Plain:\n    def initialize(self, context): ...\n    def handle(self, data, context): ...\n"
REFERENCE = "cp + fsync"


def make_checkpoint(directory: Path, gib: float, shards: int) -> None:
    """Write random weights, which do not compress, in the given number of shards."""
    directory.mkdir()
    random = np.random.default_rng(0)
    names = ["model.safetensors"] if shards == 1 else [f"model-{index + 1:05}-of-{shards:05}.safetensors" for index in range(shards)]
    for index, name in enumerate(names):
        save_file({f"weight.{index}": np.frombuffer(random.bytes(int(gib * 2**30 / shards)), np.uint8)}, directory / name)
    if shards > 1:
        weight_map = {f"weight.{index}": name for index, name in enumerate(names)}
        (directory / "model.safetensors.index.json").write_text(json.dumps({"weight_map": weight_map}))
    (directory / "config.json").write_text(json.dumps({"architectures": ["LlamaForCausalLM"]}))
    Tokenizer(models.BPE()).save(str(directory / "tokenizer.json"))
    flush(directory)


def flush(path: Path) -> None:
    """Wait until a file, or all files below a directory, are on the disk."""
    for file in [path] if path.is_file() else [file for file in path.rglob("*") if file.is_file()]:
        descriptor = os.open(file, os.O_RDWR)
        os.fsync(descriptor)
        os.close(descriptor)


def contenders(root: Path, slow: bool) -> dict[str, Callable[[], None]]:
    """Return the actions by name; each writes below ``root/out``."""
    checkpoint, handler, out = root / "checkpoint", root / "plain_bot.py", root / "out"
    handler.write_text(HANDLER)
    spec = ArchiveSpec(checkpoint, "bench", handler=handler, out=out)
    formats = {
        ".mar": spec,
        "directory": ArchiveSpec(checkpoint, "bench", handler=handler, out=out, format="dir"),
        "directory, linked": ArchiveSpec(checkpoint, "bench", handler=handler, out=out, format="dir", link=True),
    }
    members = collect_members(spec)

    def copy() -> None:
        subprocess.run(["cp", "-r", str(checkpoint), str(out / "copy")], check=True)
        flush(out)

    def torch_model_archiver(archive_format: str) -> None:
        command = [
            str(Path(sys.executable).with_name("torch-model-archiver")),
            "--model-name",
            "bench",
            "--version",
            "1.0",
            "--handler",
            str(handler),
        ]
        command += ["--extra-files", str(checkpoint), "--export-path", str(out), "--archive-format", archive_format]
        (out / "staging").mkdir()
        subprocess.run(command, check=True, env={**os.environ, "TMPDIR": str(out / "staging")})
        flush(out)

    actions: dict[str, Callable[[], None]] = {REFERENCE: copy}
    actions |= {f"write {name}": lambda spec=spec: write_members(spec, members) for name, spec in formats.items()}
    actions |= {f"build {name}": lambda spec=spec: build_archive(spec) and None for name, spec in formats.items()}
    their_formats = ["zip-store", "no-archive", *(["default"] if slow else [])]
    actions |= {f"torch-model-archiver {name}": lambda name=name: torch_model_archiver(name) for name in their_formats}
    actions["verify .mar"] = lambda: _require(verify_archive(root / "kept/bench.mar").ok)
    actions["verify directory (worker)"] = lambda: verify_directory(root / "kept/bench", required=True)
    for kept in (".mar", "directory"):
        build_archive(
            ArchiveSpec(checkpoint, "bench", handler=handler, out=root / "kept", format="mar" if kept == ".mar" else "dir", link=True)
        )
    return actions


def measure(root: Path, actions: dict[str, Callable[[], None]], repeats: int) -> dict[str, list[float]]:
    """Return the seconds of each repeat; one round before them is not counted."""
    seconds: dict[str, list[float]] = {name: [] for name in actions}
    for repeat in range(repeats + 1):
        for name, action in actions.items():
            shutil.rmtree(root / "out", ignore_errors=True)
            (root / "out").mkdir()
            start = time.perf_counter()
            action()
            if repeat:
                seconds[name].append(time.perf_counter() - start)
    return seconds


def report(seconds: dict[str, list[float]], gib: float) -> list[dict[str, object]]:
    """Return one row a contender: median, spread, rate, and rate relative to ``cp``."""
    reference = statistics.median(seconds[REFERENCE])
    return [
        {
            "name": name,
            "median_s": round(statistics.median(values), 3),
            "min_s": round(min(values), 3),
            "max_s": round(max(values), 3),
            "gib_per_s": round(gib / statistics.median(values), 2),
            "times_cp": round(reference / statistics.median(values), 2),
        }
        for name, values in seconds.items()
    ]


def _require(ok: bool) -> None:
    if not ok:
        raise RuntimeError("the archive that was just built does not verify")


def main() -> None:
    """Parse the arguments, run, and print a table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--gib", type=float, default=2.0, help="size of the checkpoint")
    parser.add_argument("--shards", type=int, default=1, help="number of weight files")
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--only", default="", help="of the contenders beside cp, those with this in their name")
    parser.add_argument("--slow", action="store_true", help="torch-model-archiver's default format too, which deflates: minutes")
    parser.add_argument("--directory", type=Path, help="where to write (default: the temporary directory)")
    parser.add_argument("--json", type=Path, help="write the figures there")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="archive-bench-", dir=arguments.directory) as scratch:
        root = Path(scratch)
        make_checkpoint(root / "checkpoint", arguments.gib, arguments.shards)
        actions = contenders(root, arguments.slow)
        chosen = {name: action for name, action in actions.items() if name == REFERENCE or arguments.only in name}
        rows = report(measure(root, chosen, arguments.repeats), arguments.gib)
    machine = f"{os.cpu_count()} cores, {platform.machine()}, Linux {platform.release()}, Python {platform.python_version()}"
    title = f"{arguments.gib:g} GiB in {arguments.shards} file(s), {arguments.repeats} repeats; load {os.getloadavg()[0]:.1f}; {machine}"
    table = Table(*rows[0], title=title)
    for row in rows:
        table.add_row(*map(str, row.values()))
    Console(width=120).print(table)
    if arguments.json:
        arguments.json.write_text(json.dumps({"title": title, "rows": rows}, indent=1))


if __name__ == "__main__":
    main()
