"""GPUs of a machine, from what ``nvidia-smi`` prints in the shapes that drivers print it."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from archiver.errors import UsageError
from archiver.plan.hardware.detect import choose, detect
from archiver.plan.hardware.nvidia_smi import has_nvlinks, parse_gpus, parse_instances

H100 = "GPU-c9581f3e-0000-4a4b-8d6e-{:012x}"


def h100s(count: int) -> str:
    return "".join(f"{index}, {H100.format(index)}, NVIDIA H100 80GB HBM3, 81559, 551\n" for index in range(count))


def pair(gpu: str) -> str:
    return f"0, GPU-1, {gpu}\n1, GPU-2, {gpu}\n"


def topology(rows: list[str], extra: str = "") -> str:
    headings = "\t".join(f"\x1b[4mGPU{index}" for index in range(len(rows)))
    lines = ["\t".join((f"GPU{index}", *row.split(), "0-31", "0", "", "N/A")) for index, row in enumerate(rows)]
    legend = "\nLegend:\n\n  X    = Self\n  NV#  = Connection traversing a bonded set of # NVLinks\n"
    return f"\t{headings}\tCPU Affinity\tNUMA Affinity\x1b[0m\n" + "\n".join(lines) + f"\n{extra}{legend}"


NVSWITCH = topology(["X NV18", "NV18 X"])
PCIE = topology(["X PHB", "PHB X"])
MIG = """GPU 0: NVIDIA A100-SXM4-80GB (UUID: GPU-51ff52a6-9be1-3ab9-ff88-65d3f97720a1)
  MIG 3g.40gb     Device  0: (UUID: MIG-e6b94c71-1db7-5ad2-a95a-9de8bd50bb1a)
  MIG 2g.20gb     Device  1: (UUID: MIG-80f109f6-aa75-51f9-9909-42ad8029df93)
  MIG 1g.10gb+me  Device  2: (UUID: MIG-79bd4bd1-7b07-5a71-aa77-3afd7b2e20dc)
