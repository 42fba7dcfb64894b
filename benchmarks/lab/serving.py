"""A server of Orchard in a process of its own, for the benchmarks beside this file."""

from __future__ import annotations

import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any


@contextmanager
def served(command: str, *options: str, stderr: Any = None) -> Iterator[tuple[int, subprocess.Popen[bytes]]]:
    """Port and process of `orchard COMMAND` (serve or lab), which answers by then and is ended afterwards. `stderr`: of Popen."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    server = subprocess.Popen([sys.executable, "-m", "orchard", command, "--port", str(port), *options], stderr=stderr)
    try:
        for _ in range(600):
            try:
                socket.create_connection(("127.0.0.1", port), 1).close()
                break
            except OSError:
                time.sleep(0.1)
        yield port, server
    finally:
        server.terminate()
        server.wait()
