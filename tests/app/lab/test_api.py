"""The HTTP API: the same numbers as the command line, and no input that brings it down."""

from __future__ import annotations

import asyncio
import functools
import io
import json
import os
import signal
import socket
import time
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("fastapi", reason="the server needs orchard[web]")
pytest.importorskip("httpx", reason="the tests of the server need httpx")

import httpx

from orchard.app.cli import main
from orchard.app.lab.guard import Kept
from orchard.app.lab.server import Settings, make_app
from orchard.app.lab_commands import _bound
from orchard.report.schemas import SCHEMAS

CONFIG = {
    "model_type": "llama", "architectures": ["LlamaForCausalLM"], "hidden_size": 64, "intermediate_size": 128,
    "num_hidden_layers": 2, "num_attention_heads": 4, "num_key_value_heads": 2, "vocab_size": 256, "tie_word_embeddings": True,
}  # fmt: skip


class Server:
    """The application in this process, its workers in theirs. One event loop for all tests of the module."""

    def __init__(self, settings: Settings) -> None:
        self.loop = asyncio.new_event_loop()
        self.app: Any = make_app(settings)
        transport = httpx.ASGITransport(app=self.app, raise_app_exceptions=False)
        self.client = httpx.AsyncClient(transport=transport, base_url="http://127.0.0.1:1", timeout=60)
        self.lab = self.app.app.state.lab

    def ask(self, method: str, path: str, **options: Any) -> httpx.Response:
        return self.loop.run_until_complete(self.client.request(method, f"/api/v1{path}", **options))

    def close(self) -> None:
        self.loop.run_until_complete(self.lab.explorations.close())
        self.loop.run_until_complete(self.lab.pool.stop())
        self.loop.close()


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    shared = tmp_path_factory.mktemp("models")
    (shared / "tiny.json").write_text("{}")
    (shared.parent / "secret.json").write_text("{}")
    (shared / "link.json").symlink_to(shared.parent / "secret.json")
    found = Server(Settings(runs=tmp_path_factory.mktemp("runs"), models=shared, most_upload_bytes=1 << 20))
    yield found
    found.close()


BODY = {"model": "qwen3-4b", "chip": "m4", "weights": "q4_0", "prompt": 300, "set": {"dram.bandwidth": "150GB/s"}}
COMMAND = ["predict", "qwen3-4b", "--chip", "m4", "--weights", "q4_0", "--prompt", "300", "--set", "dram.bandwidth=150GB/s"]


