"""What holds for every test: no process of a test uses more than one thread for a model's operators.

Several servers and this process share few cores; with torch's default each waits for the other's threads, up to 19 times slower.
"""

from __future__ import annotations

import os

os.environ.setdefault("OMP_NUM_THREADS", "1")
