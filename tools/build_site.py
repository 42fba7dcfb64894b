"""Build the documentation site into build/site: pip install -e '.[docs]' && python tools/build_site.py

Pages: README and docs/ as they are, the notebooks of docs/notebooks run from top to bottom, a reference made of the
docstrings, and every packaged measurement as a table one can filter. Fails where a notebook raises or a link leads nowhere.
"""

from __future__ import annotations

import contextlib
import csv
import io
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from html import escape
from pathlib import Path
from typing import Any

import yaml

ROOT = Path(__file__).resolve().parents[1]
PAGES = ROOT / "build" / "site-pages"
DATA = ROOT / "src" / "orchard" / "data"
TABLES = {
    "measurements/llm.csv": "Language models",
    "measurements/vision.csv": "Networks",
    "measurements/kernels.csv": "Single operations",
    "measurements/thermal.csv": "Sustained load",
    "techniques/claims.csv": "Claims for techniques",
}
REFERENCE = {
    "Questions": [
        "orchard.studies.predict",
        "orchard.studies.compare",
        "orchard.studies.place",
        "orchard.studies.simulate",
        "orchard.studies.lint",
        "orchard.studies.map",
        "orchard.studies.validate",
        "orchard.studies.request",
    ],
    "Exploration": [
        "orchard.studies.explore.study",
        "orchard.studies.explore.run",
        "orchard.studies.explore.sensitivity",
    ],
    "Graphs": ["orchard.ir.graph", "orchard.ir.size", "orchard.ir.einsum", "orchard.ir.builder"],
    "Hardware": ["orchard.hw.soc", "orchard.hw.catalogue", "orchard.hw.arch", "orchard.hw.arrays"],
    "Costs": [
        "orchard.cost.work",
        "orchard.cost.evaluate",
        "orchard.cost.bound",
        "orchard.cost.energy",
        "orchard.cost.nest",
    ],
    "Records": [
        "orchard.report.schemas.prediction",
        "orchard.report.schemas.mapping",
        "orchard.report.schemas.explore",
    ],
}
STYLE = """<style>
  #wanted { border: 1px solid currentColor; border-radius: 4px; padding: 2px 6px; }
  table.dataset { font-size: 0.65rem; line-height: 1.3; white-space: nowrap; border-collapse: collapse; }
  table.dataset th { text-align: left; position: sticky; top: 0; }
  table.dataset td, table.dataset th { padding: 2px 8px; max-width: 24rem; overflow: hidden; text-overflow: ellipsis; }
</style>
"""
SEARCH = '<p><label>Rows that contain <input id="wanted" type="search"></label> <output id="shown"></output></p>'
SCRIPT = """<script>
const wanted = document.getElementById("wanted");
const rows = [...document.querySelectorAll("table.dataset tbody tr")].map(row => [row, row.textContent.toLowerCase()]);
function show() {
  const words = wanted.value.toLowerCase().split(/\\s+/).filter(Boolean);
  let count = 0;
  for (const [row, text] of rows) { row.hidden = !words.every(word => text.includes(word)); count += !row.hidden; }
  document.getElementById("shown").value = count + " of " + rows.length + " rows";
}
wanted.addEventListener("input", show);
show();
</script>
"""


def main() -> int:
    shutil.rmtree(PAGES, ignore_errors=True)
    PAGES.mkdir(parents=True)
    copy_pages()
    nav = [
        {"Orchard": "index.md"},
        {"Guide": sorted(p.name for p in PAGES.glob("*.md") if p.name not in ("index.md", "contributing.md"))},
        {"Notebooks": list(run_notebooks())},
        {"Reference": list(reference_pages())},
        {"Measurements": list(data_pages())},
        {"Benchmarks": list(benchmark_pages())},
        {"Decisions": sorted(f"decisions/{p.name}" for p in (PAGES / "decisions").glob("*.md"))},
        {"Contributing": "contributing.md"},
    ]
    config = PAGES.parent / "mkdocs.yml"
    settings = (
        (ROOT / "mkdocs.yml")
        .read_text(encoding="utf-8")
        .replace("build/site", "site")
        .replace("paths: [src]", "paths: [../src]")
    )
    config.write_text(settings + yaml.safe_dump({"nav": nav}), encoding="utf-8")
    done = subprocess.run(
        [sys.executable, "-m", "zensical", "build", "--config-file", str(config)], check=False, cwd=config.parent
    )
    missing = list(broken_links(PAGES.parent / "site"))
    for page, target in missing:
        print(f"build_site: {page} links to {target}, which is not there", file=sys.stderr)
    return done.returncode or bool(missing)