def test_numbers_are_those_of_the_command_line(server: Server, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([*COMMAND, "--breakdown", "--json"]) == 0
    expected = json.loads(capsys.readouterr().out)
    assert server.ask("POST", "/predict", json={**BODY, "breakdown": True}).json() == expected
    shown = server.ask("POST", "/view", json=BODY).json()
    assert shown["prediction"] == expected
    assert shown["command"].split()[1:] == COMMAND[:2] + COMMAND[2:4] + COMMAND[4:]


def test_advice_is_that_of_the_command_line(server: Server, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["advise", "resnet18", "--chip", "a16", "--goal", "latency<0.1ms", "--json"]) == 0
    expected = json.loads(capsys.readouterr().out)
    assert expected["recommendations"]
    found = server.ask("POST", "/advise", json={"model": "resnet18", "chip": "a16", "goal": "latency<0.1ms"})
    assert found.json() == expected
    refused = server.ask("POST", "/advise", json={"model": "resnet18", "chip": "a16", "goal": "ttft<1s"})
    assert refused.status_code == 422
    assert "ttft" in refused.json()["error"]


def test_a_view_is_consistent(server: Server) -> None:
    shown = server.ask("POST", "/view", json=BODY).json()
    SCHEMAS["orchard.view/1"].model_validate_json(json.dumps(shown))
    for name, phase in shown["prediction"]["phases"].items():
        slices = shown["timelines"][name]
        assert sum(s["seconds"] for s in slices) == pytest.approx(phase["latency_s"])
        assert all(b["start_s"] == pytest.approx(a["start_s"] + a["seconds"]) for a, b in zip(slices, slices[1:]))
        assert all(p["ops_per_s"] <= shown["rooflines"][name]["peak_ops_per_s"] for p in shown["rooflines"][name]["points"])
        assert f"{name}.latency_s" in shown["why"]
    memory = shown["prediction"]["memory"]
    peaks = [max(p["activation_bytes"]) for p in shown["passes"].values()]
    assert max(peaks) == memory["activation_peak_bytes"]
    assert shown["context"][-1]["cache_bytes"] == memory["kv_cache_bytes"]


BAD: list[tuple[dict[str, Any], int]] = [
    ({"model": "../../etc/passwd"}, 422),
    ({"model": "os:getcwd"}, 422),
    ({"model": "upload:0123456789abcdef/x.onnx"}, 422),  # of another server: its file has to be picked again
    ({"chip": "/etc/passwd"}, 422),
    ({"chip": "x.yaml"}, 422),
    ({"batch": 0}, 422),
    ({"batch": "1"}, 422),
    ({"prompt": 2**40}, 422),
    ({"weights": "q4_zero"}, 422),
    ({"set": {"gpu.cores": "1e400"}}, 422),
    ({"set": {"gpu.core": "1"}}, 422),
    ({"apply": ["palettize:bits=99"]}, 422),
    ({"nonsense": 1}, 422),
    ({"prompt": 0, "generate": 0}, 422),
]


@pytest.mark.parametrize(("change", "status"), BAD)
def test_bad_input_is_one_sentence(server: Server, change: dict[str, Any], status: int) -> None:
    answer = server.ask("POST", "/view", json={**BODY, **change})
    assert answer.status_code == status
    assert list(answer.json()) == ["error"]
    assert "\n" not in answer.json()["error"]
    assert "Traceback" not in answer.text


@pytest.mark.parametrize("body", [b"", b"{", b"[" * 100_000, b'{"model":"\\ud800"}', b"\xff", b"9" * 5000, b"null"])
def test_what_is_no_body_is_refused(server: Server, body: bytes) -> None:
    answer = server.ask("POST", "/predict", content=body, headers={"content-type": "application/json"})
    assert 400 <= answer.status_code < 500
    assert "error" in answer.json()


def test_other_sites_hosts_and_bodies_are_refused(server: Server) -> None:
    assert server.ask("GET", "/chips", headers={"host": "evil.example"}).status_code == 421
    assert server.ask("GET", "/chips", headers={"origin": "http://evil.example"}).status_code == 403
    assert server.ask("GET", "/chips", headers={"sec-fetch-site": "cross-site"}).status_code == 403
    assert server.ask("POST", "/predict", content=b"{}", headers={"content-type": "text/plain"}).status_code == 415
    large = server.ask("POST", "/predict", content=b" " * (1 << 20), headers={"content-type": "application/json"})
    assert large.status_code == 413


def test_security_headers(server: Server) -> None:
    for answer in (server.ask("GET", "/runs"), server.ask("GET", "/chips", headers={"host": "x"})):
        policy = answer.headers["content-security-policy"]
        assert "unsafe" not in policy
        assert "default-src 'none'" in policy
        assert answer.headers["x-content-type-options"] == "nosniff"
        assert answer.headers["cache-control"] == "no-store"


def test_a_token_is_asked_for(tmp_path: Path) -> None:
    guarded = Server(Settings(token="a" * 20, runs=tmp_path))
    assert guarded.ask("GET", "/runs").status_code == 401
    assert guarded.ask("GET", "/runs", headers={"authorization": "Bearer " + "b" * 20}).status_code == 401
    assert guarded.ask("GET", "/runs", headers={"authorization": "Bearer " + "a" * 20}).status_code == 200
    guarded.close()


def test_a_killed_worker_is_started_again(server: Server) -> None:
    assert server.ask("POST", "/predict", json={**BODY, "prompt": 301}).status_code == 200
    os.kill(server.lab.pool.quick.pid, signal.SIGKILL)
    assert server.ask("POST", "/predict", json={**BODY, "prompt": 302}).status_code == 200
    assert server.lab.pool.quick.deaths >= 1


def zipped(**entries: bytes) -> bytes:
    made = io.BytesIO()
    with zipfile.ZipFile(made, "w") as archive:
        for name, data in entries.items():
            archive.writestr(name, data)
    return made.getvalue()


@pytest.mark.parametrize(
    ("name", "data", "says"),
    [
        ("model.pt", b"x", "pickle"),
        ("model.pkl", b"x", "pickle"),
        ("model.exe", b"x", "expected a name that ends with"),
        ("model.onnx", b"", "empty"),
        ("model.onnx", b"x" * (2 << 20), "larger than 1 MiB"),
        ("model.zip", b"PK", "not an archive"),
        ("model.zip", zipped(**{"../../evil": b"x"}), "expected one .mlpackage"),
        ("model.zip", zipped(**{"a.mlpackage/../../evil": b"x"}), "leads out"),
        ("..evil.onnx", b"x", "plain file name"),
    ],
)
def test_files_that_are_refused(server: Server, name: str, data: bytes, says: str) -> None:
    answer = server.ask("PUT", f"/files/{name}", content=data)
    assert answer.status_code == 422
    assert says in answer.json()["error"]


def test_a_folder_shows_only_itself(server: Server) -> None:
    assert server.ask("GET", "/files").json()["folder"] == ["link.json", "tiny.json"]
    for name in ("../secret.json", "/etc/passwd", "tiny.json/../../secret.json", "link.json"):
        assert server.ask("POST", "/files", json={"name": name}).status_code == 422


def test_an_uploaded_model_gives_the_numbers_of_the_file(
    server: Server, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    onnx = pytest.importorskip("onnx")
    from onnx import TensorProto, helper

    weight = helper.make_tensor("w", TensorProto.FLOAT, [64, 32], [0.0] * 2048)
    graph = helper.make_graph(
        [helper.make_node("MatMul", ["x", "w"], ["y"])], "tiny",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [8, 64])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, [8, 32])], [weight],
    )  # fmt: skip
    file = tmp_path / "tiny.onnx"
    onnx.save(helper.make_model(graph), str(file))
    opened = server.ask("PUT", "/files/tiny.onnx", content=file.read_bytes()).json()
    assert opened["params"] == 2048
    assert main(["predict", str(file), "--chip", "m4", "--json"]) == 0
    expected = json.loads(capsys.readouterr().out)
    body = {"model": opened["id"], "chip": "m4"}
    assert server.ask("POST", "/predict", json=body).json() == expected
    assert server.ask("POST", "/view", json=body).json()["command"] == "orchard predict tiny.onnx --chip m4"


