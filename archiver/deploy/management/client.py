"""Drive the management API's operations over HTTP, waiting or awaiting."""

from __future__ import annotations

import asyncio
import time
from types import TracebackType
from typing import Any, Self, TypeVar

import httpx

from archiver.deploy.management import operations
from archiver.deploy.management.calls import Call, Operation, Pause
from archiver.deploy.management.errors import Unreachable
from archiver.deploy.management.keys import KeyAuth, KeyFile
from archiver.deploy.management.operations import OnStatus
from archiver.deploy.management.status import ModelStatus, ModelSummary

T = TypeVar("T")

_CONNECT_TIMEOUT_S = 10.0


def _ignore(_: ModelStatus) -> None:
    """Whoever waits is told nothing."""


class ManagementClient:
    """The models of one server. Thread-safe.

    ::

        with ManagementClient("http://127.0.0.1:8081") as management:
            management.register("bot.mar", "bot")
            print(management.describe("bot").num_ready)

    ``keys`` are needed if token authorization is on. Every method raises a ManagementError that says what to do. Registering and removing
    need ``enable_model_api=true``; in TorchServe 0.12 all else works without. While workers load, ``on_status`` hears how they are doing.
    Nothing is drained here; ``archiver.deploy.models`` does.
    """

    def __init__(self, url: str, keys: KeyFile | None = None, *, transport: httpx.BaseTransport | None = None) -> None:
        self.url = url.rstrip("/")
        # A proxy from the environment has no business between two processes of one machine.
        self._http = httpx.Client(base_url=self.url, auth=_auth(self.url, keys), trust_env=False, transport=transport)

    def list(self) -> tuple[ModelSummary, ...]:
        """Return all registered models."""
        return self._run(operations.list_models())

    def describe(self, name: str, version: str | None = None) -> ModelStatus:
        """Return one version of a model, by default the default one."""
        return self._run(operations.describe(name, version))

    def versions(self, name: str) -> tuple[ModelStatus, ...]:
        """Return all versions of a model."""
        return self._run(operations.versions(name))

    def register(self, archive: str, name: str | None = None, *, workers: int = 1, on_status: OnStatus = _ignore) -> ModelStatus:
        """Register an archive, named in the model store or by an https URL, and wait until it is loaded. Raises LoadFailed."""
        return self._run(operations.register(archive, name, workers, on_status))

    def scale_workers(self, name: str, version: str, workers: int, *, on_status: OnStatus = _ignore) -> ModelStatus:
        """Have this number of workers and wait for new ones; what ends loses its requests. Raises LoadFailed."""
        return self._run(operations.scale_workers(name, version, workers, on_status))

    def set_default(self, name: str, version: str) -> None:
        """Have requests that name no version go to this one."""
        self._run(operations.set_default(name, version))

    def unregister(self, name: str, version: str) -> None:
        """Remove one version; what its workers are working on is never answered."""
        self._run(operations.unregister(name, version))

    def check_model_api(self) -> None:
        """Raise ModelApiOff unless models can be registered and removed."""
        self._run(operations.check_model_api())

    def ask_a_worker(self, name: str, version: str, *, timeout_s: float = 10.0) -> dict[str, Any]:
        """Return what the next free worker of a synchronous model says of itself; never to be used on a continuous one."""
        return self._run(operations.ask_a_worker(name, version, timeout_s))

    def close(self) -> None:
        """Close the connections."""
        self._http.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None) -> None:
        self.close()

    def _run(self, operation: Operation[T]) -> T:
        try:
            step = next(operation)
            while True:
                try:
                    response = self._take(step)
                except BaseException as error:  # noqa: BLE001 - the operation raises it again
                    step = operation.throw(error)
                else:
                    step = operation.send(response)
        except StopIteration as end:
            result: T = end.value
            return result
        except httpx.RequestError as error:
            raise _unreachable(self.url, error) from error

    def _take(self, step: Call | Pause) -> httpx.Response | None:
        if isinstance(step, Pause):
            time.sleep(step.seconds)
            return None
        return self._http.send(self._http.build_request(**_request(step)))


class AsyncManagementClient:
    """The same as ``ManagementClient``, to be awaited."""

    def __init__(self, url: str, keys: KeyFile | None = None, *, transport: httpx.AsyncBaseTransport | None = None) -> None:
        self.url = url.rstrip("/")
        self._http = httpx.AsyncClient(base_url=self.url, auth=_auth(self.url, keys), trust_env=False, transport=transport)

    async def list(self) -> tuple[ModelSummary, ...]:
        """Return all registered models."""
        return await self._run(operations.list_models())

    async def describe(self, name: str, version: str | None = None) -> ModelStatus:
        """Return one version of a model, by default the default one."""
        return await self._run(operations.describe(name, version))

    async def versions(self, name: str) -> tuple[ModelStatus, ...]:
        """Return all versions of a model."""
        return await self._run(operations.versions(name))

    async def register(self, archive: str, name: str | None = None, *, workers: int = 1, on_status: OnStatus = _ignore) -> ModelStatus:
        """Register an archive, named in the model store or by an https URL, and wait until it is loaded. Raises LoadFailed."""
        return await self._run(operations.register(archive, name, workers, on_status))

    async def scale_workers(self, name: str, version: str, workers: int, *, on_status: OnStatus = _ignore) -> ModelStatus:
        """Have this number of workers and wait for new ones; what ends loses its requests. Raises LoadFailed."""
        return await self._run(operations.scale_workers(name, version, workers, on_status))

    async def set_default(self, name: str, version: str) -> None:
        """Have requests that name no version go to this one."""
        await self._run(operations.set_default(name, version))

    async def unregister(self, name: str, version: str) -> None:
        """Remove one version; what its workers are working on is never answered."""
        await self._run(operations.unregister(name, version))

    async def check_model_api(self) -> None:
        """Raise ModelApiOff unless models can be registered and removed."""
        await self._run(operations.check_model_api())

    async def ask_a_worker(self, name: str, version: str, *, timeout_s: float = 10.0) -> dict[str, Any]:
        """Return what the next free worker of a synchronous model says of itself; never to be used on a continuous one."""
        return await self._run(operations.ask_a_worker(name, version, timeout_s))

    async def close(self) -> None:
        """Close the connections."""
        await self._http.aclose()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None) -> None:
        await self.close()

    async def _run(self, operation: Operation[T]) -> T:
        try:
            step = next(operation)
            while True:
                try:
                    response = await self._take(step)
                except BaseException as error:  # noqa: BLE001 - the operation raises it again
                    step = operation.throw(error)
                else:
                    step = operation.send(response)
        except StopIteration as end:
            result: T = end.value
            return result
        except httpx.RequestError as error:
            raise _unreachable(self.url, error) from error

    async def _take(self, step: Call | Pause) -> httpx.Response | None:
        if isinstance(step, Pause):
            await asyncio.sleep(step.seconds)
            return None
        return await self._http.send(self._http.build_request(**_request(step)))


def _auth(url: str, keys: KeyFile | None) -> KeyAuth | None:
    return KeyAuth(keys, "management", url) if keys else None


def _request(call: Call) -> dict[str, Any]:
    timeout = httpx.Timeout(_CONNECT_TIMEOUT_S, read=call.timeout_s)
    return {"method": call.method, "url": call.path, "params": call.params, "timeout": timeout}


def _unreachable(url: str, error: httpx.RequestError) -> Unreachable:
    return Unreachable(f"no TorchServe answers at {url} ({str(error) or type(error).__name__}): start it, or name its address with --url")
