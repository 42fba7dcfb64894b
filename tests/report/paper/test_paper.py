"""Reports: one self-contained page, its charts and tables, and the other forms of the same document."""

from __future__ import annotations

import csv
import io
import json
import re
from functools import lru_cache
from html.parser import HTMLParser
from pathlib import Path
from xml.etree import ElementTree

import pytest

from orchard.app.cli import main
from orchard.report.paper.charts import nice, svg, ticks
from orchard.report.paper.content import prediction_document
from orchard.report.paper.document import (
    Areas,
    Bar,
    Bars,
    Chart,
    Column,
    Document,
    Dot,
    Figure,
    Lanes,
    Piece,
    Scatter,
    Table,
    shown,
)
from orchard.report.paper.flat import csv_text, markdown
from orchard.report.paper.page import MOST_BYTES, html
from orchard.report.paper.pdf import NoPdfError, browser
from orchard.studies.dossier import MOST_SLICES, Dossier, dossier, dossier_of_record
from orchard.studies.request import Request


@lru_cache(maxsize=4)
def made(model: str = "gpt2") -> Dossier:
    return dossier(Request(model=model, chip="m1", weights="f16" if model == "gpt2" else None))


@lru_cache(maxsize=4)
def document(model: str = "gpt2") -> Document:
    return prediction_document(made(model))


def figures(found: Document) -> list[Figure]:
    return [item for s in found.sections for item in s.items if isinstance(item, Figure)]