STUDY = {
    "name": "live", "chip": "m4", "knobs": {"gpu.cores": [8, 10, 12], "dram.bus_width": ["128bit", "256bit"]},
    "workloads": {"chat": {"model": "qwen3-4b", "weights": "q4_0"}}, "objectives": ["latency_s", "area_mm2"],
    "search": {"method": "grid", "batch": 2},
}  # fmt: skip


def waited(server: Server, status: dict[str, Any], parts: int = 0) -> dict[str, Any]:
    """The status when the run has ended, or has so many parts."""
    assert "error" not in status, status
    folder = server.lab.explorations.root / status["run"] / "parts"
    limit = time.monotonic() + 120
    while status["state"] == "running" and not 0 < parts <= len(list(folder.glob("part-*"))) and time.monotonic() < limit:
        time.sleep(0.05)
        if not parts:
            status = server.ask("GET", f"/runs/{status['run']}").json()
    return status


@pytest.fixture(scope="module")
def finished(server: Server) -> dict[str, Any]:
    """A run that is complete before anything goes wrong."""
    pytest.importorskip("duckdb")
    return waited(server, server.ask("POST", "/runs", json={"study": STUDY}).json())


def test_an_exploration_runs_and_its_designs_open(server: Server, finished: dict[str, Any]) -> None:
    status = finished
    assert (status["state"], status["evaluated"], status["message"]) == ("complete", 6, "")
    SCHEMAS["orchard.run-status/1"].model_validate_json(json.dumps(status))
    design = status["front"][0]
    answer = server.ask("POST", "/predict", json=design["open"]["chat"]).json()
    total = answer["phases"]["prefill"]["latency_s"] + 128 * answer["phases"]["decode"]["latency_s"]
    assert total == pytest.approx(design["metrics"]["latency_s"])
    assert status["run"] in [r["folder"] for r in server.ask("GET", "/runs").json()["runs"]]


LONG = {**STUDY, "name": "long", "knobs": {**STUDY["knobs"], "gpu.clock": {"from": "1.2GHz", "to": "1.6GHz", "steps": 400}}}


def states(server: Server) -> dict[str, str]:
    return {r["name"]: r["state"] for r in server.ask("GET", "/runs").json()["runs"]}


