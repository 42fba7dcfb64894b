"""Every view of the SoC Lab in a browser, against the command line: numbers, keyboard, accessibility, sizes, times.

    PYTHONPATH=src python benchmarks/lab/browser.py [--shots DIR]      (axe needs web/node_modules: npm ci in web/)
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from playwright.sync_api import Page, sync_playwright
from serving import served

ROOT = Path(__file__).parents[2]
AXE = ROOT / "web" / "node_modules" / "axe-core" / "axe.min.js"
ARGUMENTS = [
    "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking",
    "--disable-component-update", "--disable-sync",
]  # fmt: skip


def command_line(command: str) -> dict[str, Any]:
    words = command.split()[1:]
    done = subprocess.run([sys.executable, "-m", "orchard", *words, "--json"], capture_output=True, check=True, text=True)
    found: dict[str, Any] = json.loads(done.stdout)
    return found


def serious(page: Page) -> list[str]:
    """Violations axe calls serious or critical. The script is put in by the debugger, which the page's policy does not bind."""
    page.evaluate(AXE.read_text())
    found = page.evaluate("axe.run()")["violations"]
    return [f"{v['id']}: {v['nodes'][0]['html'][:120]}" for v in found if v["impact"] in ("serious", "critical")]


def redraws(page: Page, presses: int) -> list[float]:
    page.evaluate("performance.clearMeasures()")
    page.locator("#s0-dram\\.bandwidth").focus()
    for _ in range(presses):
        page.keyboard.press("ArrowLeft")
        time.sleep(0.3)
    found: list[float] = page.evaluate("performance.getEntriesByName('redraw').map(e => e.duration)")
    return found


def configure(page: Page, shots: Path, record: dict[str, Any]) -> None:
    page.locator('[data-number="decode.latency_s"]').wait_for(timeout=60_000)
    record["first_load_ms"] = page.evaluate("performance.getEntriesByType('navigation')[0].domContentLoadedEventEnd")
    entries = "[...performance.getEntriesByType('navigation'), ...performance.getEntriesByType('resource')]"
    sizes = page.evaluate(entries + ".filter(e => !e.name.includes('/api/')).map(e => e.transferSize)")
    record["first_load_bytes"] = sum(sizes)
    page.locator("figure[data-figure^=placement]").first.wait_for(timeout=90_000)
    page.screenshot(path=shots / "light.png", full_page=True)
    record["axe_configure"] = serious(page)
    times = redraws(page, 20)
    record["redraw_ms"] = {"n": len(times), "min": min(times), "median": statistics.median(times), "max": max(times)}
    time.sleep(3)  # the last answer may still be on its way
    command = page.locator("[data-command]").inner_text()
    answer = command_line(command)
    shown = page.locator('[data-number="decode.latency_s"] b').inner_text()
    record["matches_command_line"] = shown == f"{answer['phases']['decode']['latency_s'] * 1e3:.3g} ms"
    add_three(page)
    commands = page.locator("[data-command]").all_inner_texts()
    link = page.url
    page.emulate_media(color_scheme="dark")
    page.screenshot(path=shots / "dark.png", full_page=True)
    record["axe_dark"] = serious(page)
    page.emulate_media(color_scheme="light")
    page.goto("about:blank")
    page.goto(link)
    page.locator("[data-command]").nth(3).wait_for(timeout=60_000)
    record["link_restores"] = page.locator("[data-command]").all_inner_texts() == commands
    page.locator("figure[data-figure^=placement]").nth(3).wait_for(timeout=90_000)
    page.screenshot(path=shots / "four.png", full_page=True)
    advised(page, shots, record)
    page.set_viewport_size({"width": 390, "height": 900})
    page.screenshot(path=shots / "narrow.png", full_page=True)
    record["narrow_overflows"] = page.evaluate("document.documentElement.scrollWidth > innerWidth")
    page.set_viewport_size({"width": 1300, "height": 1000})


