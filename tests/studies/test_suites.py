import pytest

from orchard.studies.errors import StudyError
from orchard.studies.predict import predict
from orchard.studies.suites import build_of, load_suite
from orchard.studies.validate import validate


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
