"""Without a GPU the kernels can still be compiled for one, and what they would take of it can be read from the result."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[5]
SHARED_BYTES = 99 * 1024
"""What a program may have on every GPU from sm_80 on: sm_86 and sm_89 have the least."""


def compiled_by(module, *arguments):
    """Return what a module prints, in a process of its own: in this one kernels are interpreted."""
    environment = {name: value for name, value in os.environ.items() if name != "TRITON_INTERPRET"}
    command = [sys.executable, "-W", "ignore", "-m", f"tests.handlers.engine.gpu.kernels.{module}", *arguments]
    process = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True)
    assert process.returncode == 0, process.stderr[-2000:]
    return json.loads(process.stdout)


@pytest.mark.parametrize(("capability", "stack_bytes", "tensor_cores"), [(80, 64, {"mma.sync"}), (90, 0, {"mma.sync", "wgmma"})])
def test_kernels_compile_and_fit(capability, stack_bytes, tensor_cores):
    kernels = compiled_by("compile_kernels", str(capability))
    for kernel in kernels:
        assert kernel["shared_bytes"] <= SHARED_BYTES, kernel
        assert kernel["stack_bytes"] <= stack_bytes, kernel  # registers that spill into memory
        if kernel["name"].startswith("_attend"):
            assert "cp.async" in kernel["instructions"], kernel  # keys are fetched while others are multiplied
            assert tensor_cores & set(kernel["instructions"]), kernel
    assert {kernel["name"] for kernel in kernels} >= {"_rms_norm", "_silu_multiply", "_rotate_and_write", "_combine"}


def test_no_request_waits_for_a_kernel_that_loading_has_not_compiled():
    variants = compiled_by("count_variants")
    assert len(variants["loading"]) == 9
    assert not variants["late"]
