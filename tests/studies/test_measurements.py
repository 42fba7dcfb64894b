"""Measurement files: what is read, what is refused, what is not scored and why."""

from __future__ import annotations

import csv
from dataclasses import replace
from pathlib import Path

import pytest

from orchard.hw import find_chip, load_chip
from orchard.studies.errors import StudyError
from orchard.studies.measurements import COLUMNS, Row, family_of, read_rows, scored, why_not_scored
from orchard.units import OrchardError
from orchard.units.schemes import scheme

GOOD = {
    "id": "r1", "source": "s", "date": "2025-01-01", "chip": "M1", "engine": "gpu", "runtime": "llama.cpp",
    "model": "Qwen/Qwen3-0.6B", "weight_format": "q4_0", "phase": "decode", "gen_tokens": "128", "batch": "1",
    "metric": "tokens_per_s", "value": "50", "notes": "trust=A",
}  # fmt: skip


def written(folder: Path, *records: dict[str, str], columns: tuple[str, ...] = COLUMNS) -> Path:
    path = folder / "rows.csv"
    with path.open("w", newline="", encoding="utf-8") as file:
        out = csv.DictWriter(file, columns, extrasaction="ignore")
        out.writeheader()
        out.writerows({c: r.get(c, "") for c in columns} for r in records)
    return path


def row(folder: Path, **changes: str) -> Row:
    (found,) = read_rows(written(folder, {**GOOD, **changes}))
    return found


def test_the_packaged_rows_have_ids_of_their_own() -> None:
    rows = read_rows()
    assert len(rows) == 480
    assert len({r.id for r in rows}) == len(rows)
    assert all(r.seconds > 0 for r in scored(rows))


@pytest.mark.parametrize("value", sorted({r.weights for r in read_rows()}))
def test_every_weight_format_of_the_rows_is_known(value: str) -> None:
    assert scheme(value).name


def test_every_scored_chip_is_in_the_catalogue() -> None:
    for chip, gpu, cpu in {(r.chip, r.gpu_cores, r.cpu_cores) for r in scored(read_rows())}:
        assert load_chip(find_chip(chip, gpu, cpu if gpu is None else None))


def test_seconds_are_of_the_phase(tmp_path: Path) -> None:
    assert row(tmp_path).seconds == 1 / 50
    assert row(tmp_path, batch="4").seconds == 4 / 50
    assert row(tmp_path, phase="prefill", prompt_tokens="512").seconds == 512 / 50
    assert row(tmp_path, phase="component", metric="ms").seconds == 0.05


@pytest.mark.parametrize(
    ("notes", "threads"),
    [
        ("trust=A; threads=8", 8), ("trust=A; 4 threads; x", 4), ("threads=", None), (" threads", None), ("", None),
        ("threads=a", None), ("trust=B; many threads", None), ("trust=A;threads=16;x", 16),
    ],
)  # fmt: skip
def test_threads_stand_in_the_notes(tmp_path: Path, notes: str, threads: int | None) -> None:
    assert row(tmp_path, notes=notes).threads == threads


@pytest.mark.parametrize(("notes", "trust"), [("trust=A; x", "A"), ("trust=C", "C"), ("", "B"), ("seen on a forum", "B")])
def test_trust_defaults_to_b(tmp_path: Path, notes: str, trust: str) -> None:
    assert row(tmp_path, notes=notes).trust == trust


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"value": ""}, "value"), ({"value": "nan"}, "value"), ({"value": "-3"}, "value"), ({"value": "0"}, "value"),
        ({"value": "fast"}, "value"), ({"value": "inf"}, "value"), ({"prompt_tokens": "nan"}, "prompt_tokens"),
        ({"batch": "-1"}, "batch"), ({"batch": "1.5"}, "batch"), ({"context_depth": "1e99"}, "context_depth"),
        ({"gpu_cores": "ten"}, "gpu_cores"),
    ],
)  # fmt: skip
def test_a_bad_field_is_named_with_its_line(tmp_path: Path, change: dict[str, str], message: str) -> None:
    with pytest.raises(StudyError, match=rf"rows.csv line 2: {message} is ") as error:
        read_rows(written(tmp_path, {**GOOD, **change}))
    assert "\n" not in str(error.value)


def test_a_file_that_is_no_table_is_refused(tmp_path: Path) -> None:
    with pytest.raises(StudyError, match="column 'id' is missing"):
        read_rows(written(tmp_path, columns=("a", "b")))
    with pytest.raises(StudyError, match="cannot be read as text"):
        read_rows(tmp_path / "none.csv")
    binary = tmp_path / "b.csv"
    binary.write_bytes(b"\xff\xfe\x00\x81")
    with pytest.raises(StudyError, match="cannot be read as text"):
        read_rows(binary)


def test_a_short_or_endless_line_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "rows.csv"
    path.write_text(",".join(COLUMNS) + "\nr1,s\n", encoding="utf-8")
    with pytest.raises(StudyError, match="line 2: ends before column 'source_ref'"):
        read_rows(path)
    path.write_text(",".join(COLUMNS) + "\n" + "x" * 200_000 + "\n", encoding="utf-8")
    with pytest.raises(StudyError, match="field larger than"):
        read_rows(path)


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"notes": "trust=C"}, "trust C"),
        ({"engine": "mixed"}, "mixed"),
        ({"metric": "watt"}, "metric watt"),
        ({"phase": "ttft"}, "time to first token"),
        ({"phase": "end_to_end"}, "mixes phases"),
        ({"phase": "prefill"}, "prompt length"),
        ({"phase": "end_to_end", "engine": "ane"}, "prompt length"),
        ({"model": "openbmb/MiniCPM5-1B"}, "not published"),
        ({}, None),
    ],
)
def test_a_row_that_is_not_scored_says_why(tmp_path: Path, change: dict[str, str], reason: str | None) -> None:
    found = why_not_scored(row(tmp_path, **change))
    assert found is None if reason is None else reason in str(found)


def test_families_keep_relatives_together() -> None:
    assert family_of("meta-llama/Llama-3.1-8B-Instruct") == family_of("TinyLlama/TinyLlama-1.1B") == "llama-3"
    assert family_of("Qwen/Qwen3-4B") != family_of("Qwen/Qwen2.5-7B")
    assert family_of("deepseek-ai/DeepSeek-R1-Distill-Qwen-7B") == "qwen2.5"


def test_a_chip_or_format_nobody_knows_is_one_sentence(tmp_path: Path) -> None:
    from orchard.studies.cases import make_case

    good = row(tmp_path)
    for change in ({"chip": "M77"}, {"weights": "q77"}, {"model": "x/y"}, {"runtime": "zip"}, {"engine": "tpu"}):
        with pytest.raises(OrchardError) as error:
            make_case(replace(good, **change))
        assert "\n" not in str(error.value)
