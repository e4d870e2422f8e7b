"""Triton with its vLLM backend: a model repository whose ``model.json`` holds the arguments of vLLM's engine.

Triton's own batcher puts whole requests together, as suits models that answer in one step; a generating model needs a batch that
sequences join and leave at every step, and in this backend vLLM's engine does that (triton-inference-server/vllm_backend, README). So
memory means what it means to vLLM, and ``config.pbtxt`` only hands the devices over (KIND_MODEL).
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from dataclasses import replace

from archiver.plan.peers import vllm
from archiver.plan.peers.deployment import Deployment
from archiver.plan.peers.rendering import Options, Rendering, flags

REPOSITORY = "model_repository"
_CONFIG = """backend: "vllm"
instance_group [
  {
    count: 1
    kind: KIND_MODEL
  }
]
"""


def render(deployment: Deployment) -> Rendering:
    """Return the command of Triton's server, and the model repository."""
    name = re.sub(r"[^\w.-]", "_", deployment.served_name)
    replica = replace(deployment, data_parallel=1)
    options: Options = {"--model-repository": REPOSITORY, "--http-address": deployment.host, "--http-port": deployment.port}
    files = {
        f"{REPOSITORY}/{name}/config.pbtxt": _CONFIG,
        f"{REPOSITORY}/{name}/1/model.json": json.dumps(vllm.engine_arguments(replica), indent=2) + "\n",
    }
    of_vllm = vllm.render(replica)
    return Rendering(
        ("tritonserver", *flags(options)),
        of_vllm.fraction_meaning,
        of_vllm.fraction,
        of_vllm.environment,
        files,
        notes=(*of_vllm.notes, *_notes(deployment, name)),
    )


def _notes(deployment: Deployment, name: str) -> Iterator[str]:
    yield f"requests go to /v2/models/{name}/generate_stream, or to Triton's OpenAI frontend if that is started instead"
    if deployment.data_parallel > 1:
        yield f"run {deployment.data_parallel} of it on devices and ports of their own, behind a load balancer"
