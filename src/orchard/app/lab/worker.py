"""A process that calculates answers: one job per line on stdin, one header line and a body on stdout.

    in   {"job": "view", "body": {...}}
    out  {"status": 200, "length": 1234}\n<1234 bytes of JSON>

Whatever is printed meanwhile goes to stderr. The process ends when stdin does.
"""

from __future__ import annotations

import json
import os
import sys
import traceback
from typing import IO, Any

from orchard.units import OrchardError

MEMORY_BYTES = 6 << 30
"""Address space of a worker; a request that needs more ends the worker, not the machine."""


def main() -> None:
    out = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)
    limit(memory_bytes=MEMORY_BYTES)
    from orchard.app.lab.jobs import JOBS

    for line in sys.stdin.buffer:
        asked = json.loads(line)
        status, body = _done(JOBS[asked["job"]], asked["body"])
        _reply(out, status, body)


def _done(job: Any, body: dict[str, Any]) -> tuple[int, bytes]:
    try:
        found = job(body)
        data = found if isinstance(found, bytes) else json.dumps(found, allow_nan=False, ensure_ascii=False).encode("utf-8")
    except OrchardError as error:
        return 422, refusal(str(error))
    except MemoryError:
        return 422, refusal("this request needs more memory than a worker may use; try it on the command line")
    except Exception:
        traceback.print_exc()
        return 500, refusal("this is a defect of Orchard, not of your input; the server's output has the details")
    return 200, data


def refusal(sentence: str) -> bytes:
    """The body of an answer that is none."""
    return json.dumps({"error": " ".join(sentence.split())}).encode()


def _reply(out: IO[bytes], status: int, body: bytes) -> None:
    out.write(json.dumps({"status": status, "length": len(body)}).encode() + b"\n" + body)
    out.flush()


def limit(*, memory_bytes: int, cpu_s: int | None = None, file_bytes: int | None = None) -> None:
    """Limits of this process and its children: address space, processor time, size of any file it writes, no core dump."""
    try:
        import resource
    except ImportError:  # Windows has none; the time limit of the pool remains
        return
    wanted = {resource.RLIMIT_AS: memory_bytes, resource.RLIMIT_CPU: cpu_s, resource.RLIMIT_FSIZE: file_bytes}
    wanted[resource.RLIMIT_CORE] = 0
    for kind, value in wanted.items():
        if value is not None:
            hard = resource.getrlimit(kind)[1]
            most = value if hard == resource.RLIM_INFINITY else min(value, hard)
            try:
                resource.setrlimit(kind, (most, most))
            except (ValueError, OSError):
                continue  # macOS refuses some of them


if __name__ == "__main__":
    main()
