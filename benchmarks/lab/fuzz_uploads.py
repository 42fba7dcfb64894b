"""Hostile uploads of every accepted format against a running server: it goes on, answers 4xx or rightly, and stays small.

    PYTHONPATH=src python benchmarks/lab/fuzz_uploads.py [--each 60] [--seed 0] [--keep FOLDER]

Files of each format are made here, then cut, flipped, zeroed, doubled, renamed, and given declared sizes they do not have;
archives are bombs, lie about sizes, and lead out of their folder; bodies lie about their length. Whatever is accepted has to
predict, and the undamaged files have to give the numbers of `orchard predict`. Memory is that of the server and of all its
processes together.
"""

from __future__ import annotations

import argparse
import io
import json
import math
import os
import pickle
import random
import socket
import struct
import subprocess
import sys
import tempfile
import threading
import time
import zipfile
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import quote

import httpx
from serving import served

CONFIG = {
    "model_type": "llama", "architectures": ["LlamaForCausalLM"], "hidden_size": 64, "intermediate_size": 128,
    "num_hidden_layers": 2, "num_attention_heads": 4, "num_key_value_heads": 2, "vocab_size": 256, "tie_word_embeddings": True,
}  # fmt: skip
CANARY = Path(tempfile.gettempdir()) / f"orchard-fuzz-canary-{os.getpid()}"
"""Appears when somebody loads a pickle of ours."""


@dataclass(frozen=True)
class Case:
    """One upload. `valid`: an undamaged file; `path`: the URL is sent as it is."""

    kind: str
    name: str
    data: bytes
    valid: bool = False
    path: str = ""


# ------------------------------------------------------------------------------------------------------------------ files


def onnx_file() -> bytes:
    import numpy as np
    from onnx import TensorProto, helper, numpy_helper

    n = helper.make_node
    nodes = [
        n("Conv", ["x", "k"], ["c"], strides=[2, 2]), n("Relu", ["c"], ["r"]), n("Flatten", ["r"], ["f"]),
        n("MatMul", ["f", "w"], ["m"]), n("Softmax", ["m"], ["y"], axis=-1),
    ]  # fmt: skip
    weights = {"k": np.ones((8, 3, 3, 3), np.float32), "w": np.ones((392, 10), np.float32)}
    graph = helper.make_graph(
        nodes, "tiny", [helper.make_tensor_value_info("x", TensorProto.FLOAT, [1, 3, 16, 16])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, [1, 10])],
        [numpy_helper.from_array(v, k) for k, v in weights.items()],
    )  # fmt: skip
    made: bytes = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)]).SerializeToString()
    return made


def gguf_file(folder: Path) -> bytes:
    import gguf
    import numpy as np

    path = folder / "tiny.gguf"
    w = gguf.GGUFWriter(path, "llama")
    for add, value in (
        (w.add_block_count, 1), (w.add_embedding_length, 256), (w.add_head_count, 4), (w.add_head_count_kv, 2),
        (w.add_feed_forward_length, 512), (w.add_context_length, 2048),
    ):  # fmt: skip
        add(value)
    w.add_token_list([f"t{i}" for i in range(96)])
    sizes = {"attn_q": (256, 256), "attn_k": (128, 256), "attn_v": (128, 256), "attn_output": (256, 256)}
    sizes |= {"ffn_gate": (512, 256), "ffn_up": (512, 256), "ffn_down": (256, 512)}
    tensors = {"token_embd": (96, 256), "output_norm": (256,), "blk.0.attn_norm": (256,), "blk.0.ffn_norm": (256,)}
    tensors |= {f"blk.0.{k}": v for k, v in sizes.items()}
    for name, shape in tensors.items():
        w.add_tensor(f"{name}.weight", np.zeros(shape, np.float32 if len(shape) == 1 else np.float16))
    w.write_header_to_file()
    w.write_kv_data_to_file()
    w.write_tensors_to_file()
    w.close()
    return path.read_bytes()


