"""The deployment guide's handler as an archive, made by torch-model-archiver: what our handlers are measured against."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

from archiver.deploy.served_model import ServedModel

_HANDLER = Path(__file__).with_name("textbook_handler.py")

# Batches of 8, and 100 ms of patience for them to fill.
_MODEL_CONFIG = """\
minWorkers: 1
maxWorkers: 1
batchSize: 8
maxBatchDelay: 100
responseTimeout: 600
startupTimeout: 600
textbook:
  num_tokens: {num_tokens}
"""


def package_textbook(checkpoint: Path, out: Path, num_tokens: int) -> ServedModel:
    """Package ``checkpoint`` with a handler that generates ``num_tokens`` for every request; ``out`` is an existing directory."""
    config = out / "model-config.yaml"
    config.write_text(_MODEL_CONFIG.format(num_tokens=num_tokens))
    command = [
        *(str(Path(sys.executable).with_name("torch-model-archiver")), "--model-name", "textbook", "--version", "1.0", "--force"),
        *("--handler", str(_HANDLER), "--extra-files", f"{checkpoint}/", "--config-file", str(config), "--export-path", str(out)),
    ]
    # The archiver wipes and fills <temp dir>/<model name> on its way.
    subprocess.run(command, check=True, env=os.environ | {"TMPDIR": str(out)})
    return ServedModel.from_archive(out / "textbook.mar")
