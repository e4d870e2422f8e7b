"""Archives around handlers of a few lines: what launching, stopping and failing need, without weights."""

from __future__ import annotations

import json
import textwrap
from collections.abc import Callable

import pytest

from archiver.deploy.served_model import ServedModel

ECHO = """
    class Echo:
        def initialize(self, context):
            pass

        def handle(self, data, context):
            return [bytes(row["body"]) for row in data]
"""

MakeModel = Callable[..., ServedModel]


@pytest.fixture(scope="session")
def make_model(tmp_path_factory: pytest.TempPathFactory) -> MakeModel:
    """Return a function that writes an archive directory and returns it as a model to serve."""

    def make(name: str = "echo", handler: str = ECHO, **frontend_keys: object) -> ServedModel:
        archive = tmp_path_factory.mktemp(name) / name
        (archive / "MAR-INF").mkdir(parents=True)
        model = {"modelName": name, "modelVersion": "1.0", "handler": "handler.py", "configFile": "model-config.yaml"}
        manifest = {"createdOn": "01/01/2020 00:00:00", "runtime": "python", "model": model, "archiverVersion": "0.12.0"}
        (archive / "MAR-INF" / "MANIFEST.json").write_text(json.dumps(manifest))
        (archive / "handler.py").write_text(textwrap.dedent(handler))
        keys = {"minWorkers": 1, "maxWorkers": 1, **frontend_keys}
        (archive / "model-config.yaml").write_text(json.dumps(keys))  # JSON is YAML
        return ServedModel.from_archive(archive)

    return make