def core_ml_files(folder: Path) -> tuple[bytes, bytes]:
    """A package in an archive, and a network of the old format."""
    import coremltools as ct
    import numpy as np
    from coremltools.converters.mil import Builder as mb  # noqa: N813
    from coremltools.models import datatypes
    from coremltools.models.neural_network import NeuralNetworkBuilder

    @mb.program(input_specs=[mb.TensorSpec((1, 3, 8, 8))], opset_version=ct.target.iOS16)  # type: ignore[untyped-decorator]
    def net(x: Any) -> Any:
        y = mb.conv(x=x, weight=np.ones((8, 3, 3, 3), np.float32), strides=[2, 2], pad_type="same")
        return mb.softmax(x=mb.linear(x=mb.reshape(x=mb.relu(x=y), shape=[1, 128]), weight=np.ones((4, 128), np.float32)))

    package = folder / "tiny.mlpackage"
    ct.convert(net, minimum_deployment_target=ct.target.iOS16, skip_model_load=True).save(str(package))
    entries = {str(p.relative_to(folder)): p.read_bytes() for p in sorted(package.rglob("*")) if p.is_file()}
    b = NeuralNetworkBuilder([("x", datatypes.Array(1, 3, 8, 8))], [("y", None)], disable_rank5_shape_mapping=True)
    b.add_convolution("c", 3, 8, 3, 3, 2, 2, "same", 1, np.ones((3, 3, 3, 8)), np.ones(8), True, input_name="x", output_name="c")
    b.add_activation("r", "RELU", "c", "y")
    return zipped(entries), b.spec.SerializeToString()


def mlx_file(folder: Path) -> bytes:
    import mlx.core as mx

    path, weight = folder / "tiny.mlxfn", mx.ones((64, 32))
    mx.eval(weight)
    mx.export_function(str(path), lambda x: mx.tanh(x @ weight), mx.zeros((2, 64)))
    return path.read_bytes()


def safetensors_file(shape: list[int] | None = None, size: int | None = None) -> bytes:
    shape = shape or [64, 32]
    header = {"a.weight": {"dtype": "F16", "shape": shape, "data_offsets": [0, 2 * math.prod(shape)]}}
    text = json.dumps(header).encode()
    return struct.pack("<Q", len(text) if size is None else size) + text + bytes(4096)


def zipped(entries: dict[str, bytes], method: int = zipfile.ZIP_DEFLATED) -> bytes:
    made = io.BytesIO()
    with zipfile.ZipFile(made, "w", method) as archive:
        for name, data in entries.items():
            archive.writestr(name, data)
    return made.getvalue()


def originals() -> dict[str, bytes]:
    """By suffix."""
    with tempfile.TemporaryDirectory() as own:
        folder = Path(own)
        package, network = core_ml_files(folder)
        return {
            ".onnx": onnx_file(), ".gguf": gguf_file(folder), ".safetensors": safetensors_file(), ".mlmodel": network,
            ".mlxfn": mlx_file(folder), ".json": json.dumps(CONFIG).encode(), ".zip": package,
        }  # fmt: skip


# -------------------------------------------------------------------------------------------------------------- mutations


def cut(raw: bytes, r: random.Random) -> bytes:
    return raw[: r.randrange(1, len(raw))]


def flipped(raw: bytes, r: random.Random) -> bytes:
    made = bytearray(raw)
    for _ in range(r.choice((1, 4, 32, 256))):
        made[r.randrange(len(made))] ^= 1 << r.randrange(8)
    return bytes(made)


def early_flip(raw: bytes, r: random.Random) -> bytes:
    """Where headers are."""
    made = bytearray(raw)
    for _ in range(r.choice((1, 2, 8))):
        made[r.randrange(min(256, len(made)))] = r.choice((0, 0x7F, 0x80, 0xFF, r.randrange(256)))
    return bytes(made)


def overwritten(raw: bytes, r: random.Random) -> bytes:
    at, size = r.randrange(len(raw)), r.choice((1, 8, 64, 1024))
    return raw[:at] + r.choice((b"\0", b"\xff", b"A")) * size + raw[at + size :]


