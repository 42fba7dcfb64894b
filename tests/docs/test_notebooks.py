"""The notebooks run: every code cell, in order, in one process."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

NOTEBOOKS = sorted((Path(__file__).parents[2] / "docs" / "notebooks").glob("*.ipynb"))


def cells(path: Path) -> list[dict[str, object]]:
    return list(json.loads(path.read_text(encoding="utf-8"))["cells"])


def test_there_are_five() -> None:
    assert [p.stem.partition("-")[0] for p in NOTEBOOKS] == ["1", "2", "3", "4", "5"]


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda p: p.stem)
def test_every_cell_runs(path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    space: dict[str, object] = {"__name__": "notebook"}
    for cell in cells(path):
        if cell["cell_type"] != "code":
            continue
        source = "".join(cell["source"])  # type: ignore[arg-type]
        exec(compile(source, f"{path.name}, cell {cell['id']}", "exec"), space)
        printed = capsys.readouterr().out
        assert printed or "print(" not in source, source


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda p: p.stem)
def test_stored_without_outputs(path: Path) -> None:
    assert all(not cell.get("outputs") for cell in cells(path))
    assert cells(path)[0]["cell_type"] == "markdown"