def test_a_killed_exploration_says_so_and_goes_on(server: Server, finished: dict[str, Any]) -> None:
    run = waited(server, server.ask("POST", "/runs", json={"study": LONG}).json(), parts=2)["run"]
    assert states(server) == {"live": "complete", "long": "running"}
    going = server.lab.explorations.going[run].process
    os.kill(going.pid, signal.SIGKILL)
    server.loop.run_until_complete(going.wait())
    status = server.ask("GET", f"/runs/{run}").json()
    assert status["state"] == "stopped"
    assert "ended by signal 9" in status["message"]
    assert 4 <= status["evaluated"] < 2400
    assert states(server) == {"live": "complete", "long": "stopped"}
    assert server.ask("GET", f"/runs/{finished['run']}").json() == finished
    kept = {p: p.stat().st_mtime_ns for p in (server.lab.explorations.root / run / "parts").glob("part-*")}
    assert server.ask("POST", f"/runs/{run}/resume", json={}).json()["state"] == "running"
    waited(server, status | {"state": "running"}, parts=len(kept) + 1)
    stopped = server.ask("POST", f"/runs/{run}/stop", json={}).json()
    assert (stopped["state"], stopped["evaluated"] > status["evaluated"]) == ("stopped", True)
    assert kept == {p: p.stat().st_mtime_ns for p in kept}
    assert server.ask("POST", "/predict", json={**BODY, "prompt": 303}).status_code == 200


@pytest.fixture
def full_disk(monkeypatch: pytest.MonkeyPatch) -> Callable[[int], None]:
    """Processes started from now on cannot write files of more than so many bytes."""
    resource = pytest.importorskip("resource")
    real = asyncio.create_subprocess_exec

    def limited(most: int) -> None:
        def no_more() -> None:
            resource.setrlimit(resource.RLIMIT_FSIZE, (most, most))

        monkeypatch.setattr(asyncio, "create_subprocess_exec", functools.partial(real, preexec_fn=no_more))

    return limited


def test_an_exploration_on_a_full_disk_says_so_and_goes_on(
    server: Server, finished: dict[str, Any], full_disk: Callable[[int], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    study = {**STUDY, "name": "full", "search": {"method": "grid", "batch": 6}}
    full_disk(2500)  # bytes: run.json fits, a part does not
    status = waited(server, server.ask("POST", "/runs", json={"study": study}).json())
    assert (status["state"], status["evaluated"]) == ("stopped", 0)
    assert "cannot be written (File too large)" in status["message"]
    assert "what is finished is kept" in status["message"]
    assert "Traceback" not in status["message"]
    assert not list(server.lab.explorations.root.glob("full-*/**/*.tmp"))
    assert server.ask("GET", f"/runs/{finished['run']}").json() == finished
    monkeypatch.undo()
    status = waited(server, server.ask("POST", f"/runs/{status['run']}/resume", json={}).json())
    assert (status["state"], status["evaluated"], status["message"]) == ("complete", 6, "")
    assert [d["metrics"] for d in status["front"]] == [d["metrics"] for d in finished["front"]]


def test_an_upload_on_a_full_disk_says_so(
    server: Server, full_disk: Callable[[int], None], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    full = Path("/dev/full")
    if not full.exists():
        pytest.skip("no /dev/full here")
    config = json.dumps(CONFIG).encode()
    full_disk(10)
    answer = server.ask("PUT", "/files/config.json", content=config)
    assert answer.status_code == 422
    assert "cannot be read or kept (File too large)" in answer.json()["error"]
    monkeypatch.undo()
    monkeypatch.setattr(server.lab.files, "state", tmp_path)
    for number in range(1000):
        (tmp_path / f"incoming-{number}").symlink_to(full)
    answer = server.ask("PUT", "/files/config.json", content=config)
    assert answer.status_code == 422
    assert "cannot be stored (No space left on device)" in answer.json()["error"]
    assert "config.json" not in server.ask("GET", "/files").text
    monkeypatch.undo()
    assert server.ask("PUT", "/files/config.json", content=config).json()["source"] == "config.json"


def test_a_bad_study_and_an_unknown_run_are_refused(server: Server) -> None:
    bad = server.ask("POST", "/runs", json={"study": {**STUDY, "knobs": {"gpu.coress": [1]}}})
    assert bad.status_code == 422
    assert "gpu.cores" in bad.json()["error"]
    assert "/tmp" not in bad.json()["error"]
    for name in ("nothing", "..", "%2e%2e%2fetc"):
        assert server.ask("GET", f"/runs/{name}").status_code == 404


def test_kept_answers_are_bounded() -> None:
    kept = Kept(8000)
    for i in range(100):
        kept.put(("/x", str(i).encode()), b"y" * 500)
    assert kept.bytes <= 8000
    assert kept.get(("/x", b"99")) == b"y" * 500
    assert kept.get(("/x", b"0")) is None
    kept.put(("/x", b"large"), b"y" * 5000)
    assert kept.get(("/x", b"large")) is None


def test_answers_leave_at_once() -> None:
    """asyncio turns Nagle's algorithm off only for a socket that names TCP; without, an answer waits 40 ms for the client."""
    with _bound("127.0.0.1", 0) as listening:
        assert listening.proto == socket.IPPROTO_TCP