def spliced(raw: bytes, r: random.Random) -> bytes:
    at, to = sorted((r.randrange(len(raw)), r.randrange(len(raw))))
    return r.choice((raw[:at] + raw[to:], raw[:to] + raw[at:], raw + raw, raw[to:] + raw[:to]))


def grown(raw: bytes, r: random.Random) -> bytes:
    at = r.randrange(len(raw))
    return raw[:at] + r.randbytes(r.choice((1, 100, 10_000))) + raw[at:]


MUTATIONS: dict[str, Callable[[bytes, random.Random], bytes]] = {
    "cut": cut, "bits flipped": flipped, "header changed": early_flip, "overwritten": overwritten, "spliced": spliced,
    "grown": grown,
}  # fmt: skip


def mutated(files: dict[str, bytes], each: int, seed: int) -> Iterator[Case]:
    names = list(MUTATIONS)
    for suffix, raw in files.items():
        yield Case("undamaged", f"tiny{suffix}", raw, valid=True)
        for number in range(each):
            r, how = random.Random(f"{seed}{suffix}{number}"), names[number % len(names)]
            yield Case(how, f"m{number}{suffix}", MUTATIONS[how](raw, r))


def renamed(files: dict[str, bytes]) -> Iterator[Case]:
    for suffix, raw in files.items():
        for other in files:
            if other != suffix:
                yield Case("wrong extension", f"wrong{other}", raw)


class Evil:
    """What a hostile pickle holds: loading it calls a function."""

    def __reduce__(self) -> tuple[Any, ...]:
        return os.mkdir, (str(CANARY),)


def pickles() -> Iterator[Case]:
    raw = pickle.dumps(Evil())
    torch_like = zipped({"archive/data.pkl": raw, "archive/version": b"3\n"})
    for suffix in (
        ".pt", ".pth", ".pkl", ".pickle", ".bin", ".ckpt", ".pt2", ".joblib", ".npy", ".onnx", ".gguf", ".safetensors", ".json",
        ".mlmodel", ".mlxfn", ".zip", ".PT", ".pt.zip",
    ):  # fmt: skip
        yield Case("pickle", f"evil{suffix}", raw)
        yield Case("pickle", f"torch{suffix}", torch_like)
    yield Case("pickle", "evil.zip", zipped({"m.mlpackage/Data/model.pkl": raw, "m.mlpackage/Manifest.json": b"{}"}))


def names() -> Iterator[Case]:
    raw = json.dumps(CONFIG).encode()
    for path in (
        "../../etc/passwd.json", "..%2f..%2fetc%2fpasswd.json", "%2e%2e%2fx.json", "/etc/x.json", "%2fetc%2fx.json", "a%00.json",
        "..%5c..%5cx.json", "C:%5cx.json", "a%0d%0ab.json", ".json", "..json", "a/../b.json", "%ff%fe.json", "~root.json",
        "$(id).json", "-rf.json", "con.json%20", "a" * 300 + ".json", "%F0%9F%8D%8E.json", "*.json", "a;b.json",
    ):  # fmt: skip
        yield Case("name", path, raw, path=path)


def declared_sizes(files: dict[str, bytes]) -> Iterator[Case]:
    """Sizes that the files do not have, and configurations of monsters."""
    for size in (2**31, 2**32, 2**40, 2**62, 2**63, 2**64 - 1):
        yield Case("declared size", "huge.safetensors", safetensors_file(size=size))
    for shape in ([2**40, 2**40], [2**62], [-1, 5], [0, 0], [10**30], [1] * 5000):
        yield Case("declared size", "shape.safetensors", safetensors_file(shape))
    gguf = files[".gguf"]
    for at in (8, 16):  # tensors, then pairs of metadata
        for count in (2**31, 2**40, 2**63, 2**64 - 1):
            yield Case("declared size", "count.gguf", gguf[:at] + struct.pack("<Q", count) + gguf[at + 8 :])
    for at in range(24, 72, 6):  # lengths of the first strings and arrays lie somewhere here
        yield Case("declared size", "length.gguf", gguf[:at] + struct.pack("<Q", 2**62) + gguf[at + 8 :])
    onnx = files[".onnx"]
    for at in range(1, 60, 6):
        yield Case("declared size", "varint.onnx", onnx[:at] + b"\xff\xff\xff\xff\xff\xff\xff\xff\x7f" + onnx[at:])
    for field in CONFIG:
        for value in (10**9, 10**30, -1, 0, 1e308, "x", None, [], {}, True):
            yield Case("declared size", "config.json", json.dumps({**CONFIG, field: value}).encode())
    for text in ("[" * 100_000, '{"a":' * 50_000, "9" * 5_000, '{"hidden_size": NaN}', '"\\ud800"', "null", "[]", "\ufeff{}"):
        yield Case("nesting", "deep.json", text.encode("utf-8", "surrogatepass"))