GPU 1: NVIDIA A100-SXM4-80GB (UUID: GPU-5ac08ef4-9737-c367-bf80-200f205f6014)
"""
DIVIDED = """0, GPU-51ff52a6-9be1-3ab9-ff88-65d3f97720a1, NVIDIA A100-SXM4-80GB, 81920, 767
1, GPU-5ac08ef4-9737-c367-bf80-200f205f6014, NVIDIA A100-SXM4-80GB, 81920, 767
"""


def found(gpus: str, *, listing: str = "", topo: str = "", visible: str | None = None):
    return choose(gpus, listing, topo, visible)


def test_a_program_is_told_of_the_memory_that_the_driver_leaves():
    result = found(h100s(1))
    assert (result.hardware.id, result.count, result.warnings) == ("h100-sxm", 1, ())
    assert result.hardware.memory_bytes == (81559 - 551) << 20  # 79.11 GiB: what torch reports of these


def test_a_driver_that_tells_no_memory_leaves_the_profiles():
    result = found("0, GPU-1, NVIDIA L4, [N/A], [N/A]\n")
    assert result.hardware.memory_bytes == 23_655_000_000


@pytest.mark.parametrize(
    ("gpus", "topo", "link"),
    [
        (h100s(2), NVSWITCH, "nvlink"),
        (h100s(2), PCIE, "pcie"),  # a virtual machine that was given no NVLinks
        (h100s(2), "", "nvlink"),  # not to be seen: as usual for the device
        (
            "0, GPU-1, NVIDIA GeForce RTX 3090, 24576, 317\n1, GPU-2, NVIDIA GeForce RTX 3090, 24576, 317\n",
            topology(["X NV4", "NV4 X"]),
            "nvlink",
        ),
        (pair("NVIDIA GeForce RTX 4090, 24564, 482"), PCIE, "pcie"),
    ],
)
def test_links_are_those_that_the_topology_shows(gpus, topo, link):
    result = found(gpus, topo=topo)
    assert (result.count, result.hardware.link.kind) == (2, link)


def test_pairs_that_are_joined_do_not_join_four():
    pairs = topology(["X NV12 SYS SYS", "NV12 X SYS SYS", "SYS SYS X NV12", "SYS SYS NV12 X"], extra="NIC0\tPIX\tPIX\tSYS\tSYS\n")
    assert has_nvlinks(pairs, [0, 1, 2, 3]) is False
    assert has_nvlinks(pairs, [0, 1]) is True
    assert has_nvlinks(pairs, [1, 2]) is False
    assert has_nvlinks(pairs, [0, 7]) is None


@pytest.mark.parametrize(
    ("visible", "count"),
    [
        (None, 4),
        ("0,1", 2),
        (" 3 , 0 ", 2),
        ("", 0),
        ("-1", 0),
        ("0,-1,2", 1),  # the first that means nothing ends the list
        ("0,9,1", 1),
        (H100.format(2), 1),
        ("GPU-c9581f3e", 1),
        ("NoDevFiles", 0),
    ],
)
def test_a_program_sees_what_cuda_visible_devices_leaves(visible, count):
    result = found(h100s(4), visible=visible)
    assert (result.count if result else 0) == count


def test_of_different_gpus_the_smallest_counts():
    gpus = "0, GPU-1, NVIDIA GeForce RTX 4090, 24564, 482\n1, GPU-2, NVIDIA GeForce RTX 5090, 32607, 486\n"
    result = found(gpus, topo=PCIE)
    assert (result.hardware.id, result.count) == ("rtx4090", 2)
    assert result.warnings == (
        "the GPUs differ (NVIDIA GeForce RTX 4090, NVIDIA GeForce RTX 5090): planned as if all were NVIDIA GeForce RTX 4090 24 GB",
    )
    assert found(gpus, visible="1").hardware.id == "rtx5090"


def test_a_gpu_without_a_profile_asks_for_one():
    with pytest.raises(UsageError, match=r"this machine's NVIDIA H100 NVL has no profile, .*--gpu \(a100-40, .*v100-32\), or give"):
        found("0, GPU-1, NVIDIA H100 NVL, 95830, 551\n")


def test_a_gpu_without_a_profile_is_no_trouble_where_nobody_sees_it():
    gpus = "0, GPU-1, NVIDIA DGX Display, 4096, 100\n1, GPU-2, NVIDIA A100-SXM4-80GB, 81920, 767\n"
    assert found(gpus, visible="1").hardware.id == "a100-80"


def test_a_part_of_a_gpu_has_its_share_of_everything():
    part = found(DIVIDED, listing=MIG, visible="MIG-e6b94c71-1db7-5ad2-a95a-9de8bd50bb1a")
    whole = found(DIVIDED, listing=MIG, visible="1")
    assert (whole.count, whole.hardware.link.kind, whole.warnings) == (1, "nvlink", ())
    assert part.hardware.name == "NVIDIA A100 SXM 80 GB, MIG 3g.40gb"
    assert part.hardware.memory_bytes == whole.hardware.memory_bytes // 2
    assert part.hardware.bandwidth == whole.hardware.bandwidth / 2
    assert part.hardware.flops["bfloat16"] == pytest.approx(312e12 * 3 / 8)
    assert part.hardware.link.kind == "none"


def test_of_a_gpu_that_is_divided_one_part_counts():
    result = found(DIVIDED, listing=MIG, visible="0")
    assert (result.count, result.hardware.id) == (1, "a100-80-1g")
    (warning,) = result.warnings
    assert "planned for one part" in warning and "2 other device(s)" in warning
    assert found(DIVIDED, listing=MIG).hardware.id == "a100-80-1g"


def test_parts_are_read_with_their_sizes():
    assert [size for _, size in parse_instances(MIG)[0]] == [(3, 40), (2, 20), (1, 10)]
    assert parse_instances(MIG).keys() == {0}
    assert parse_gpus("") == []


def install(directory: Path, script: str) -> None:
    tool = directory / "nvidia-smi"
    tool.write_text(f"#!/bin/sh\n{script}\n")
    tool.chmod(0o755)


@pytest.fixture
def tools(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    return tmp_path


def test_the_tool_is_asked(tools, monkeypatch):
    install(tools, f"case $1 in --query*) printf '{h100s(2)}';; topo) printf 'GPU0\\tX\\tNV18\\nGPU1\\tNV18\\tX\\n';; esac")
    assert (detect().hardware.id, detect().count) == ("h100-sxm", 2)
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "1")
    assert detect().count == 1


def test_a_machine_without_the_tool_has_no_gpus(tools):
    if subprocess.run(["sh", "-c", "command -v nvidia-smi"], check=False).returncode == 0:
        pytest.skip("this machine has the tool in /usr/bin")
    assert detect() is None


def test_a_driver_that_does_not_answer_is_said_and_not_used(tools, caplog):
    install(tools, "echo 'NVIDIA-SMI has failed because it could not communicate with the NVIDIA driver.'; exit 9")
    assert detect() is None
    assert "nvidia-smi" in caplog.text and "not used" in caplog.text
