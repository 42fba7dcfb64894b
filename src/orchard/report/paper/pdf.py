"""A page as PDF, printed by a browser that is installed anyway: the same page, the same charts, no library to keep.

A pure-Python writer (fpdf2, reportlab) would draw every chart a second time and look different; see docs/report.md.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
from pathlib import Path

from orchard.units import OrchardError

NAMES = (
    "chromium", "chromium-browser", "google-chrome", "google-chrome-stable", "microsoft-edge", "brave-browser", "chrome",
)  # fmt: skip
MAC = (
    "/Applications/Google Chrome.app/Contents/MacOS/Google Chrome",
    "/Applications/Chromium.app/Contents/MacOS/Chromium",
    "/Applications/Microsoft Edge.app/Contents/MacOS/Microsoft Edge",
    "/Applications/Brave Browser.app/Contents/MacOS/Brave Browser",
)
TIMEOUT_S = 120


class NoPdfError(OrchardError):
    """No browser, or one that did not print."""


def browser(asked: str | None = None) -> str:
    """The program that prints. Raises NoPdfError with the remedy where there is none."""
    for name in (asked,) if asked else (*NAMES, *MAC):
        found = shutil.which(str(name))
        if found:
            return found
    if asked:
        raise NoPdfError(f"--browser {asked[:100]!r}: no such program")
    raise NoPdfError(
        "--format pdf needs Chromium, Chrome, Edge or Brave, and none was found; name one with --browser, or open the HTML "
        "report in any browser and print it"
    )


def _as_root() -> list[str]:
    """Chromium refuses to start its sandbox for root; the page holds no script in any case."""
    return ["--no-sandbox"] if hasattr(os, "geteuid") and os.geteuid() == 0 else []


def write_pdf(page: str, file: Path, asked: str | None = None) -> None:
    """Print a page to a file. Raises NoPdfError where the browser fails."""
    program = browser(asked)
    with tempfile.TemporaryDirectory(prefix="orchard-report-") as folder:
        source, made = Path(folder) / "report.html", Path(folder) / "report.pdf"
        source.write_text(page, encoding="utf-8")
        command = [
            program, "--headless", *_as_root(), "--disable-gpu", "--no-first-run", "--no-pdf-header-footer",
            f"--user-data-dir={folder}/profile", f"--print-to-pdf={made}", source.as_uri(),
        ]  # fmt: skip
        try:
            subprocess.run(command, capture_output=True, timeout=TIMEOUT_S, check=False)
        except (OSError, subprocess.TimeoutExpired) as error:
            raise NoPdfError(f"{program} did not print the report ({type(error).__name__})") from None
        if not made.is_file() or made.read_bytes()[:5] != b"%PDF-":
            raise NoPdfError(f"{program} did not print the report")
        shutil.copyfile(made, file)
