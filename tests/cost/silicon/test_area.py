"""Areas against the table the model was fitted to, an independent re-composition, and what must hold for any chip."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from orchard.cost.errors import CostError
from orchard.cost.silicon import PRICED, coefficient, die_area, known_die, table
from orchard.hw import FIGURES, HardwareArrays, load_chip

ROWS = table("area_model.rows")
INTEGERS = {"gpu.cores": (1, 80), "cpu.p.cores": (1, 24), "ane.cores": (1, 64), "cpu.matrix.units": (1, 6)}


def by_hand(row: dict[str, float | bool | str]) -> float:
    """The formula at the top of area.py, from the row's own counts and the same coefficients."""
    node = str(row["family"]).lower()

    def c(path: str) -> float:
        return float(coefficient(path))

    ane = c("blocks.ane_engine_16core.n5" if node.startswith("n5") else "blocks.ane_engine_16core.n3")
    logic = (
        row["p"] * c(f"blocks.p_core.{node}") + row["e"] * c(f"blocks.e_core.{node}") + row["ane"] * ane
        + row["ch16"] * c("blocks.lpddr_phy_16bit") + row["sme"] * c("blocks.amx_sme_unit")
        + row["gpu"] * c(f"blocks.gpu_core.{node}") + row["media"] * c("blocks.media_unit")
    )  # fmt: skip
    k = c("area_model.k_phone" if row["phone"] else "area_model.k_mac")
    sram = row["l2_mib"] * c(f"blocks.l2_per_mib.{node}") + row["slc_mib"] * c(f"blocks.slc_with_control_per_mib.{node}")
    return (1 + k) * logic + sram + c("blocks.ultrafusion_edge") * bool(row["d2d"])


@pytest.mark.parametrize("chip", ROWS)
def test_composes_the_dies_of_the_fit(chip: str) -> None:
    area = float(die_area(HardwareArrays.of(load_chip(chip)), anchored=False).total_mm2)
    assert area == pytest.approx(by_hand(ROWS[chip]), rel=1e-9)
    assert area == pytest.approx(ROWS[chip]["fit_mm2"], rel=0.004)


@pytest.mark.parametrize("chip", ["m1", "m1max_gpu24", "a18pro", "m4_cpu8_gpu8"])
def test_an_unchanged_chip_has_its_published_die(chip: str) -> None:
    soc = load_chip(chip)
    known = known_die(soc)
    assert known is not None
    assert float(die_area(HardwareArrays.of(soc)).total_mm2) == pytest.approx(known[0])


def test_steps_between_siblings() -> None:
    """Model and known steps between dies of one family [area_model.step_check]."""
    for step, (model, _) in coefficient("area_model.step_check").value.items():
        low, high = step.split("_to_")
        areas = [float(die_area(HardwareArrays.of(load_chip(c)), anchored=False).total_mm2) for c in (low, high)]
        assert areas[1] - areas[0] == pytest.approx(model, abs=1.5)


def test_a_gpu_core_costs_itself_and_its_share_of_the_rest() -> None:
    area = die_area(HardwareArrays.of(load_chip("m4"), {"gpu.cores": np.array([10.0, 11.0])}))
    block, whole = coefficient("area_model.marginal_gpu_core_mac_n3").value
    assert np.diff(area.blocks["gpu"])[0] == pytest.approx(block, abs=0.1)
    assert np.diff(area.total_mm2)[0] == pytest.approx(whole, abs=0.1)


@pytest.mark.parametrize("path", sorted(PRICED))
@pytest.mark.parametrize("chip", ["m4", "m5max", "a17pro", "m1ultra"])
def test_more_of_anything_priced_never_shrinks_the_die(chip: str, path: str) -> None:
    soc = load_chip(chip)
    own = soc.get(path)
    if not own:
        pytest.skip("the chip has none, or it is not known")
    areas = die_area(HardwareArrays.of(soc, {path: own * np.array([0.5, 1.0, 2.0, 4.0])})).total_mm2
    assert np.all(np.diff(areas) >= -1e-9)


def test_every_priced_figure_is_one() -> None:
    assert set(FIGURES) >= PRICED


@given(st.sampled_from(sorted(INTEGERS)), st.integers(1, 24), st.integers(1, 24))
def test_arrays_equal_single_chips(path: str, first: int, second: int) -> None:
    soc = load_chip("m4pro")
    both = die_area(HardwareArrays.of(soc, {path: np.array([float(first), float(second)])})).total_mm2
    alone = [float(die_area(HardwareArrays.of(soc, {path: float(n)})).total_mm2) for n in (first, second)]
    assert both == pytest.approx(alone, rel=1e-12)


def test_blocks_and_anchor_sum_to_the_total() -> None:
    area = die_area(HardwareArrays.of(load_chip("m4", ["gpu.cores=14", "slc.size=32MiB"])))
    assert float(sum(area.blocks.values())) + area.anchor_mm2 == pytest.approx(float(area.total_mm2))


def test_a_chip_without_a_node_is_refused(tmp_path: object) -> None:
    from pathlib import Path

    file = Path(str(tmp_path)) / "mine.yaml"
    file.write_text("base: m4\nname: mine\npackage:\n  node: {value: TSMC N7, unit: name}\n")
    with pytest.raises(CostError, match="TSMC N7"):
        die_area(HardwareArrays.of(load_chip(str(file))))
