"""The same tests check the compiled kernels where there is a GPU: tensors are made there."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import torch
from hypothesis import settings

if torch.cuda.is_available():
    settings.register_profile("compiled", deadline=None)  # an example waits for a compiler
    settings.load_profile("compiled")


@pytest.fixture(autouse=True, scope="package")
def tensors_on_the_gpu() -> Iterator[None]:
    torch.set_default_device("cuda" if torch.cuda.is_available() else None)
    yield
    torch.set_default_device(None)
