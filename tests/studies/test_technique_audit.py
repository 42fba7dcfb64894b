"""Reading claims, gains from published figures, and verdicts; the whole audit is the command's."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from orchard.studies.predict import predict
from orchard.studies.request import Request
from orchard.studies.technique_audit import _finding, audit
from orchard.studies.technique_cases import Unreadable, acceptance_of, case_of, chips_of, published
from orchard.studies.technique_evaluate import evaluate, quality_of
from orchard.techniques import Claim, TechniqueError, load_claims
from orchard.techniques.claims import COLUMNS

CLAIMS = {claim.id: claim for claim in load_claims()}


@pytest.mark.parametrize(
    ("identity", "kind", "low", "high"),
    [
        ("c034", "speed", 92.15 / 14.76, 92.15 / 14.76),  # latency
        ("c219", "speed", 1142.84 / 1265.3, 1142.84 / 1265.3),  # prompt rate
        ("c086", "size", 4.8 / 1.03, 4.8 / 1.03),
        ("c269", "size", 1 / 0.41, 1 / 0.41),  # 59 % less
        ("c284", "cost", 1.77, 1.77),
        ("c297", "speed", 2, 4),
    ],
)
def test_published_gains(identity: str, kind: str, low: float, high: float) -> None:
    found = published(CLAIMS[identity])
    assert (found.kind, found.low, found.high) == (kind, pytest.approx(low), pytest.approx(high))


@pytest.mark.parametrize(("identity", "message"), [("c001", "quality untestable"), ("c092", "no baseline")])
def test_figures_that_are_no_gain(identity: str, message: str) -> None:
    with pytest.raises(Unreadable, match=message):
        published(CLAIMS[identity])


@pytest.mark.parametrize(
    ("hardware", "chips"),
    [
        ("iPhone 15 Pro (A17 Pro) Neural Engine", ("a17pro",)), ("M2 Ultra GPU", ("m2ultra",)), ("M5 vs M4 GPU", ("m5", "m4")),
        ("M3 Ultra 60c GPU", ("m3ultra_cpu28_gpu60",)), ("A100", ()), ("smartphone", ()),
    ],
)  # fmt: skip
def test_chips_of_a_text(hardware: str, chips: tuple[str, ...]) -> None:
    assert chips_of(hardware) == chips


@pytest.mark.parametrize(
    ("identity", "apply"),
    [
        ("c044", "palettize:bits=4,group=16"), ("c038", "palettize:bits=4,group=1"), ("c079", "prune:sparsity=0.75"),
        ("c060", "w8a8"), ("c055", "rtn:bits=8,group=0"), ("c221", "k-quant:type=q4_k_m"), ("c269", "kv-quant:bits=8,v_bits=4"),
    ],
)  # fmt: skip
def test_claims_as_techniques(identity: str, apply: str) -> None:
    assert case_of(CLAIMS[identity]).test.apply == (apply,)


def test_acceptance_from_the_share_of_accepted_tokens() -> None:
    a = acceptance_of(0.551, 3)
    assert (a + a**2 + a**3) / 3 == pytest.approx(0.551)


def test_tables_cost_beyond_the_stream() -> None:
    """F2: few tables are free where weights bound the time, many set it: linear in their number."""
    latency = [
        predict("qwen3-0.6b", "a17pro", weights="f16", apply=[f"palettize:bits=4,group={g}"]).phases["decode"].latency_s
        for g in (0, 64, 2, 1)
    ]  # fmt: skip
    assert latency[1] < 1.1 * latency[0]
    assert latency[2] > 1.5 * latency[0]
    assert 1.5 < latency[3] / latency[2] < 2.2


@pytest.mark.parametrize(
    ("runtime", "rows", "low", "high"),
    [
        ("llama.cpp@2023-12", (2, 8), 1.0, 1.05),  # tiles from two rows on: one tile holds both
        ("llama.cpp@2024-11-25", (2, 4), 1.6, 2.0),  # one mat-vec per row up to four
        ("mlx", (12, 15), 1.0, 1.05),  # one tile of 16 rows
        ("mlx", (15, 16), 1.3, 2.0),  # from 16 rows on tiles of 32
    ],
)
def test_a_few_more_rows_cost_by_build(runtime: str, rows: tuple[int, int], low: float, high: float) -> None:
    weights = "f16" if runtime == "mlx" else "q4_0"
    options: dict[str, Any] = {"engine": "gpu", "runtime": runtime, "weights": weights, "generate": 0}
    few, more = (predict("llama-2-7b", "m1max", prompt=r, **options).phases["prefill"].latency_s for r in rows)
    assert low <= more / few <= high


def test_a_miss_names_the_time_that_is_off() -> None:
    found = _finding(CLAIMS["c034"], "m4max")
    assert found.verdict == "exceeds model"
    assert "without it" in found.reason


def test_integer_products_gain_where_the_engine_has_the_rate() -> None:
    gains = []
    for chip in ("a16", "a17pro"):
        plain, found = predict("resnet50", chip, engine="ane"), predict("resnet50", chip, engine="ane", apply=["w8a8"])
        gains.append(plain.phases["inference"].latency_s / found.phases["inference"].latency_s)
    assert 1.0 < gains[0] < gains[1]


def test_a_file_of_claims(tmp_path: Path) -> None:
    own = tmp_path / "claims.csv"
    rows = [CLAIMS["c086"], replace(CLAIMS["c001"], id=""), replace(CLAIMS["c060"], model="nothing-known")]
    own.write_text("\n".join([",".join(COLUMNS), *(",".join(f'"{getattr(r, c)}"' for c in COLUMNS) for r in rows)]))
    found = audit(str(own))
    assert [f.verdict for f in found.findings] == ["explained", "quality untestable here", "untestable here"]
    assert found.findings[1].claim.id == "r002"
    assert "not built in" in found.findings[2].reason
    assert (len(found.scored), found.explained) == (1, 1)


def test_a_file_without_a_column(tmp_path: Path) -> None:
    (tmp_path / "x.csv").write_text("technique,paper\na,b\n")
    with pytest.raises(TechniqueError, match="no column 'year'"):
        audit(str(tmp_path / "x.csv"))
    with pytest.raises(TechniqueError, match="cannot be read"):
        audit(str(tmp_path / "missing.csv"))


def test_an_evaluation_names_what_has_no_rule() -> None:
    found = evaluate(["activation-sparsity"], Request(model="qwen3-0.6b", chip="", engine="ane"), ["a17pro"])
    (effect,) = found.effects
    assert effect.verdict == "does not transfer"
    assert "no cost rule on ane" in effect.reason
    with pytest.raises(TechniqueError, match="did you mean"):
        evaluate(["palettise"], Request(model="qwen3-0.6b", chip=""), ["m4"])


def test_every_claim_card_exists() -> None:
    assert all(isinstance(claim, Claim) and claim.card for claim in CLAIMS.values())


def test_recorded_losses_are_of_the_setting_or_of_none_that_contradicts_it() -> None:
    assert {e.technique for e in quality_of("rtn:bits=4,group=32")} == {"rtn:bits=4,group=32"}
    near = {e.technique for e in quality_of("palettize:bits=4,group=16")}
    assert "palettize:bits=4" in near
    assert not any("bits=3" in t or "+" in t for t in near)
    assert quality_of("flash-attention") == ()
