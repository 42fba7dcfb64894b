"""One GEMM job in AccelForge, run in a Python that has it. Energy in pJ, time in cycles: the machine is stated in those units.

    python run_accelforge.py E16 4096 4096 4096 --order IWO [--free] [--imperfect]

Prints one line of JSON: search_s, cpu_s (without import), energy_pj, latency_cycles, edp of the mapping with the least product.
"""

import argparse
import json
import os
import sys
import tempfile
import time

MACHINES = {
    "E16": {"dram": (100.0, 8), "glb": (65536, 6.0, 32), "pe": 16, "rf": {"I": 16, "W": 192, "O": 16}, "rf_pj": 0.5, "mac": 1.0},
    "T128": {"dram": (100.0, 256), "glb": (4194304, 10.0, 2048), "pe": 128, "rf": {"W": 1}, "rf_pj": 0.1, "mac": 0.5},
}
NAMES = {"I": "input", "W": "weight", "O": "output"}


def memory(name: str, size: object, energy: float, rate: object, keep: str) -> str:
    actions = "".join(
        f"    - {{name: {a}, energy: {energy}, throughput: {rate}, bits_per_action: 16}}\n" for a in ("read", "write")
    )
    return (
        f"  - !Memory\n    name: {name}\n    size: {size}\n    leak_power: 0\n    area: 0\n"
        f"    tensors: {{keep: {keep}}}\n    actions:\n{actions}"
    )


def architecture(machine: dict, order: str, fixed_axes: bool) -> str:
    text = "arch:\n  nodes:\n"
    text += memory("DRAM", "inf", machine["dram"][0], machine["dram"][1], "All")
    words, energy, rate = machine["glb"]
    text += memory("GLB", words * 16, energy, rate, "All")
    reuse = (", reuse: input", ", reuse: output") if fixed_axes else ("", "")
    text += "  - !Container\n    name: PE\n    spatial:\n"
    text += f"    - {{name: X, fanout: {machine['pe']}{reuse[0]}}}\n    - {{name: Y, fanout: {machine['pe']}{reuse[1]}}}\n"
    for role in order:
        if role in machine["rf"]:
            text += memory(f"RF_{role}", machine["rf"][role] * 16, machine["rf_pj"], "inf", NAMES[role])
    text += (
        "  - !Compute\n    name: MAC\n    leak_power: 0\n    area: 0\n"
        f"    actions:\n    - {{name: compute, energy: {machine['mac']}, throughput: 1}}\n"
    )
    return text


def workload(m: int, k: int, n: int) -> str:
    return f"""workload:
  iteration_space_shape:
    m: 0 <= m < {m}
    k: 0 <= k < {k}
    n: 0 <= n < {n}
  bits_per_value: {{All: 16}}
  einsums:
  - name: Gemm
    tensor_accesses:
    - {{name: A, projection: [m, k]}}
    - {{name: B, projection: [k, n]}}
    - {{name: C, projection: [m, n], output: True}}
    renames: {{input: A, weight: B, output: C}}
"""


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("machine", choices=sorted(MACHINES))
    options.add_argument("sizes", type=int, nargs=3)
    options.add_argument("--order", default="IWO")
    options.add_argument("--free", action="store_true", help="any order of the register files")
    options.add_argument("--imperfect", action="store_true", help="imperfect temporal factors, coarse")
    given = options.parse_args()
    import accelforge as af
    from accelforge.frontend.mapper.metrics import Metrics
    from accelforge.mapper.FFM.main import map_workload_to_arch

    folder = tempfile.mkdtemp()
    os.chdir(folder)
    for name, text in (
        ("arch.yaml", architecture(MACHINES[given.machine], given.order, given.machine == "T128")),
        ("workload.yaml", workload(*given.sizes)),
    ):
        with open(name, "w") as file:
            file.write(text)
    spec = af.Spec.from_yaml("arch.yaml", "workload.yaml")
    spec.mapper.metrics = Metrics.ENERGY | Metrics.LATENCY
    spec.mapper.force_memory_hierarchy_order = not given.free
    if given.imperfect:
        spec.mapper.explore_imperfect_temporal_loops = True
        spec.mapper.tiling_coarseness = 2
    started, cpu = time.perf_counter(), sum(os.times()[:4])
    mappings = map_workload_to_arch(spec, print_progress=False, eval_in_detail=False)  # the detail draws with graphviz
    taken, cpu = time.perf_counter() - started, sum(os.times()[:4]) - cpu
    data = mappings.data
    totals = [c for c in data.columns if c.startswith("Total")]
    energy, latency = (next(data[c] for c in totals if c.endswith(x)) for x in ("energy", "latency"))
    best = (energy * latency).astype(float).idxmin()
    e, c = float(energy[best]), float(latency[best])
    json.dump({"search_s": taken, "cpu_s": cpu, "energy_pj": e, "latency_cycles": c, "edp": e * c}, sys.stdout)
    print()


if __name__ == "__main__":
    main()