class Page(HTMLParser):
    """What a page loads, runs, names and links to."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.ids: list[str] = []
        self.links: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        found = dict(attrs)
        self.ids += [found["id"]] if found.get("id") else []
        self.links += [str(found[a]) for a in ("href", "src", "data", "action") if found.get(a)]


def test_a_page_stands_alone() -> None:
    text = html(document())
    page = Page(text)
    assert not {"script", "link", "img", "iframe", "object"} & set(page.tags)
    assert all(link.startswith("#") and link[1:] in page.ids for link in page.links)
    assert len(page.ids) == len(set(page.ids))
    assert "url(" not in text
    assert "@import" not in text
    assert len(text.encode()) < MOST_BYTES


def test_the_same_request_gives_the_same_page() -> None:
    again = prediction_document(dossier(Request(model="resnet18", chip="m1")))
    assert html(document("resnet18")) == html(again)


def test_every_figure_has_words_and_its_data() -> None:
    text = html(document())
    found = figures(document())
    assert {f.id for f in found} >= {
        "fig-roofline", "fig-layers-prefill", "fig-layers-decode", "fig-timeline-decode", "fig-memory", "fig-energy",
        "fig-sensitivity",
    }  # fmt: skip
    assert text.count('role="img"') == len(found) == text.count("<details>")
    for figure in found:
        tree = ElementTree.fromstring(svg(figure))
        assert tree.get("aria-labelledby") == f"{figure.id}-t {figure.id}-d"
        assert [child.text for child in tree[:2]] == [figure.title, figure.about]
        assert figure.data.rows
        assert all(len(row) == len(figure.data.columns) for row in figure.data.rows)


def test_the_parts_sum_to_the_prediction() -> None:
    d = made()
    for name, kernels in d.kernels.items():
        phase = d.prediction["phases"][name]
        assert sum(k.seconds for k in kernels) <= phase["latency_s"] * (1 + 1e-9)
    for e in d.energy:
        assert e.compute_j + e.dram_j + e.active_j == pytest.approx(d.prediction["phases"][e.phase]["energy_j"])
    decode = next(t for t in d.timelines if t.phase == "decode")
    # the timeline is the last of the sampled contexts, the prediction their mean
    assert decode.seconds == pytest.approx(d.prediction["phases"]["decode"]["latency_s"], rel=0.05)
    assert all(len(t.slices) <= MOST_SLICES + 1 for t in d.timelines)
    assert [s.start_s for s in decode.slices] == sorted(s.start_s for s in decode.slices)
    assert d.memory is not None
    total = d.memory.weights[-1] + d.memory.cache[-1]
    assert total <= d.prediction["memory"]["total_bytes"]
    assert max(d.memory.activations) == pytest.approx(d.prediction["memory"]["activation_peak_bytes"], rel=1e-6)


def test_a_network_shows_memory_by_op() -> None:
    d = made("resnet18")
    assert d.memory is not None
    assert d.memory.axis.startswith("op of inference")
    assert max(d.memory.activations) == pytest.approx(d.prediction["memory"]["activation_peak_bytes"])
    assert "Time of one inference" in html(document("resnet18"))


def test_markdown_and_csv_say_the_same() -> None:
    text = markdown(document("resnet18"))
    assert text.startswith("# resnet18 on Apple M1")
    assert "## Roofline" in text
    rows = list(csv.DictReader(io.StringIO(csv_text(document("resnet18")))))
    energy = [r for r in rows if r["section"] == "energy" and r["column"] == "sum"]
    assert float(energy[0]["value"]) == pytest.approx(made("resnet18").prediction["phases"]["inference"]["energy_j"])
    assert energy[0]["unit"] == "J"


def test_a_stored_prediction_gives_a_shorter_report() -> None:
    record = json.loads(json.dumps(made().prediction))
    found = prediction_document(dossier_of_record(record))
    assert [s.id for s in found.sections] == ["roofline", "layers", "memory", "confidence", "inputs"]
    for phase in record["phases"].values():
        del phase["breakdown"]
    bare = prediction_document(dossier_of_record(record))
    assert [s.id for s in bare.sections] == ["memory", "confidence", "inputs"]
    assert "without --breakdown" in html(bare)


def test_names_are_escaped() -> None:
    record = json.loads(json.dumps(made().prediction))
    record["model"]["name"] = "<script>alert(1)</script>"
    record["warnings"] = ["=cmd|' /C calc'!A0 & <b>"]
    found = prediction_document(dossier_of_record(record))
    assert "<script" not in html(found)
    assert "<b>" not in html(found)
    table = Table(title="t", columns=(Column("a"),), rows=(("=1+1",), ("@x",), ("plain",)))
    section = type(found.sections[0])(id="s", title="S", items=(table,))
    text = csv_text(Document(title="", subtitle="", summary=(), facts=(), sections=(section,), made_by=""))
    assert [line.rpartition(",")[2] for line in text.splitlines()[1:]] == ["'=1+1", "'@x", "plain"]


CHARTS: dict[str, Chart] = {
    "bars": Bars(rows=(Bar("a", (("x", 0.0),)), Bar("b", (("x", 2.0), ("y", 1.0)))), dimension="s"),
    "one dot": Scatter(
        dots=(Dot(1.0, 1.0, "s", "only", named=True),), lines=(), x_title="x", y_title="y", x_dimension="number",
        y_dimension="number",
    ),
    "equal dots": Scatter(
        dots=(Dot(5.0, 3.0, "s", "a"), Dot(5.0, 3.0, "t", "b")), lines=(), x_title="x", y_title="y", x_dimension="number",
        y_dimension="bytes", log=False,
    ),
    "lanes": Lanes(lanes=(("e", (Piece(0.0, 1.0, "compute", "op"),)),), seconds=1.0),
    "areas": Areas(
        at=(0.0, 1.0), series=(("weights", (1.0, 1.0)),), x_title="t", x_dimension="s", dimension="bytes", limit=9.0,
        limit_label="limit",
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", CHARTS)
def test_charts_of_little_data_stay_drawable(name: str) -> None:
    data = Table(title="t", columns=(Column("a"),), rows=(("b",),))
    text = svg(Figure(id="f", title="T & t", about="<a>", chart=CHARTS[name], data=data))
    numbers = re.findall(r' (?:x|y|width|height|cx|cy|r)="([^"]*)"', text)
    assert all(re.fullmatch(r"-?\d+(\.\d+)?", n) for n in numbers)
    assert "nan" not in text
    ElementTree.fromstring(text)


def test_ticks_are_round_in_the_unit_they_print() -> None:
    assert nice(0.0, 10.0) == pytest.approx([0, 2, 4, 6, 8, 10])
    assert [shown(t, "bytes") for t in ticks(0.0, 5 * 2.0**30, "bytes")] == ["0 B", "1 GiB", "2 GiB", "3 GiB", "4 GiB", "5 GiB"]


def test_browser_is_named_or_found() -> None:
    with pytest.raises(NoPdfError, match="no such program"):
        browser("no-such-browser")


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (("nowhere", "-o", "x.html"), "give --chip"),
        (("resnet18", "--chip", "m1", "-o", "x.doc"), "expected html, md, pdf, csv"),
        (("resnet18", "--chip", "m1", "-o", "no/x.html"), "folder does not exist"), (("{bad}", "-o", "x.html"), "no JSON"),
        (("{other}", "-o", "x.html"), "expected orchard.prediction/1"), (("{broken}", "-o", "x.html"), "model"),
        (("{folder}", "-o", "x.html"), "no run here"), (("resnet18", "--chip", "m1", "-o", "{folder}"), "is a folder"),
    ],
)  # fmt: skip
def test_what_cannot_be_reported(
    arguments: tuple[str, ...], says: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "bad.json").write_text("{")
    (tmp_path / "other.json").write_text('{"schema": "orchard.chips/1"}')
    (tmp_path / "broken.json").write_text('{"schema": "orchard.prediction/1", "model": 3}')
    (tmp_path / "folder").mkdir()
    places = {"{bad}": "bad.json", "{other}": "other.json", "{broken}": "broken.json", "{folder}": "folder"}
    assert main(["report", *(places.get(a, a) for a in arguments)]) == 2
    captured = capsys.readouterr()
    assert says in captured.err
    assert not captured.out


def test_advice_and_runs_are_reported(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(["advise", "resnet18", "--chip", "a16", "--goal", "latency<10us", "--json"]) == 0
    (tmp_path / "advice.json").write_text(capsys.readouterr().out)
    assert main(["report", "advice.json", "-o", "advice.html"]) == 0
    text = (tmp_path / "advice.html").read_text()
    assert "out of reach" in text
    assert "How many times better" in text
    pytest.importorskip("duckdb")
    (tmp_path / "study.yaml").write_text(
        "name: s\nchip: m4\nknobs: {gpu.cores: [8, 10], gpu.clock: [1.2GHz, 1.4GHz]}\n"
        "workloads: {w: {model: resnet18, engine: gpu}}\n"
        "objectives: [latency_s, area_mm2]\nsearch: {method: grid}\n"
    )
    assert main(["explore", "study.yaml", "--out", "run"]) == 0
    assert main(["report", "run", "-o", "run.html"]) == 0
    assert "area_mm2 against latency_s" in (tmp_path / "run.html").read_text()