def copy_pages() -> None:
    """README as the first page, docs/ beside it; links to files outside docs/ are made to fit."""
    for source in (ROOT / "docs").rglob("*.md"):
        target = PAGES / source.relative_to(ROOT / "docs")
        target.parent.mkdir(parents=True, exist_ok=True)
        text = source.read_text(encoding="utf-8").replace("../CONTRIBUTING.md", "contributing.md")
        text = re.sub(r"\]\(notebooks/([\w-]+)\.ipynb\)", r"](notebooks/\1.md)", text)
        text = re.sub(r"\]\(((?:\.\./)*)\.\./benchmarks/([^)]*\.md)", r"](\1benchmarks/\2", text)
        text = re.sub(r"\[([^\]]+)\]\((?:\.\./)+benchmarks/[^)]*\)", r"\1", text)
        target.write_text(plain_blocks(text), encoding="utf-8")
    (PAGES / "index.md").rename(PAGES / "pages.md")
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    readme = re.sub(r"\]\(docs/index\.md\)", "](pages.md)", readme)
    readme = re.sub(r"\[decisions\]\(docs/decisions/\)", "decisions", readme)
    (PAGES / "index.md").write_text(
        plain_blocks(re.sub(r"\]\(docs/", "](", readme).replace("(CONTRIBUTING.md)", "(contributing.md)"))
    )
    (PAGES / "contributing.md").write_text(
        plain_blocks((ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")).replace("](docs/", "](")
    )


def benchmark_pages() -> Iterator[str]:
    """What was measured, as recorded; their links to scripts and raw files become plain text."""
    for source in sorted((ROOT / "benchmarks").rglob("*.md")):
        target = PAGES / source.relative_to(ROOT)
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_text(
            re.sub(r"\[([^\]]+)\]\((?!https?:)[^)]*\)", r"\1", source.read_text(encoding="utf-8")), encoding="utf-8"
        )
        yield str(target.relative_to(PAGES))


def plain_blocks(text: str) -> str:
    """Fences without the words that only the tests read; a link to a folder as plain text."""
    text = re.sub(r"^```(\w+) (?:run|out)$", r"```\1", text, flags=re.MULTILINE)
    return re.sub(r"\[([^\]]+)\]\((?:decisions|notebooks)/\)", r"\1", text)


def run_notebooks() -> Iterator[str]:
    """Each notebook as a page with what it printed, and as .ipynb beside it."""
    import jupytext

    (PAGES / "notebooks").mkdir()
    for source in sorted((ROOT / "docs" / "notebooks").glob("*.ipynb")):
        book = jupytext.read(source)
        run_cells(book.cells, str(source))
        book.metadata["kernelspec"] = {"name": "python3", "display_name": "Python 3", "language": "python"}
        jupytext.write(book, PAGES / "notebooks" / f"{source.stem}.ipynb")
        text = "\n\n".join(cell_text(cell) for cell in book.cells)
        note = f"\n\n[This page as a Jupyter notebook]({source.stem}.ipynb)\n"
        (PAGES / "notebooks" / f"{source.stem}.md").write_text(text + note, encoding="utf-8")
        yield f"notebooks/{source.stem}.md"


def run_cells(cells: list[Any], name: str) -> None:
    """Execute code cells in one namespace, in this process: no kernel to wait for. What they print becomes their output."""
    from nbformat.v4 import new_output

    scope: dict[str, object] = {"__name__": "notebook"}
    for number, cell in enumerate((c for c in cells if c.cell_type == "code"), start=1):
        printed = io.StringIO()
        with contextlib.redirect_stdout(printed):
            exec(compile(cell.source, name, "exec"), scope)
        cell.execution_count = number
        cell.outputs = [new_output("stream", name="stdout", text=printed.getvalue())] if printed.getvalue() else []


def cell_text(cell: Any) -> str:
    if cell.cell_type != "code":
        return str(cell.source)
    printed = "".join(output.text for output in cell.outputs).rstrip()
    return f"```python\n{cell.source}\n```" + (f"\n\n```text\n{printed}\n```" if printed else "")


def reference_pages() -> Iterator[str]:
    (PAGES / "reference").mkdir()
    for title, modules in REFERENCE.items():
        page = PAGES / "reference" / f"{title.lower()}.md"
        page.write_text(f"# {title}\n\n" + "".join(f"::: {module}\n\n" for module in modules), encoding="utf-8")
        yield f"reference/{page.name}"


def data_pages() -> Iterator[str]:
    (PAGES / "data").mkdir()
    for name, title in TABLES.items():
        with (DATA / name).open(encoding="utf-8", newline="") as file:
            header, *rows = sorted_columns(list(csv.reader(file)))
        body = "".join("<tr>" + "".join(f"<td>{cell(value)}</td>" for value in row) + "</tr>\n" for row in rows)
        head = "".join(f'<th scope="col">{escape(column)}</th>' for column in header)
        table = f'<table class="dataset"><thead><tr>{head}</tr></thead><tbody>\n{body}</tbody></table>'
        table = f'<div style="overflow-x: auto">{table}</div>\n'
        page = PAGES / "data" / f"{Path(name).stem}.md"
        shutil.copy(DATA / name, PAGES / "data" / Path(name).name)
        intro = f"# {title}\n\n{len(rows):,} published figures with their sources ([CSV]({Path(name).name})).\n\n"
        page.write_text(intro + STYLE + SEARCH + "\n" + table + SCRIPT, encoding="utf-8")
        yield f"data/{page.name}"


def sorted_columns(table: list[list[str]]) -> list[list[str]]:
    """Long columns last, so that the figures are in sight without scrolling."""
    order = sorted(range(len(table[0])), key=lambda i: table[0][i] in ("source", "source_ref", "notes"))
    return [[row[i] for i in order] for row in table]


def cell(value: str) -> str:
    return re.sub(r"(https?://[^\s,;()]+)", r'<a href="\1">\1</a>', escape(value))


def broken_links(site: Path) -> Iterator[tuple[str, str]]:
    for page in site.rglob("*.html"):
        for target in re.findall(r'href="([^"#?:]+)[#"]', page.read_text(encoding="utf-8")):
            if not (page.parent / target).exists() and not target.startswith("/"):
                yield str(page.relative_to(site)), target


if __name__ == "__main__":
    sys.exit(main())