def archives(files: dict[str, bytes]) -> Iterator[Case]:
    with zipfile.ZipFile(io.BytesIO(files[".zip"])) as packed:
        good = {i.filename: packed.read(i) for i in packed.infolist()}
    for zeros in (1 << 28, 1 << 30):
        yield Case("bomb", "bomb.zip", zipped({"m.mlpackage/big": bytes(zeros), **good}))
    lied = bytearray(zipped({"m.mlpackage/big": bytes(1 << 26)}))
    for at in (i for i in range(len(lied) - 4) if lied[i : i + 4] == struct.pack("<L", 1 << 26)):
        lied[at : at + 4] = struct.pack("<L", 10)
    yield Case("bomb", "lies.zip", bytes(lied))
    yield Case("bomb", "many.zip", zipped({f"m.mlpackage/{i}": b"" for i in range(20_000)}))
    yield Case("bomb", "deep.zip", zipped({"m.mlpackage/" + "d/" * 5_000 + "x": b"x"}))
    inner = zipped({"m.mlpackage/big": bytes(1 << 28)})
    yield Case("bomb", "nested.zip", zipped({"m.mlpackage/inner.zip": inner}))
    for method in (zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA, zipfile.ZIP_STORED):
        yield Case("archive", "method.zip", zipped(good, method))
        raw = bytearray(zipped({"m.mlpackage/a": bytes(range(256)) * 64, **good}, method))
        raw[100:140] = b"\xff" * 40
        yield Case("archive", "damaged.zip", bytes(raw))
    tops = {name.partition("/")[0] for name in good}
    for name in (
        "../evil", "/etc/evil", "tiny.mlpackage/../../evil", "..\\evil", "tiny.mlpackage/..\\..\\evil", "a\0b",
        "tiny.mlpackage/\0", "tiny.mlpackage/" + "n" * 300, "tiny.mlpackage", "other.mlpackage/x", "x" * 60_000,
    ):  # fmt: skip
        yield Case("path in archive", "path.zip", zipped({**good, name: b"evil"}))
        yield Case("path in archive", "only.zip", zipped({name: b"evil"}))
    link = zipfile.ZipInfo("tiny.mlpackage/link")
    link.external_attr = 0o120777 << 16
    made = io.BytesIO()
    with zipfile.ZipFile(made, "w") as archive:
        for name, data in good.items():
            archive.writestr(name, data)
        archive.writestr(link, "/etc/passwd")
    yield Case("path in archive", "link.zip", made.getvalue())
    (top,) = tops
    leads_out = b'{"itemInfoEntries": {"a": {"path": "../../../../etc/passwd"}}, "rootModelIdentifier": "a"}'
    for manifest in (b"{}", leads_out, b"\xff", b"[" * 100_000):
        yield Case("path in archive", "manifest.zip", zipped({**good, f"{top}/Manifest.json": manifest}))
    for aimodel in ({"m.aimodel/main.mlirb": b"\0" * 100}, {"m.aimodel/x": b""}, {"m.aimodel/metadata.json": b"{"}):
        yield Case("archive", "m.zip", zipped(aimodel))


