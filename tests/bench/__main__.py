"""Run a short version of every benchmark, to see that they work and roughly what they say.

python -m tests.bench [DIRECTORY for results]
"""

from __future__ import annotations

import subprocess
import sys

_SHORT = {
    "serving_bench": ["--quick", "--streams", "1,8"],
    "prefix_bench": ["--models", "tinychat", "--prefix-tokens", "600", "--repeats", "1"],
    "startup_bench": ["--repeats", "1"],
    "disconnect_bench": ["--trials", "5"],
}


def main(out: list[str]) -> int:
    """Run them one after the other; return the first failure's status."""
    options = ["--out", out[0]] if out else []
    for name, short in _SHORT.items():
        print(f"\n{name}", flush=True)
        status = subprocess.run([sys.executable, "-m", f"tests.bench.{name}", *short, *options]).returncode
        if status:
            return status
    return subprocess.run([sys.executable, "-m", "tests.bench.archive_bench", "--gib", "0.25", "--repeats", "1"]).returncode


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
