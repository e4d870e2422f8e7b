"""TorchServe's management API in memory, with the answers of 0.12: as much of it as the client asks for."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx

KEY_REFUSED = "Token Authorization failed. Token either incorrect, expired, or not provided correctly"


@dataclass
class FakeVersion:
    """One registered version, of which ``loadable`` workers can load.

    ``on_ask`` is called when a worker is asked to describe itself, ``on_resize`` with the number of workers wanted.
    """

    archive: str
    workers: int = 1
    pending: int = 0
    is_continuous: bool = False
    on_ask: Callable[[], Any] = dict
    on_resize: Callable[[int], None] = lambda count: None
    first_pid: int = 100
    loadable: int = 64
    age: int = 0


@dataclass
class FakeTorchServe:
    """``store``: what its model store holds, an archive's name to name, version and kind; ``key_file`` turns token authorization on."""

    models: dict[str, dict[str, FakeVersion]] = field(default_factory=dict)
    store: dict[str, tuple[str, FakeVersion]] = field(default_factory=dict)
    defaults: dict[str, str] = field(default_factory=dict)
    failing: set[str] = field(default_factory=set)
    has_model_api: bool = True
    key_file: Path | None = None
    valid_key: str = "m0"
    page_size: int = 100
    requests: list[str] = field(default_factory=list)
    num_renewals: int = 0

    @property
    def transport(self) -> httpx.MockTransport:
        return httpx.MockTransport(lambda request: self.answer(request))  # which a test may replace

    def add(self, name: str, version: str, fake: FakeVersion | None = None) -> FakeVersion:
        """Register a version; a model's first one is its default."""
        fake = fake or FakeVersion(f"{name}.mar")
        self.models.setdefault(name, {})[version] = fake
        self.defaults.setdefault(name, version)
        return fake

    def write_keys(self, management: str) -> None:
        assert self.key_file
        keys = {"management": {"key": management}, "inference": {"key": "i0"}, "API": {"key": "api"}}
        self.key_file.write_text(json.dumps(keys))

    def answer(self, request: httpx.Request) -> httpx.Response:
        path, query = request.url.path, dict(request.url.params)
        self.requests.append(f"{request.method} {request.url.raw_path.decode()}")
        if self.key_file and (refusal := self._check_key(request, path)):
            return refusal
        if path == "/token":
            return httpx.Response(200, text=" ")
        match [request.method, *path.strip("/").split("/")]:
            case ["GET", "models"]:
                return self._list(int(query.get("next_page_token", 0)))
            case ["POST", "models"]:
                return self._register(query)
            case [method, "models", name, *rest]:
                return self._on_model(method, name, rest, query)
        return error(404, "ResourceNotFoundException", "Requested resource is not found, please refer to API document.")

    def _check_key(self, request: httpx.Request, path: str) -> httpx.Response | None:
        assert self.key_file
        expected = "api" if path == "/token" else self.valid_key
        if request.headers.get("authorization") != f"Bearer {expected}":
            return error(400, "InvalidKeyException", KEY_REFUSED)
        if path == "/token":
            self.num_renewals += 1
            self.valid_key = f"renewed-{self.num_renewals}"
            self.write_keys(self.valid_key)
        return None

    def _list(self, start: int) -> httpx.Response:
        names = list(self.models)
        page = [{"modelName": name, "modelUrl": self._default(name).archive} for name in names[start : start + self.page_size]]
        more = {"nextPageToken": str(start + self.page_size)} if start + self.page_size < len(names) else {}
        return httpx.Response(200, json={"models": page} | more)

    def _register(self, query: dict[str, str]) -> httpx.Response:
        if not self.has_model_api:
            return not_allowed()
        if "url" not in query:
            return error(400, "BadRequestException", "Parameter url is required.")
        url = query["url"]
        if "://" in url and not url.startswith("https://models.example/"):
            return error(404, "ModelNotFoundException", f"Given URL {url} does not match any allowed URL(s)")
        if url not in self.store:
            return error(404, "ModelNotFoundException", f"Model not found at: {url}")
        version, template = self.store[url]
        name = query.get("model_name", "unnamed")
        if version in self.models.get(name, {}):
            return error(409, "ConflictStatusException", f"Model version {version} is already registered for model {name}")
        template.archive = url
        template.loadable = 0 if url in self.failing else template.loadable
        self.add(name, version, template)
        return accepted()

    def _on_model(self, method: str, name: str, rest: list[str], query: dict[str, str]) -> httpx.Response:
        if method == "DELETE" and not self.has_model_api:
            return not_allowed()
        if name not in self.models:
            return error(404, "ModelNotFoundException", f"Model not found: {name}")
        version = rest[0] if rest else self.defaults[name]
        if version == "all":
            return httpx.Response(200, json=[self._describe(name, each) for each in self.models[name]])
        if version not in self.models[name]:
            return error(404, "ModelVersionNotFoundException", f"Model version: {version} does not exist for model: {name}")
        fake = self.models[name][version]
        if rest[1:] == ["set-default"]:
            self.defaults[name] = version
        elif method == "PUT":
            fake.workers = int(query["max_worker"])
            fake.on_resize(fake.workers)
            return accepted()
        elif method == "DELETE":
            if version == self.defaults[name] and len(self.models[name]) > 1:
                return error(403, "InvalidModelVersionException", f"Cannot remove default version for model {name}")
            del self.models[name][version]
            fake.on_resize(0)
            if not self.models[name]:
                del self.models[name], self.defaults[name]
        elif "customized" in query:
            return httpx.Response(200, json=[self._describe(name, version) | {"customizedMetadata": fake.on_ask()}])
        else:
            return httpx.Response(200, json=[self._describe(name, version)])
        return status("done")

    def _default(self, name: str) -> FakeVersion:
        return self.models[name][self.defaults[name]]

    def _describe(self, name: str, version: str) -> dict[str, Any]:
        fake = self.models[name][version]
        fake.age += 1
        return {
            "modelName": name,
            "modelVersion": version,
            "modelUrl": fake.archive,
            "minWorkers": fake.workers,
            "maxWorkers": fake.workers,
            "batchSize": 8,
            "maxBatchDelay": 50,
            "continuousBatching": fake.is_continuous,
            "workers": [self._worker(fake, index) for index in range(fake.workers)],
            "jobQueueStatus": {"remainingCapacity": 1000 - fake.pending, "pendingRequests": fake.pending},
        }

    @staticmethod
    def _worker(fake: FakeVersion, index: int) -> dict[str, Any]:
        """Return a worker that has loaded, or one that dies and is started anew, in another process, while it is looked at."""
        is_ready = index < fake.loadable
        pid = fake.first_pid + index if is_ready else 1000 * (1 + fake.age // 5) + index
        state = "READY" if is_ready else "UNLOADING"
        return {"id": str(9000 + index), "startTime": "2020-01-02T03:04:05.678Z", "status": state, "memoryUsage": 0, "pid": pid}


def error(code: int, kind: str, message: str) -> httpx.Response:
    return httpx.Response(code, json={"code": code, "type": kind, "message": message})


def status(text: str) -> httpx.Response:
    return httpx.Response(200, json={"status": text})


def accepted() -> httpx.Response:
    return httpx.Response(202, json={"status": "Processing worker updates..."})


def not_allowed() -> httpx.Response:
    return error(405, "MethodNotAllowedException", "Requested method is not allowed, please refer to API document.")
