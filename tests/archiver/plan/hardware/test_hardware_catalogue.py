"""Hardware profiles: those that come along are complete and plausible, names find them, and mistakes in a file are named."""

from __future__ import annotations

from collections import Counter
from itertools import pairwise
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from archiver.configuration import config_path
from archiver.errors import UsageError
from archiver.plan.hardware.catalogue import find_hardware, known_hardware, load_catalogue, read_hardware
from archiver.plan.hardware.profile import NO_LINK

EVERY = load_catalogue()
ids = [hardware.id for hardware in EVERY]


def test_the_devices_that_are_promised_are_there():
    promised = ["t4", "v100", "l4", "a10g", "a100-40", "a100-80", "l40s", "h100-pcie", "h100-sxm", "h200", "b200", "mi300x"]
    for name in [*promised, "rtx3090", "rtx4090", "rtx5090"]:
        assert find_hardware(name).device == "cuda"


def test_no_two_devices_share_a_name():
    names = Counter(alias.lower() for hardware in EVERY for alias in (hardware.id, hardware.name, *hardware.aliases))
    assert not [name for name, count in names.items() if count > 1]


@pytest.mark.parametrize("hardware", EVERY, ids=ids)
def test_intervals_are_ordered_and_shares_are_shares(hardware):
    shares = [hardware.decode_efficiency.share, hardware.prefill_efficiency.share, *(link.share for link in hardware.links)]
    for interval in (*shares, hardware.context, *(link.latency_s for link in hardware.links)):
        assert 0 < interval.low <= interval.expected <= interval.high
    assert all(share.high <= 1.05 for share in shares)  # NVLink SHARP passes what the wire alone could do


@pytest.mark.parametrize("hardware", EVERY, ids=ids)
def test_peaks_fit_together(hardware):
    flops = hardware.flops
    assert flops["float32"] < flops["float16"] <= flops.get("int8", flops["float16"])
    assert flops.get("bfloat16", flops["float16"]) == flops["float16"]
    # Sparse figures by mistake would double these: no device has so many FLOP for a byte that it reads.
    assert 50 < flops["float16"] / hardware.bandwidth < 420
    if hardware.capability:
        assert ("float8" in flops) == (hardware.capability >= (8, 9))
        assert ("bfloat16" in flops) == (hardware.capability >= (8, 0))


@pytest.mark.parametrize("hardware", EVERY, ids=ids)
def test_a_device_has_a_little_less_memory_than_its_name_says(hardware):
    promised = int(hardware.name.split()[-2])
    assert 0.9 < hardware.memory_bytes / (promised * 2**30) < 1


@pytest.mark.parametrize("hardware", EVERY, ids=ids)
def test_every_figure_has_a_source_and_a_date(hardware):
    text = config_path(f"gpus/{hardware.id}.yaml").read_text()
    assert {"peaks", "bandwidth", "links", "memory"} <= {word for source in hardware.sources for word in source.gives.split(", ")}
    assert all(source.date[:2] == "20" for source in (*hardware.sources, hardware.decode_efficiency, hardware.prefill_efficiency))
    assert "dense" in text


@pytest.mark.parametrize("hardware", EVERY, ids=ids)
def test_what_was_not_measured_says_so(hardware):
    for efficiency in (hardware.decode_efficiency, hardware.prefill_efficiency):
        assert efficiency.calibrated or "nothing was measured" in efficiency.source


@pytest.mark.parametrize(
    ("name", "found"),
    [
        ("h100", "h100-sxm"),
        ("H100 SXM", "h100-sxm"),
        ("NVIDIA H100 80GB HBM3", "h100-sxm"),
        ("NVIDIA H100 PCIe", "h100-pcie"),
        ("A100-SXM4-40GB", "a100-40"),
        ("NVIDIA A100-SXM4-40GB", "a100-40"),
        ("NVIDIA A100 80GB PCIe", "a100-80-pcie"),
        ("a100", "a100-80"),
        ("Tesla T4", "t4"),
        ("Tesla V100-SXM2-32GB", "v100-32"),
        ("rtx_4090", "rtx4090"),
        ("NVIDIA GeForce RTX 4090", "rtx4090"),
        ("MI300X", "mi300x"),
    ],
)
def test_names_that_people_and_drivers_use_find_a_device(name, found):
    assert find_hardware(name).id == found


