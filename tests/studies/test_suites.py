import numpy as np
import pytest
from scipy.stats import spearmanr

from orchard.studies.calibrate import components, start_values
from orchard.studies.cases import CaseSet
from orchard.studies.errors import StudyError
from orchard.studies.kernel_rows import build_of
from orchard.studies.predict import predict
from orchard.studies.suites import load_suite, suite_records
from orchard.studies.technique_pairs import technique_pairs
from orchard.studies.validate import _rank_correlation, validate


def test_phone_networks_reach_their_targets_on_left_out_generations():
    headline = {s.part: s for s in validate("vision").strata if s.name == "networks on ANE, 16 bit"}
    for part in ("left-out chip", "left-out family"):
        assert headline[part].median_error <= 0.15
        assert headline[part].p90_error <= 0.40
        assert headline[part].rank_correlation >= 0.93
        assert headline[part].median_error < headline[part].public_median


def test_kernel_rows_are_scored_or_left_out_with_a_reason():
    suite = load_suite("kernels")
    assert len(suite.cases) > 800
    assert all(suite.left_out)
    gemm = next(s for s in validate("kernels").strata if s.name == "CPU GEMM" and s.part == "fit")
    assert gemm.median_error <= 0.20


def test_gpu_products_reach_their_target_on_left_out_generations():
    found = next(
        s for s in validate("kernels").strata if s.name == "GPU products above 0.3 ms" and s.part == "left-out chip"
    )
    assert found.median_error <= 0.15
    assert found.median_error < 0.5 * found.naive_median


@pytest.mark.parametrize(
    ("library", "notes", "date"),
    [
        ("MLX 0.20.0", "trust=B; M4 mlx: 0.20.0", "2024-11"),
        ("PyTorch MPS 2.1.2", "trust=B; mlx 0.12.2 torch 2.1.2", "2024-05"),
        ("PyTorch MPS n/a", "trust=B; M3 - mlx 0.30.1", "2025-09"),
        ("MLX n/a", "trust=B; M1", "2024-01"), ("PyTorch MPS", "trust=B", ""), ("MLX unfused", "trust=A", "2024-11"),
    ],
)  # fmt: skip
def test_a_row_takes_the_date_of_its_build(library, notes, date):
    assert build_of(library, notes) == date


def test_an_unfused_row_has_separate_attention_kernels():
    rows = {c.row.id: c for c in load_suite("kernels").cases if c.family == "attention"}
    kinds = [{k.kind for k in c.table.kernels} for c in rows.values()]
    assert {"attention"} in kinds
    assert any("attention" not in found for found in kinds)


def test_suites_score_packaged_rows_only(tmp_path):
    with pytest.raises(StudyError, match="leave --rows out"):
        validate("vision", rows_file=tmp_path / "rows.csv")


def test_a_network_is_predicted_with_the_profile_of_networks():
    found = predict("resnet50", "a16", engine="ane")
    assert found.profile.name == "coreml-ane-nets"
    assert found.phases["inference"].latency_s == pytest.approx(1.5e-3, rel=0.35)  # 1.42 and 1.52 ms measured
    assert not [w for w in found.warnings if "no measurement" in w]


def test_the_image_size_of_a_built_in_network_is_an_input():
    small, large = (predict("mobileone-s1", "a15", inputs=(f"image=1x3x{n}x{n}",)) for n in (224, 512))
    assert large.phases["inference"].ops == pytest.approx(small.phases["inference"].ops * (512 / 224) ** 2, rel=0.02)


def test_an_input_that_is_no_image_is_refused():
    with pytest.raises(StudyError, match="expected image=1x3xHxW"):
        predict("mobileone-s1", "a15", inputs=("image=3x224",))


def test_diffusion_and_whisper_reach_their_target_on_left_out_generations():
    found = next(
        s for s in validate("vision").strata if s.name == "Stable Diffusion, Whisper" and s.part == "left-out chip"
    )
    assert found.rows > 120
    assert found.median_error <= 0.15


def test_a_whole_image_is_its_steps_and_the_decoder():
    cases = {c.row.id: c for c in load_suite("vision").cases}
    image, step = cases["v-sd-043"], cases["v-sd-044"]  # one iPad: 20 steps in 7.0 s, 3.07 steps a second

    def macs(case):
        return sum(k.macs * k.count for k in case.table.kernels)

    decoder = macs(image) - 20 * macs(step)
    assert decoder == pytest.approx(1257.26e9, rel=0.01)  # published multiply-accumulates of the decoder


def test_speed_ups_compare_rows_that_differ_in_one_technique():
    suite = load_suite("vision")
    records = {r["id"]: r for r in suite_records("vision")}
    pairs = technique_pairs(suite.cases, records)
    names = {p.technique for p in pairs}
    assert {"flash attention", "compressed weights, ANE", "Winograd where it pays"} <= names
    for pair in pairs:
        a, b = (records[suite.cases[i].row.id] for i in (pair.without, pair.with_it))
        assert a["chip"] == b["chip"]
        assert a["model"] == b["model"]
        assert (a["variant"], a["precision"]) != (b["variant"], b["precision"])


def test_equal_values_share_a_rank():
    assert _rank_correlation(np.array([1.0, 1.0, 2.0, 3.0, 4.0]), np.array([5.0, 5.0, 6.0, 7.0, 8.0])) == 1.0
    tied = _rank_correlation(np.array([1.0, 1.0, 1.0, 1.0, 2.0]), np.array([4.0, 3.0, 2.0, 1.0, 5.0]))
    assert tied == pytest.approx(spearmanr([1, 1, 1, 1, 2], [4, 3, 2, 1, 5]).statistic)
    assert _rank_correlation(np.ones(5), np.arange(5.0)) is None


def test_a_fit_moves_only_the_profiles_of_its_suite():
    cases = CaseSet.of(load_suite("vision").cases)
    _, free, _ = start_values(cases)
    owners = {owner for owner, _ in free}
    assert "coreml-ane-nets" in owners
    assert not owners & {"mlx-gpu-ops", "mps-gpu-ops", "llama.cpp-gpu-2024", "llama.cpp-cpu"}
    assert sum(int(part.sum()) for part in components(cases)) == len(cases.cases)


@pytest.mark.parametrize(
    ("engine", "profile"),
    [
        ("ALL", "coreml-ane-nets"), ("CPU_AND_NE", "coreml-ane-nets"),
        ("CPU_AND_GPU", "coreml-gpu-nets"), ("CPU_ONLY", "coreml-cpu-nets"),
    ],
)  # fmt: skip
def test_compute_units_of_core_ml_choose_the_profile(engine, profile):
    found = predict("resnet50", "m2", engine=engine, runtime="coreml")
    assert found.profile.name == profile
    assert bool([w for w in found.warnings if "no measurement" in w]) == (engine == "CPU_ONLY")