def add_three(page: Page) -> None:
    """An uploaded model, another chip, and a chip of its own beside the first configuration."""
    config = {
        "model_type": "llama", "hidden_size": 512, "intermediate_size": 1376, "num_hidden_layers": 8, "num_attention_heads": 8,
        "num_key_value_heads": 8, "vocab_size": 32000, "tie_word_embeddings": True,
    }  # fmt: skip
    for index in range(1, 4):
        page.get_by_role("button", name="Add a configuration").click()
        page.locator(f'[data-slot="{index}"] [data-command]').wait_for(timeout=60_000)
        if index == 1:
            file = {"name": "mine.json", "mimeType": "application/json", "buffer": json.dumps(config).encode()}
            page.locator("#s1-file").set_input_files(file)
            page.locator('[data-slot="1"] [data-command]', has_text="mine.json").wait_for(timeout=60_000)
        elif index == 2:
            page.locator("#s2-chip").select_option("a17pro")
            page.locator('[data-slot="2"] [data-command]', has_text="a17pro").wait_for(timeout=60_000)
    for figure in ("gpu.cores", "slc.size"):
        page.locator(f"#s3-{figure}".replace(".", "\\.")).focus()
        page.keyboard.press("End")
        page.locator('[data-slot="3"] [data-command]', has_text=figure).wait_for(timeout=60_000)


def advised(page: Page, shots: Path, record: dict[str, Any]) -> None:
    page.locator('[data-slot="0"] summary', has_text="What to change").click()
    page.locator("#s0-goal").fill("ttft<0.2s")
    page.locator("#s0-goal").press("Enter")
    page.locator('[data-slot="0"] [data-advice]').first.wait_for(timeout=60_000)
    first = page.locator('[data-slot="0"] [data-advice]').first
    title, predicted = first.get_attribute("data-advice"), first.locator("p").first.inner_text()
    page.screenshot(path=shots / "advice.png", full_page=True)
    record["axe_advice"] = serious(page)
    page.locator('[data-slot="3"]').get_by_role("button", name="Remove").click()
    first.get_by_role("button").click()
    page.locator('[data-slot="3"] [data-command]').wait_for(timeout=60_000)
    record["advice"] = {"title": title, "gain": predicted, "opens": page.locator('[data-slot="3"] [data-command]').inner_text()}
    for slot in ("3", "2"):
        page.locator(f'[data-slot="{slot}"]').get_by_role("button", name="Remove").click()


def explore(page: Page, shots: Path, record: dict[str, Any]) -> None:
    page.get_by_role("button", name="Explore", exact=True).click()
    page.get_by_role("button", name="Start exploration").click()
    seen: set[str] = set()
    limit = time.monotonic() + 180
    while time.monotonic() < limit and not page.locator('[data-run-state="complete"]').count():
        if page.locator("[data-run-state]").count():
            seen.add(page.locator("[data-run-state]").inner_text())
        time.sleep(0.2)
    record["states_seen_while_running"] = len(seen)
    page.screenshot(path=shots / "explore.png", full_page=True)
    record["axe_explore"] = serious(page)
    box = page.locator("figure[data-figure=front] svg").bounding_box()
    assert box is not None
    page.mouse.move(box["x"] + 60, box["y"] + 12)
    page.mouse.down()
    page.mouse.move(box["x"] + box["width"] / 2, box["y"] + box["height"] - 40, steps=4)
    page.mouse.up()
    record["designs_brushed"] = page.locator("section[aria-label=Front] tbody tr").count()
    page.locator("section[aria-label=Front] tbody button").first.press("Enter")
    page.locator('[data-slot="2"] [data-number="decode.latency_s"]').wait_for(timeout=60_000)
    record["design_opens"] = "--set gpu.cores=" in page.locator('[data-slot="2"] [data-command]').inner_text()


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--shots", type=Path, default=Path(tempfile.gettempdir()) / "orchard-lab-shots")
    shots = parser.parse_args().shots
    shots.mkdir(parents=True, exist_ok=True)
    runs = tempfile.mkdtemp(prefix="orchard-lab-runs-")
    record: dict[str, Any] = {"load_average": os.getloadavg()[0], "console_errors": [], "requests_elsewhere": []}
    try:
        with served("lab", "--runs", runs) as (port, _), sync_playwright() as playwright:
            chromium = os.environ.get("ORCHARD_CHROMIUM") or shutil.which("chromium")
            browser = playwright.chromium.launch(executable_path=chromium, args=ARGUMENTS)
            page = browser.new_page(viewport={"width": 1300, "height": 1000})
            page.on("console", lambda m: record["console_errors"].append(m.text) if m.type == "error" else None)
            page.on("pageerror", lambda e: record["console_errors"].append(str(e)))
            own = (f"http://127.0.0.1:{port}/", "data:", "about:", "blob:")
            page.on("request", lambda r: None if r.url.startswith(own) else record["requests_elsewhere"].append(r.url))
            page.goto(own[0])
            configure(page, shots, record)
            explore(page, shots, record)
            browser.close()
    finally:
        print(json.dumps(record, indent=1))


if __name__ == "__main__":
    main()
