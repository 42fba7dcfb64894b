"""The built page: not stale, small, served with what it needs; and one walk through it in a browser, where there is one."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import socket
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("fastapi", reason="the server needs orchard[web]")

from orchard.app.lab.server import Settings, make_app
from orchard.app.lab.static import assets
from orchard.studies.predict import answer
from orchard.studies.request import Request

WEB = Path(__file__).parents[3] / "web"
CHROMIUM = os.environ.get("ORCHARD_CHROMIUM") or shutil.which("chromium") or shutil.which("google-chrome")
ARGUMENTS = [
    "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking",
    "--disable-component-update", "--disable-sync",
]  # fmt: skip
FIRST_LOAD_BYTES = 600_000


def test_the_built_page_is_not_stale() -> None:
    """`npm run build` in web/ records the hash of its sources; stamp.mjs computes it the same way."""
    names = ["index.html", "package.json", "package-lock.json", "tsconfig.json", "vite.config.js"]
    names += [f"src/{p.name}" for p in (WEB / "src").iterdir()]
    found = hashlib.sha256()
    for name in sorted(names):
        found.update(name.encode() + b"\0" + (WEB / name).read_bytes() + b"\0")
    assert json.loads(assets()["sources.json"].body)["sha256"] == found.hexdigest(), "run npm ci && npm run build in web/"


def test_the_first_load_is_small_and_needs_no_other_machine() -> None:
    built = assets()
    assert sum(len(a.zipped) for a in built.values()) < FIRST_LOAD_BYTES
    page = built["index.html"].body.decode()
    assert "http" not in page
    assert "<style" not in page
    assert "onload" not in page


@pytest.fixture(scope="module")
def address(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    uvicorn = pytest.importorskip("uvicorn")
    with socket.socket() as listening:
        listening.bind(("127.0.0.1", 0))
        app = make_app(Settings(runs=tmp_path_factory.mktemp("runs")))
        server = uvicorn.Server(uvicorn.Config(app, log_level="error", access_log=False))
        thread = threading.Thread(target=server.run, kwargs={"sockets": [listening]}, daemon=True)
        thread.start()
        while not server.started and thread.is_alive():
            time.sleep(0.02)
        yield f"http://127.0.0.1:{listening.getsockname()[1]}/"
        server.should_exit = True
        thread.join(10)


CONFIG = {
    "model_type": "llama", "architectures": ["LlamaForCausalLM"], "hidden_size": 64, "intermediate_size": 128,
    "num_hidden_layers": 2, "num_attention_heads": 4, "num_key_value_heads": 2, "vocab_size": 256, "tie_word_embeddings": True,
}  # fmt: skip


def four_configurations(page: Any) -> tuple[str, list[str]]:
    """The first as it is, an uploaded model, another chip, a chip of its own. The address, and the command of each."""
    for index in range(1, 4):
        page.get_by_role("button", name="Add a configuration").click()
        if index == 1:
            file = {"name": "tiny.json", "mimeType": "application/json", "buffer": json.dumps(CONFIG).encode()}
            page.locator("#s1-file").set_input_files(file)
            page.locator('[data-slot="1"] [data-command]', has_text="tiny.json").wait_for(timeout=60_000)
        elif index == 2:
            page.locator("#s2-chip").select_option("a17pro")
            page.locator('[data-slot="2"] [data-command]', has_text="a17pro").wait_for(timeout=60_000)
    page.locator("#s3-gpu\\.cores").focus()
    page.keyboard.press("End")
    page.locator('[data-slot="3"] [data-command]', has_text="--set gpu.cores=").wait_for(timeout=60_000)
    return page.url, page.locator("[data-command]").all_inner_texts()


@pytest.mark.skipif(CHROMIUM is None, reason="no chromium here; ORCHARD_CHROMIUM names one")
def test_a_walk_through_the_page(address: str) -> None:
    sync_api = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
    problems: list[str] = []
    asked: list[str] = []
    with sync_api.sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=ARGUMENTS)
        page = browser.new_page()
        page.on("console", lambda m: problems.append(m.text) if m.type == "error" else None)
        page.on("pageerror", lambda e: problems.append(str(e)))
        page.on("request", lambda r: asked.append(r.url))
        page.goto(address)
        number = page.locator('[data-number="decode.latency_s"]')
        number.wait_for(timeout=60_000)
        number.focus()
        told = page.locator("#tip").inner_text()
        assert "estimate" in told
        assert "llama.cpp" in told
        slider = page.locator("#s0-batch")
        slider.focus()
        page.keyboard.press("End")
        page.locator("[data-command]", has_text="--batch 256").wait_for(timeout=60_000)
        shown = number.locator("b").inner_text()
        link, commands = four_configurations(page)
        page.goto("about:blank")
        page.goto(link)
        page.locator("[data-command]").nth(3).wait_for(timeout=60_000)
        restored = page.locator("[data-command]").all_inner_texts()
        browser.close()
    expected = answer(Request(model="llama-3.1-8b", chip="m4max", weights="q4_k_m", batch=256)).phases["decode"].latency_s
    assert restored == commands
    assert ["tiny.json" in c for c in commands] == [False, True, True, True]
    assert "--chip a17pro" in commands[2]
    assert "--set gpu.cores=" in commands[3]
    assert shown == f"{expected * 1e3:.3g} ms"
    assert not problems
    assert all(url.startswith((address, "data:")) for url in asked)