@pytest.mark.parametrize("name", ["NVIDIA GeForce RTX 4090 Laptop GPU", "NVIDIA GeForce RTX 3090 Ti", "NVIDIA H100 NVL", "NVIDIA A10", ""])
def test_another_device_with_a_name_alike_is_none_of_these(name):
    assert known_hardware(name) is None


def test_an_unknown_name_is_answered_with_near_ones_and_all():
    with pytest.raises(UsageError, match=r"no GPU named 'h10O'; did you mean 'h100'\? there are a100-40, a100-40-pcie, .*.*rtx5090"):
        find_hardware("h10O")


def profile(directory: Path, old: str = "", new: str = "") -> str:
    text = config_path("gpus/l4.yaml").read_text()
    assert old in text
    file = directory / "mine.yaml"
    file.write_text(text.replace(old, new, 1))
    return str(file)


def test_a_file_of_ones_own_is_a_profile(tmp_path):
    own = find_hardware(profile(tmp_path, "bandwidth: 300.0e+9", "bandwidth: 150.0e+9"))
    assert (own.id, own.bandwidth) == ("mine", 150e9)


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("bandwidth: 300", "bandwith: 300", "unknown key bandwith; did you mean 'bandwidth'?"),
        ("    latency_s:", "    latency:", "unknown key links.0.latency; did you mean 'latency_s'?"),
        ("bandwidth: 300.0e+9", "bandwidth: 300e9", "bandwidth: Input should be a valid number, got '300e9'"),
        ("  float8:", "  fp8:", "flops.fp8."),
        ("device: cuda\n", "", "device is missing"),
        ("device: cuda", "device: tpu", "device: Input should be 'cuda' or 'cpu', got 'tpu'"),
        ("memory_bytes: ", "memory_bytes: -", "memory_bytes: Input should be greater than 0"),
        ("name: NVIDIA", "name: [", "is not YAML"),
    ],
)
def test_a_mistake_in_a_file_is_named(tmp_path, old, new, message):
    file = profile(tmp_path, old, new)
    with pytest.raises(UsageError) as error:
        find_hardware(file)
    assert message in str(error.value)
    assert file in str(error.value)
    assert "\n" not in str(error.value)


def test_a_missing_file_and_a_list_are_refused(tmp_path):
    with pytest.raises(UsageError, match="no such hardware profile"):
        find_hardware("/no/such.yaml")
    (tmp_path / "list.yaml").write_text("- 1\n")
    with pytest.raises(UsageError, match="must be a mapping"):
        read_hardware(tmp_path / "list.yaml")


def test_a_rate_is_a_peak_times_a_share():
    h100 = find_hardware("h100")
    assert h100.decode_bandwidth.expected == pytest.approx(0.7 * 3.35e12)
    assert h100.prefill_flops("float8").high == pytest.approx(0.65 * 1979e12)
    assert find_hardware("v100").prefill_flops("bfloat16") is None


def test_one_device_sums_in_no_time_and_two_without_a_link_cannot():
    assert find_hardware("h100").link.all_reduce_s(1 << 20, 1).high == 0
    assert NO_LINK.all_reduce_s(1, 1).high == 0
    with pytest.raises(ValueError, match="without a link"):
        NO_LINK.all_reduce_s(1, 2)


@given(st.floats(0, 1e9), st.integers(2, 64), st.sampled_from([link for hardware in EVERY for link in hardware.links]))
def test_a_ring_sends_twice_what_others_hold(num_bytes, num_devices, link):
    """By counting: a reduce-scatter and an all-gather, each of n - 1 steps in which every device sends one n-th."""
    seconds = link.all_reduce_s(num_bytes, num_devices)
    sent = sum(num_bytes / num_devices for _ in range(2) for _ in range(num_devices - 1))
    assert seconds.expected == pytest.approx(link.latency_s.expected + sent / (link.bandwidth * link.share.expected))
    assert seconds.low <= seconds.expected <= seconds.high


def test_links_of_another_kind_come_first_if_there_are_any():
    rtx3090 = find_hardware("rtx3090")
    assert (rtx3090.link.kind, rtx3090.linked_by("nvlink").link.kind) == ("pcie", "nvlink")
    assert find_hardware("l4").linked_by("nvlink").link.kind == "pcie"


def test_newer_devices_read_faster():
    lines = [["v100-32", "a100-40", "a100-80", "h100-sxm", "h200", "b200"], ["t4", "a10g", "l40s"], ["rtx3090", "rtx4090", "rtx5090"]]
    for line in lines:
        assert all(find_hardware(old).bandwidth < find_hardware(new).bandwidth for old, new in pairwise(line))
