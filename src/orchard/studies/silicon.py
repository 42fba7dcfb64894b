"""What a chip costs to build, for a catalogue chip, a changed one, or one's own; and how well known dies are re-composed."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from orchard.cost.silicon import carbon_g, die_area, known_die, price
from orchard.cost.silicon.area import composed_rows
from orchard.hw import HardwareArrays, SoC, load_chip


@dataclass(frozen=True, slots=True, kw_only=True)
class Silicon:
    """Area in mm2 by block, `anchor_mm2` (known die minus composed), 80 % interval; dollars and embodied carbon."""

    soc: SoC
    node: str
    blocks_mm2: Mapping[str, float]
    anchor_mm2: float
    total_mm2: float
    interval_mm2: tuple[float, float]
    known_mm2: float | None
    known_source: str
    die_usd: float
    memory_usd: float
    carbon_g: float
    warnings: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Recomposed:
    """A die of known size beside the model. `held_out_mm2`: from a fit without this die [area_model.rows]."""

    chip: str
    node: str
    known_mm2: float
    composed_mm2: float
    held_out_mm2: float

    @property
    def held_out_error(self) -> float:
        return self.held_out_mm2 / self.known_mm2 - 1.0


def silicon(chip: str, *, overrides: tuple[str, ...] = ()) -> Silicon:
    """Area, price and carbon of one chip. Raises HardwareError or CostError where a figure or its node is not known."""
    soc = load_chip(chip, list(overrides))
    hw = HardwareArrays.of(soc)
    area = die_area(hw)
    total = float(area.total_mm2)
    known = known_die(soc)
    cost = price(area, dies=hw["package.dies"], memory_bytes=hw["dram.capacity"])
    return Silicon(
        soc=soc, node=soc.text("package.node"), blocks_mm2={n: float(v) for n, v in area.blocks.items()},
        anchor_mm2=area.anchor_mm2, total_mm2=total, interval_mm2=(total * area.spread[0], total * area.spread[1]),
        known_mm2=None if known is None else known[0], known_source="" if known is None else known[1],
        die_usd=float(cost.die_usd), memory_usd=float(cost.memory_usd),
        carbon_g=float(carbon_g(area, dies=hw["package.dies"], memory_bytes=hw["dram.capacity"])),
        warnings=_warnings(soc, total),
    )  # fmt: skip


def _warnings(soc: SoC, total_mm2: float) -> tuple[str, ...]:
    found = []
    if soc.id.startswith(("m5pro", "m5max", "m5ultra")):
        found.append(
            f"{soc.id} is made of dies of different kinds; it is priced as equal dies, the split is not published"
        )
    if total_mm2 / soc.dies > 858.0:
        found.append(f"a die of {total_mm2 / soc.dies:,.0f} mm2 is larger than the 858 mm2 a lithography field holds")
    if soc.text("package.node") == "TSMC N2":
        found.append("no die on N2 has been measured: blocks are scaled from N3P by the density the foundry states")
    return tuple(found)


def recomposed() -> tuple[Recomposed, ...]:
    """Every die of known size, composed by this code from the catalogue's figures."""
    rows = []
    for chip, row in composed_rows().items():
        if "known_mm2" in row:
            soc = load_chip(chip)
            area = die_area(HardwareArrays.of(soc), anchored=False)
            rows.append(
                Recomposed(
                    chip=chip, node=soc.text("package.node"), known_mm2=row["known_mm2"],
                    composed_mm2=float(area.total_mm2), held_out_mm2=row["held_out_mm2"],
                )
            )  # fmt: skip
    return tuple(rows)