def all_cases(each: int, seed: int) -> list[Case]:
    files = originals()
    empty = [Case("empty", f"empty{suffix}", b"") for suffix in files]
    found = [*mutated(files, each, seed), *empty, *renamed(files), *pickles(), *names(), *declared_sizes(files), *archives(files)]
    return [*found, Case("too large", "large.onnx", bytes(80 << 20))]


# --------------------------------------------------------------------------------------------------------------- watching


class Watch:
    """The most memory the server, and it with all its processes, had at any moment (sampled every 50 ms)."""

    def __init__(self, pid: int) -> None:
        self.pid, self.server, self.all, self._on = pid, 0, 0, True
        self._thread = threading.Thread(target=self._look, daemon=True)
        self._thread.start()

    def _look(self) -> None:
        while self._on:
            self.server = max(self.server, resident(self.pid))
            self.all = max(self.all, sum(resident(p) for p in [self.pid, *children(self.pid)]))
            time.sleep(0.05)

    def stop(self) -> None:
        self._on = False
        self._thread.join()


def resident(pid: int) -> int:
    try:
        return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")
    except (OSError, IndexError):
        return 0


def children(pid: int) -> list[int]:
    try:
        own = [int(c) for c in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]
    except OSError:
        return []
    return [*own, *(c for child in own for c in children(child))]


# ---------------------------------------------------------------------------------------------------------------- sending


def send(client: httpx.Client, case: Case) -> tuple[int, dict[str, Any]]:
    path = case.path or quote(case.name)
    answer = client.put(f"/api/v1/files/{path}", content=case.data)
    try:
        return answer.status_code, answer.json()
    except ValueError:
        return answer.status_code, {"error": f"no JSON: {answer.text[:80]}"}


def problem(client: httpx.Client, case: Case, status: int, body: dict[str, Any]) -> str:
    """What is wrong with an answer; "" where nothing is. What was accepted has to predict."""
    if case.valid and case.name.endswith((".safetensors",)):
        return "" if status == 422 and "config.json" in body["error"] else f"{status} {body}"
    if case.valid and status != 200:
        return f"an undamaged file is refused: {status} {body}"
    if status >= 500:
        return f"{status} {body}"
    if status >= 400:
        said = body.get("error", "")
        return "" if said and "\n" not in said and "Traceback" not in said and len(said) < 2000 else f"no sentence: {body}"
    answer = client.post("/api/v1/predict", json={"model": body["id"], "chip": "m4"})
    if answer.status_code >= 500:
        return f"predict: {answer.status_code} {answer.text[:200]}"
    if answer.status_code == 200:
        phases = answer.json()["phases"].values()
        if not all(0 < p["bound_s"] <= p["latency_s"] < math.inf for p in phases):
            return f"predict: no number that can be: {answer.text[:200]}"
    if case.valid:
        with tempfile.TemporaryDirectory() as own:
            return _compared(case, Path(own), answer.json())
    return ""


def _compared(case: Case, folder: Path, found: dict[str, Any]) -> str:
    path = folder / case.name
    path.write_bytes(case.data)
    if path.suffix == ".zip":
        with zipfile.ZipFile(path) as packed:
            packed.extractall(folder)
        path = next(folder.glob("*.mlpackage"))
    words = [sys.executable, "-m", "orchard", "predict", str(path), "--chip", "m4", "--json"]
    said = json.loads(subprocess.run(words, capture_output=True, check=True, text=True).stdout)
    return "" if said["phases"] == found["phases"] else "the command line gives other numbers"


