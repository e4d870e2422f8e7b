"""Names of contestants, and the settings that they may carry."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.bench.contestants import NAMES, check_names, parse_settings
from tests.bench.peers.catalogue import PEERS
from tests.bench.peers.peer import Capacity
from tests.bench.peers.transformers_serve import TransformersServe
from tests.bench.peers.vllm_cpu import VllmCpu


def test_every_name_is_known() -> None:
    check_names([*NAMES, "marquee:engine.process=false:engine.max_running=8"])


@pytest.mark.parametrize("name", ["tgi", "vllm:engine.process=false", ""])
def test_an_unknown_name_is_refused(name: str) -> None:
    with pytest.raises(ValueError, match="there is no contestant"):
        check_names([name])


def test_settings_are_read_as_yaml() -> None:
    settings = parse_settings(["engine.process=false", "engine.replicas=2", "quantization.recipe=int8"])
    assert settings == {"engine": {"process": False, "replicas": 2}, "quantization": {"recipe": "int8"}}


def test_peers_are_told_what_to_hold(tmp_path: Path) -> None:
    capacity = Capacity(streams=32, context_tokens=384)
    vllm = VllmCpu(tmp_path).launch(tmp_path / "model", capacity, 2)
    assert {"--max-num-seqs", "32", "--max-model-len", "384"} <= set(vllm.command)
    cached = TransformersServe(tmp_path, continuous_batching=True).launch(tmp_path / "model", capacity, 2)
    assert cached.command[-1] == str(2 * 32 * 2)
    assert vllm.health_url != cached.health_url


def test_a_peer_s_variants_share_an_installation() -> None:
    assert PEERS["llamacpp"](Path("cache")).home == PEERS["llamacpp-q8"](Path("cache")).home
