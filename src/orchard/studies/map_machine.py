"""The machine that a mapping is for: a described accelerator, or an engine of a chip of the catalogue."""

from __future__ import annotations

from orchard.cost.energy import MODELS as ENERGY
from orchard.hw import SoC, load_chip
from orchard.hw.arch import load_arch
from orchard.hw.convert import Machine, machine_of
from orchard.studies.errors import StudyError
from orchard.studies.runtimes import engine_name


def engine_machine(soc: SoC, engine: str, bits: int = 16) -> Machine:
    """An engine of a chip as the mapper sees it; energy per MAC as in `orchard predict`."""
    model = ENERGY.get(engine)
    per_op = 0.0 if model is None else model.joule_per_op * (model.int8_factor if bits == 8 else 1.0)
    return machine_of(soc.engine(engine), name=f"{soc.id}.{engine}", bits=bits, joule_per_mac=2 * per_op)


def machine_for(arch: str | None, chip: str | None, engine: str, overrides: tuple[str, ...] = ()) -> Machine:
    """`--arch`, or `--chip` with `--engine`. Raises StudyError where neither or both are given, or the engine is open."""
    if (arch is None) == (chip is None):
        raise StudyError("expected a machine: either --arch (E16, T128, A64, a YAML file) or --chip with --engine")
    if arch is not None:
        return Machine(load_arch(arch), ())
    assert chip is not None
    soc = load_chip(chip, list(overrides))
    wanted = engine if engine in soc.custom else engine_name(engine)
    if wanted == "auto":
        raise StudyError(f"--engine: expected one of {', '.join(soc.engines)} to map an op on {soc.id}")
    return engine_machine(soc, wanted)
