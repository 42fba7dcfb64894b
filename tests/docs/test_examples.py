"""What the pages show runs: marked blocks with the output beside them, and every command they name."""

from __future__ import annotations

import contextlib
import io
import re
import shlex
from pathlib import Path

import pytest

from orchard.app.cli import main
from orchard.app.exits import ANSWER, CONDITION

ROOT = Path(__file__).parents[2]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]
BLOCK = re.compile(r"^```python run\n(.*?)^```\n(?:```text out\n(.*?)^```\n)?", re.MULTILINE | re.DOTALL)
COMMAND = re.compile(r"`(orchard [a-z][^`\n]*)`")
WHOLE = ("orchard chips", "orchard models", "orchard scenarios")
OF_LATER = (
    "orchard technique audit", "orchard validate", "orchard calibrate", "orchard check-trace", "orchard experiment run",
    "orchard propose",
)  # fmt: skip
"""Commands that need longer than a page test may take, or files the reader has."""
PLACEHOLDERS = {"CHIP", "MODEL", "NAME", "RUN", "FILE", "STUDY.yaml", "DIR"}
FILE = re.compile(r"^```yaml\n# ([\w-]+\.yaml)\n(.*?)^```\n", re.MULTILINE | re.DOTALL)
"""A file a page shows: its name is the comment in the first line. Commands find it in their folder."""


def blocks() -> list[tuple[str, str, str]]:
    return [(p.name, m[1], m[2] or "") for p in PAGES for m in BLOCK.finditer(p.read_text(encoding="utf-8"))]


def commands() -> list[str]:
    found = [m[1] for p in PAGES for m in COMMAND.finditer(p.read_text(encoding="utf-8"))]
    whole = [c for c in found if not c.startswith(OF_LATER) and not c.endswith(("CHIP", "--json"))]
    whole = [c for c in whole if not PLACEHOLDERS & set(c.split())]
    return [c for c in dict.fromkeys(whole) if c != "orchard chips show" and (len(c.split()) > 2 or c in WHOLE)]


def test_there_are_examples() -> None:
    assert blocks()
    assert len(commands()) > 8


@pytest.mark.parametrize(("page", "code", "out"), blocks())
def test_blocks_print_what_the_page_says(page: str, code: str, out: str) -> None:
    printed = io.StringIO()
    with contextlib.redirect_stdout(printed):
        exec(compile(code, page, "exec"), {"__name__": "example"})
    assert printed.getvalue() == out


@pytest.mark.parametrize("command", commands())
def test_commands_run(
    command: str, capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for page in PAGES:
        for match in FILE.finditer(page.read_text(encoding="utf-8")):
            (tmp_path / match[1]).write_text(match[2])
    monkeypatch.chdir(tmp_path)
    code = main(shlex.split(command)[1:])
    out, err = capsys.readouterr()
    assert code in (ANSWER, CONDITION), err
    assert out
    assert all(len(line) <= 80 for line in out.splitlines())


def test_links_lead_somewhere() -> None:
    for page in [*PAGES, ROOT / "CONTRIBUTING.md"]:
        for target in re.findall(r"\]\(([^)#:]+)(?:#[^)]*)?\)", page.read_text(encoding="utf-8")):
            assert (page.parent / target).exists(), f"{page.name}: {target}"
