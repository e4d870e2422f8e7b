"""The servers that a plan can be rendered for."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from types import MappingProxyType

from archiver.plan.peers import llama_cpp, sglang, tgi, triton, vllm
from archiver.plan.peers.deployment import Deployment
from archiver.plan.peers.rendering import Rendering

PEERS: Mapping[str, Callable[[Deployment], Rendering]] = MappingProxyType(
    {
        "vLLM": vllm.render,
        "SGLang": sglang.render,
        "TGI": tgi.render,
        "llama.cpp": llama_cpp.render,
        "Triton": triton.render,
    }
)
"""What renders a deployment, by the server's name."""


def render_all(deployment: Deployment) -> dict[str, Rendering]:
    """Return the deployment in the words of every server, by its name."""
    return {name: render(deployment) for name, render in PEERS.items()}
