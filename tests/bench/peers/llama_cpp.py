"""llama.cpp's own server, built for this processor from the sources that ``llama-cpp-python`` carries; bf16, Q8_0 or Q4_0 weights."""

from __future__ import annotations

import os
import subprocess
import sys
import tarfile
from dataclasses import dataclass
from pathlib import Path

from tests.bench.load import Completions
from tests.bench.peers.peer import Capacity, Launch, free_port

VERSION = "0.3.36"
_OPTIONS = ("-DCMAKE_BUILD_TYPE=Release", "-DGGML_NATIVE=ON", "-DBUILD_SHARED_LIBS=OFF", "-DLLAMA_CURL=OFF", "-DLLAMA_BUILD_TESTS=OFF")
# gcc 12 takes the argument for eight bytes long and leaves out the stores to the rest of it: a crash where there is AMX.
_TILE_CONFIG = "_tile_loadconfig(&tc);"
_STORED = 'asm volatile("" : : "r"(&tc) : "memory"); '
# Formats that the conversion writes; the others are made from bf16.
_CONVERTED = ("bf16", "q8_0")


@dataclass(frozen=True)
class LlamaCpp:
    """``llama-server`` with continuous batching and as many slots as there are streams. ``weights``: bf16, q8_0 or q4_0."""

    home: Path
    weights: str = "bf16"

    def install(self) -> None:
        """Build it: needs a C++ compiler, cmake and, on two cores, a quarter of an hour."""
        if (self._binaries / "llama-quantize").exists():
            return
        if not self._source.exists():
            self._download()
        build = self._binaries.parent
        subprocess.run(["cmake", "-S", str(self._source), "-B", str(build), *_OPTIONS], check=True, stdout=subprocess.DEVNULL)
        targets = ["--target", "llama-server", "--target", "llama-quantize"]
        subprocess.run(["cmake", "--build", str(build), *targets, "--parallel", str(os.cpu_count())], check=True)

    def launch(self, checkpoint: Path, capacity: Capacity, threads: int) -> Launch:
        """Return the command line; the context is divided among the slots."""
        port = str(free_port())
        command = [
            *(str(self._binaries / "llama-server"), "--model", str(self.gguf(checkpoint)), "--alias", "llm"),
            *("--host", "127.0.0.1", "--port", port, "--threads", str(threads), "--no-webui"),
            *("--parallel", str(capacity.streams), "--ctx-size", str(capacity.streams * capacity.context_tokens), "--cont-batching"),
        ]
        url = f"http://127.0.0.1:{port}"
        # It closes a kept-alive connection after a stream without a word.
        return Launch(command, f"{url}/health", Completions(f"{url}/v1", "llm", headers={"Connection": "close"}))

    def gguf(self, checkpoint: Path) -> Path:
        """Return the file that it serves, made once."""
        return self._converted(checkpoint, self.weights)

    @property
    def _source(self) -> Path:
        return self.home / f"llama_cpp_python-{VERSION}" / "vendor" / "llama.cpp"

    @property
    def _binaries(self) -> Path:
        return self.home / "build" / "bin"

    def _download(self) -> None:
        self.home.mkdir(parents=True, exist_ok=True)
        what = ["--no-deps", "--no-binary", "llama-cpp-python", f"llama-cpp-python=={VERSION}"]
        subprocess.run([sys.executable, "-m", "pip", "download", "--quiet", *what, "--dest", str(self.home)], check=True)
        with tarfile.open(self.home / f"llama_cpp_python-{VERSION}.tar.gz") as archive:
            archive.extractall(self.home, filter="data")
        amx = self._source / "ggml" / "src" / "ggml-cpu" / "amx" / "mmq.cpp"
        amx.write_text(amx.read_text().replace(_TILE_CONFIG, _STORED + _TILE_CONFIG))

    def _converted(self, checkpoint: Path, weights: str) -> Path:
        """Return the checkpoint as GGUF, made once."""
        path = self.home / "gguf" / f"{'-'.join(checkpoint.resolve().parts[1:])}.{weights}.gguf"
        if path.exists():
            return path
        path.parent.mkdir(exist_ok=True)
        unfinished = path.with_suffix(".unfinished")
        if weights in _CONVERTED:
            script = str(Path(__file__).with_name("gguf.py"))
            command = [sys.executable, script, str(self._source), str(checkpoint), "--outfile", str(unfinished), "--outtype", weights]
        else:
            command = [str(self._binaries / "llama-quantize"), str(self._converted(checkpoint, "bf16")), str(unfinished), weights]
        subprocess.run(command, check=True, capture_output=True)
        return unfinished.rename(path)
