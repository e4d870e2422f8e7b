"""The command line and the environment of TorchServe's frontend.

Written here, as ``ts/model_server.py`` of TorchServe 0.12 writes it, rather than through the ``torchserve`` script, because that script

* starts the JVM in the background and leaves, or stays and, when it gets a SIGTERM, leaves JVM and workers behind;
* puts the current directory in front of the class path, so that a class file lying there replaces the server's own;
* takes ``java``, and through it the workers' Python, by what ``PATH`` and ``JAVA_HOME`` happen to say.
"""

from __future__ import annotations

import os
import sys
from importlib import util
from pathlib import Path

from archiver.configuration import config_path
from archiver.deploy.instance import Instance
from archiver.deploy.settings import ServerSettings
from archiver.errors import UsageError

# The JVM only passes messages on: measured under load, it keeps 27 MB after a collection.
_DEFAULT_VMARGS = "-Xmx1g -XX:+ExitOnOutOfMemoryError -XX:TieredStopAtLevel=1 -XX:+UseSerialGC"


def torchserve_home() -> Path:
    """Return the directory that holds the ``ts`` package of this environment. Raises UsageError when TorchServe is not installed."""
    found = util.find_spec("ts")
    for location in (found.submodule_search_locations or []) if found else []:
        if (Path(location) / "frontend" / "model-server.jar").is_file():
            return Path(location).parent
    raise UsageError("TorchServe is not installed in this environment: run `pip install 'marquee[serve]'`")


def frontend_command(java_home: Path, ts_home: Path, instance: Instance, settings: ServerSettings) -> list[str]:
    """Return the JVM's command line; workers run on the interpreter that runs this."""
    vmargs = settings.properties.get("vmargs", _DEFAULT_VMARGS)
    return [
        str(java_home / "bin" / "java"),
        f"-Dmodel_server_home={ts_home}",
        f"-Djava.io.tmpdir={instance.tmp}",
        f"-Dlog4j.configurationFile={config_path('log4j2.xml')}",
        f"-Dmarquee.log.level={settings.log_level}",
        *vmargs.split(),  # last: where an option stands twice, the JVM takes the later one
        *("-cp", str(ts_home / "ts" / "frontend" / "*")),
        "org.pytorch.serve.ModelServer",
        *("--python", sys.executable),
        *("-f", str(instance.config_file)),
        *("-s", str(instance.model_store)),
        "-ncs",  # no configuration snapshots
    ]


def frontend_environment(java_home: Path, instance: Instance) -> dict[str, str]:
    """Return the environment of the frontend, which workers inherit: ours, with all directories inside the instance."""
    return {
        **os.environ,
        "JAVA_HOME": str(java_home),
        "TMPDIR": str(instance.tmp),
        "TEMP": str(instance.tmp),
        "LOG_LOCATION": str(instance.logs),
        "METRICS_LOCATION": str(instance.logs),
        "TS_CONFIG_FILE": str(instance.config_file),
    }
