"""The CPU as hardware: what Linux tells of it, what containers leave of it, and what a measurement replaces."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from archiver.plan.hardware import cpu, measurement
from archiver.plan.hardware.cpu import describe_cpu, this_cpu
from archiver.plan.hardware.processor import Processor, read_processor

XEON = """processor\t: 0
model name\t: Intel(R) Xeon(R) Platinum 8481C CPU @ 2.70GHz
cpu MHz\t\t: 1999.998
siblings\t: 8
cpu cores\t: 4
flags\t\t: fpu fma avx2 avx512f avx512_vnni avx512_bf16 amx_bf16 amx_int8

processor\t: 1
model name\t: Another
flags\t\t: fpu
"""
AMX = Processor("AMX", frozenset({"fma", "avx512f", "avx512_bf16", "amx_bf16", "amx_int8", "avx512_vnni"}), hz=2e9)
OLD = Processor("Old", frozenset({"fma", "avx2"}), hz=2e9)


def write(file: Path, text: str) -> Path:
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(text)
    return file


def test_a_processor_is_read_where_linux_tells(tmp_path):
    processor = read_processor(write(tmp_path / "cpuinfo", XEON), tmp_path / "none")
    assert processor.name == "Intel(R) Xeon(R) Platinum 8481C CPU @ 2.70GHz"
    assert {"amx_bf16", "avx512_bf16"} <= processor.features
    assert (processor.threads_per_core, processor.hz) == (2, 2.7e9)


def test_the_clock_is_the_one_that_is_promised(tmp_path):
    cpuinfo = write(tmp_path / "cpuinfo", "model name\t: AMD EPYC\ncpu MHz\t: 2445.406\n")
    assert read_processor(cpuinfo, write(tmp_path / "khz", "3529000\n")).hz == 3.529e9
    assert read_processor(cpuinfo, tmp_path / "none").hz == 2.5e9


def test_arm_calls_its_features_otherwise(tmp_path):
    processor = read_processor(write(tmp_path / "cpuinfo", "processor\t: 0\nFeatures\t: fp asimd asimddp bf16\n"), tmp_path / "none")
    assert describe_cpu(processor, 1, 1).flops.keys() == {"bfloat16", "int8", "float32"}


def test_elsewhere_a_processor_has_at_least_a_name(tmp_path):
    processor = read_processor(tmp_path / "none", tmp_path / "none")
    assert processor.name
    assert not processor.features


def test_features_decide_what_is_multiplied_and_how_fast():
    assert describe_cpu(AMX, 4, 1).flops == {"bfloat16": 1024 * 8e9, "int8": 2048 * 8e9, "float32": 64 * 8e9}
    assert describe_cpu(OLD, 4, 1).flops == {"float32": 32 * 8e9}


def test_threads_of_one_core_multiply_no_more_than_one():
    threads = Processor("SMT", OLD.features, threads_per_core=2, hz=2e9)
    assert describe_cpu(threads, 8, 1).flops == describe_cpu(OLD, 4, 1).flops
    assert describe_cpu(threads, 1, 1).flops == describe_cpu(OLD, 1, 1).flops


def test_bandwidth_grows_with_cores_up_to_a_sockets():
    assert describe_cpu(OLD, 1, 1).bandwidth < describe_cpu(OLD, 8, 1).bandwidth < describe_cpu(OLD, 64, 1).bandwidth
    assert describe_cpu(OLD, 64, 1).bandwidth == describe_cpu(OLD, 128, 1).bandwidth


def test_this_cpu_is_the_same_whenever_it_is_asked():
    first = this_cpu()
    assert first == this_cpu()
    assert (first.device, first.link.kind, first.decode_efficiency.calibrated) == ("cpu", "none", False)
    assert first.memory_bytes <= os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")


def test_memory_is_read_at_a_rate_that_memory_can_have():
    assert 1e8 < measurement.read_bandwidth(2, 1 << 24) < 1e13


def test_a_measurement_replaces_guesses_and_says_how_it_came_about(monkeypatch):
    stages = []
    monkeypatch.setattr(measurement, "read_bandwidth", lambda num_threads, num_bytes: 37e9)
    monkeypatch.setattr(measurement, "multiply_flops", {"bfloat16": 3e11, "float32": 1e11}.__getitem__)
    measured = measurement.measure_cpu(lambda *stage: stages.append(stage))
    assert (measured.bandwidth, measured.flops) == (37e9, {"bfloat16": 3e11, "float32": 1e11})
    assert measured.decode_efficiency.calibrated and measured.prefill_efficiency.calibrated
    assert all("marquee plan --cpu --measure" in source.title for source in measured.sources if source.gives in ("bandwidth", "peaks"))
    assert (measured.name, measured.memory_bytes) == (this_cpu().name, this_cpu().memory_bytes)
    assert stages == [("memory", 0, 3), ("bfloat16", 1, 3), ("float32", 2, 3), ("measured", 3, 3)]


def test_without_torch_only_bandwidth_is_measured(monkeypatch):
    monkeypatch.setattr(measurement, "find_spec", lambda name: None)
    monkeypatch.setattr(measurement, "read_bandwidth", lambda num_threads, num_bytes: 37e9)
    measured = measurement.measure_cpu()
    assert (measured.bandwidth, measured.flops) == (37e9, this_cpu().flops)
    assert measured.decode_efficiency.calibrated and not measured.prefill_efficiency.calibrated


def test_matrices_are_multiplied_at_a_rate_that_processors_can_have(monkeypatch):
    pytest.importorskip("torch")
    monkeypatch.setattr(measurement, "_SIZES", (128,))
    assert 1e7 < measurement.multiply_flops("float32") < 1e16


def test_the_kernels_features_have_a_peak():
    known = {feature for features in cpu._PER_CYCLE.values() for feature, _ in features}
    assert {"amx_bf16", "amx_int8", "avx512_bf16", "avx512_vnni"} <= known
