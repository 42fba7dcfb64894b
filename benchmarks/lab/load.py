"""Load on the API: 50 requests in flight for 60 s on kept and on new predictions; latency, errors, memory of the server.

    PYTHONPATH=src python benchmarks/lab/load.py [--seconds 60] [--new]

The client is a process of its own on the same machine: on 2 cores it takes about one of them.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import statistics
import subprocess
import time
from pathlib import Path

from serving import served

BODY = {"model": "llama-3.1-8b", "chip": "m4max", "weights": "q4_k_m"}


def resident_bytes(pid: int) -> int:
    return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


async def client(port: int, until: float, times: list[float], errors: list[str], new: bool, index: int) -> None:
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    count = 0
    while time.perf_counter() < until:
        count += 1
        body = json.dumps({**BODY, "prompt": 100 + index * 10_000 + count} if new else BODY).encode()
        began = time.perf_counter()
        writer.write(
            b"POST /api/v1/predict HTTP/1.1\r\nhost: 127.0.0.1\r\ncontent-type: application/json\r\ncontent-length: %d\r\n\r\n"
            % len(body) + body
        )  # fmt: skip
        head = await reader.readuntil(b"\r\n\r\n")
        length = int(next(line for line in head.split(b"\r\n") if line.lower().startswith(b"content-length:")).split(b":")[1])
        answer = await reader.readexactly(length)
        times.append(time.perf_counter() - began)
        if b" 200 " not in head[:20]:
            errors.append(answer[:200].decode())
    writer.close()


async def load(port: int, pid: int, seconds: float, in_flight: int, new: bool) -> dict[str, object]:
    times: list[float] = []
    errors: list[str] = []
    await client(port, time.perf_counter() + 2, [], errors, new, 999)
    before, until = resident_bytes(pid), time.perf_counter() + seconds
    await asyncio.gather(*(client(port, until, times, errors, new, i) for i in range(in_flight)))
    cuts = statistics.quantiles(times, n=100)
    return {
        "new": new, "in_flight": in_flight, "seconds": seconds, "answers": len(times), "per_second": round(len(times) / seconds),
        "p50_ms": round(1e3 * cuts[49], 2), "p95_ms": round(1e3 * cuts[94], 2), "p99_ms": round(1e3 * cuts[98], 2),
        "errors": len(errors), "first_error": errors[0] if errors else "",
        "server_mib_before": before >> 20, "server_mib_after": resident_bytes(pid) >> 20,
        "load_average": os.getloadavg()[0],
    }  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--seconds", type=float, default=60)
    parser.add_argument("--in-flight", type=int, default=50)
    parser.add_argument("--new", action="store_true", help="a new prediction each time instead of a kept one")
    asked = parser.parse_args()
    with served("serve", stderr=subprocess.DEVNULL) as (port, server):
        print(json.dumps(asyncio.run(load(port, server.pid, asked.seconds, asked.in_flight, asked.new))))


if __name__ == "__main__":
    main()
