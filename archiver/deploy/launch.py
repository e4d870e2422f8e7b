"""A running TorchServe: start it around archives, ask it, stop all of it."""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from types import TracebackType

from archiver.deploy import guard
from archiver.deploy.command import frontend_command, frontend_environment, torchserve_home
from archiver.deploy.draining import drain_workers
from archiver.deploy.instance import Instance, create_instance
from archiver.deploy.java import find_java_home
from archiver.deploy.management import KeyFile, LoadFailed, ManagementClient, Purpose
from archiver.deploy.ports import Ports, claim_ports
from archiver.deploy.properties import url, write_properties
from archiver.deploy.readiness import ServerDied, wait_until_ready
from archiver.deploy.served_model import ServedModel
from archiver.deploy.settings import ServerSettings
from archiver.deploy.worker_log import ServerLog
from archiver.errors import UsageError
from handlers.worker_directory import control_sockets

_LAST_BYTES_S = 0.2
"""How long the frontend may take to pass on the last answer."""


class TorchServe:
    """One server and everything that belongs to it: processes, ports, runtime directory.

    ::

        with TorchServe.start([ServedModel.from_archive(path)], port=0) as server:
            client = openai.OpenAI(base_url=server.openai_base_url(), api_key="unused")

    ``port`` 0 finds free ones. Leaving the block, ``stop()``, and the death of this process in any way stop the frontend and its workers.
    """

    def __init__(self, models: Sequence[ServedModel], ports: Ports, settings: ServerSettings, instance: Instance) -> None:
        self.models = tuple(models)
        self.ports = ports
        self.settings = settings
        self._instance = instance
        self._management = ManagementClient(self.management_url, KeyFile(self.key_file) if self.key_file else None)
        self._process: subprocess.Popen[bytes] | None = None

    @classmethod
    def start(
        cls,
        models: Sequence[ServedModel],
        *,
        port: int = 0,
        settings: ServerSettings = ServerSettings(),
        progress: Callable[[str], None] = lambda _: None,
    ) -> TorchServe:
        """Start a server and return it when every model is ready.

        Raises UsageError for what cannot start as asked (port in use, no Java, two models of one name), LoadFailed with the worker's real
        cause, ServerDied. After a failure nothing runs any more; the logs stay until the next start.
        """
        _check_names(models)
        java_home, ts_home, ports = check_machine(port, settings)
        server = cls(models, ports, settings, create_instance(ports.inference))
        try:
            server._launch(java_home, ts_home)
            server._wait_until_ready(progress)
        except BaseException as error:
            server._close(keep_logs=isinstance(error, (LoadFailed, ServerDied)))
            raise
        return server

    @property
    def inference_url(self) -> str:
        """Base URL of the inference API, as a client on this machine reaches it."""
        return url(_reachable(self.settings.host), self.ports.inference)

    @property
    def management_url(self) -> str:
        """Base URL of the management API."""
        return url(_reachable(self.settings.management_host), self.ports.management)

    @property
    def metrics_url(self) -> str:
        """URL of the metrics in Prometheus' text format."""
        return f"{url(_reachable(self.settings.metrics_host), self.ports.metrics)}/metrics"

    def prediction_url(self, name: str | None = None) -> str:
        """Return a model's own URL; the first model's without a name."""
        model = self._model(name)
        return f"{self.inference_url}/predictions/{model.name}/{model.version}"

    def openai_base_url(self, name: str | None = None) -> str:
        """Return what an OpenAI client takes as ``base_url``."""
        return f"{self.prediction_url(name)}/v1"

    def worker_pids(self, name: str | None = None) -> list[int]:
        """Return the process ids of a model's workers."""
        return [worker.pid for worker in self._management.describe(self._model(name).name).workers]

    @property
    def frontend_pid(self) -> int:
        """The JVM's process id."""
        return int(self._instance.pid_file.read_text())

    @property
    def logs(self) -> Path:
        """The directory of ``torchserve.log`` and ``console.log``; it is removed when the server stops."""
        return self._instance.logs

    @property
    def key_file(self) -> Path | None:
        """The file of TorchServe's tokens when token auth is on."""
        return self._instance.key_file if self.settings.needs_key else None

    def token(self, kind: Purpose) -> str | None:
        """Return the ``inference`` or ``management`` token; None when token auth is off or the frontend has not written it yet."""
        return KeyFile(self.key_file).key(kind) if self.key_file else None

    def is_running(self) -> bool:
        """Whether the frontend lives."""
        return self._process is not None and self._process.poll() is None

    def wait(self) -> int:
        """Block until the server ends by itself and return its exit status."""
        return self._process.wait() if self._process else 0

    def drain(self) -> bool:
        """Refuse new requests with a 503, and let the others finish within ``settings.drain_timeout_s``; then end them with an error.

        Return whether all were answered in full. ``stop()`` alone cuts off what is under way.
        """
        is_done = drain_workers(control_sockets(self.frontend_pid, self._instance.tmp), self.settings.drain_timeout_s)
        time.sleep(_LAST_BYTES_S)
        return is_done

    def stop(self) -> None:
        """Stop the frontend and all workers, free the ports, remove the runtime directory; it takes 3 to 5 s. May be repeated."""
        self._close(keep_logs=False)

    def __enter__(self) -> TorchServe:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None) -> None:
        self._close(keep_logs=isinstance(error, ServerDied))

    def _model(self, name: str | None) -> ServedModel:
        return next(model for model in self.models if name in (None, model.name))

    def _launch(self, java_home: Path, ts_home: Path) -> None:
        instance = self._instance
        for model in self.models:
            (instance.model_store / model.store_name).symlink_to(model.archive)
        write_properties(instance, self.ports, self.models, self.settings)
        command = frontend_command(java_home, ts_home, instance, self.settings)
        with (instance.logs / "console.log").open("wb") as console:
            self._process = subprocess.Popen(
                # -P: a stand-alone script, which must not find the modules beside it.
                [sys.executable, "-P", guard.__file__, str(instance.pid_file), *command],
                stdin=subprocess.PIPE,
                stdout=console,
                stderr=subprocess.STDOUT,
                cwd=instance.root,
                env=frontend_environment(java_home, instance),
                # Ctrl-C in a terminal goes to its whole foreground group: only we may hear it, and then stop the server in order.
                start_new_session=True,
                pass_fds=(instance.lock.fileno(),),
            )

    def _wait_until_ready(self, progress: Callable[[str], None]) -> None:
        log = ServerLog(self._instance.logs / "torchserve.log")
        try:
            wait_until_ready([model.name for model in self.models], self._management, log, self.is_running, progress)
        except LoadFailed as error:
            raise LoadFailed(f"{error} (log: {self.logs / 'torchserve.log'})") from None
        except ServerDied as error:
            raise ServerDied(f"{error}: {log.last_error or _first_complaint(self.logs / 'console.log')} (logs: {self.logs})") from None

    def _close(self, *, keep_logs: bool) -> None:
        if self._process is not None and self._process.stdin is not None:
            # Both tell the guard to stop the server; a forked child of this process would keep the pipe open.
            self._process.stdin.close()
            self._process.terminate()
            self._process.wait()
        self._management.close()
        self._instance.close(keep_logs=keep_logs)


def check_machine(port: int, settings: ServerSettings) -> tuple[Path, Path, Ports]:
    """Return Java's home, TorchServe's and the ports of a server that could start now; raises UsageError that says what is missing."""
    return find_java_home(), torchserve_home(), claim_ports(port, settings)


def _reachable(host: str) -> str:
    """Return an address of this machine for one that only means "all of them"."""
    return {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(host, host)


def _check_names(models: Sequence[ServedModel]) -> None:
    names = [model.name for model in models]
    for name in names:
        if names.count(name) > 1:
            raise UsageError(f"two models are named {name}: give one of them another, as NAME=PATH")


def _first_complaint(console: Path) -> str:
    # The JVM warns about one of its own interfaces, and TorchServe about GPU tools it does not find, at each start.
    harmless = ("WARNING", "nvidia-smi", "xpu-smi")
    lines = console.read_text(errors="replace").splitlines()
    return next((line for line in lines if line.strip() and not line.startswith(harmless)), "it printed nothing")