def lying_bodies(port: int) -> list[str]:
    """Bodies that end early, or never come; the server's answer, if any, must be no 5xx."""
    found = []
    for head, body in (
        (b"content-length: 1000000000\r\n", b"x" * 10), (b"content-length: -5\r\n", b"x"), (b"content-length: abc\r\n", b"x"),
        (b"content-length: 99999999999999999999\r\n", b"x"), (b"transfer-encoding: chunked\r\n", b"FFFFFFFFFFFFFFFF\r\nx"),
        (b"transfer-encoding: chunked\r\n", b"zz\r\nx"), (b"content-length: 5\r\ntransfer-encoding: chunked\r\n", b"0\r\n\r\n"),
        (b"", b""), (b"expect: 100-continue\r\ncontent-length: 10\r\n", b""),
    ):  # fmt: skip
        with socket.create_connection(("127.0.0.1", port), 5) as s:
            s.sendall(b"PUT /api/v1/files/m.onnx HTTP/1.1\r\nhost: 127.0.0.1\r\n" + head + b"\r\n" + body)
            s.shutdown(socket.SHUT_WR)
            s.settimeout(5)
            try:
                answer = s.recv(1000)
            except (TimeoutError, ConnectionError):
                answer = b""
        found.append(answer.split(b"\r\n")[0].decode("latin-1"))
    return found


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--each", type=int, default=60, help="damaged files of each format")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--keep", type=Path, help="folder for files whose answer is wrong, and the log")
    asked = parser.parse_args()
    cases = all_cases(asked.each, asked.seed)
    runs, log = tempfile.mkdtemp(prefix="orchard-fuzz-"), tempfile.TemporaryFile()  # noqa: SIM115 - goes with the process
    problems: list[str] = []
    counts: Counter[tuple[str, int]] = Counter()
    accepted: Counter[tuple[str, str]] = Counter()
    slowest = (0.0, "")
    with served("serve", "--runs", runs, "--max-upload", "64", stderr=log) as (port, server):
        watch = Watch(server.pid)
        with httpx.Client(base_url=f"http://127.0.0.1:{port}", timeout=200) as client:
            client.post("/api/v1/predict", json={"model": "qwen3-4b", "chip": "m4", "weights": "q4_0"}).raise_for_status()
            before = resident(server.pid)
            for case in cases:
                began = time.perf_counter()
                try:
                    status, body = send(client, case)
                    wrong = problem(client, case, status, body)
                except httpx.HTTPError as error:
                    status, wrong = 0, f"no answer ({type(error).__name__})"
                counts[case.kind, status] += 1
                if status == 200 and not case.valid:
                    accepted[case.kind, body["source"]] += 1
                slowest = max(slowest, (time.perf_counter() - began, f"{case.kind}, {case.name}"))
                if CANARY.exists():
                    wrong, _ = "a pickle was loaded", CANARY.rmdir()
                if wrong:
                    problems.append(f"{case.kind}, {case.name}: {wrong}")
                    if asked.keep:
                        asked.keep.mkdir(exist_ok=True)
                        (asked.keep / f"{len(problems)}-{case.name[-40:]}").write_bytes(case.data)
                if server.poll() is not None:
                    problems.append(f"the server ended after {case.kind}, {case.name}")
                    break
            lies = lying_bodies(port)
            problems += [f"a body that lies: {line}" for line in lies if " 5" in line]
            client.get("/api/v1/about").raise_for_status()
        after = resident(server.pid)
        watch.stop()
    log.seek(0)
    said = log.read().decode(errors="replace")
    if asked.keep:
        asked.keep.mkdir(exist_ok=True)
        (asked.keep / "server.log").write_text(said)
    if "Traceback" in said:
        problems.append(f"{said.count('Traceback')} tracebacks in the log: {said[said.index('Traceback') :][-600:]}")
    table: dict[str, dict[str, int]] = {}
    for (kind, status), count in sorted(counts.items()):
        table.setdefault(kind, {})[str(status)] = count
    print(json.dumps({
        "uploads": sum(counts.values()), "seed": asked.seed, "answers": table,
        "accepted": {f"{kind}, read as {source}": n for (kind, source), n in sorted(accepted.items())}, "lying_bodies": lies,
        "slowest_s": round(slowest[0], 1), "slowest": slowest[1], "server_mib": [before >> 20, after >> 20, watch.server >> 20],
        "most_mib_all_processes": watch.all >> 20, "load_average": os.getloadavg()[0], "problems": problems,
    }, indent=1))  # fmt: skip
    sys.exit(bool(problems))


if __name__ == "__main__":
    main()
