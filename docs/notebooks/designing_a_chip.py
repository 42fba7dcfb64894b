# %% [markdown]
# # Designing a chip
# For a basket of workloads: which change of the chip pays most, within area and power?

# %% [markdown]
# First, the chip as it is: what does 1 % more of each figure give? The slopes are those of the same function that prices a
# prediction.

# %%
from pathlib import Path
from tempfile import mkdtemp

from orchard.studies.explore.run import explore
from orchard.studies.explore.sensitivity import sensitivity
from orchard.studies.explore.study import read_study
from orchard.studies.explore.whatif import what_if

folder = Path(mkdtemp())
study_file = folder / "next.yaml"
study_file.write_text("""\
chip: m4
knobs:
  gpu.cores: [8, 10, 12, 16, 20]
  dram.bus_width: [128bit, 192bit, 256bit]
  gpu.clock: {from: 1.2GHz, to: 1.8GHz, steps: 4}
workloads:
  chat: {model: qwen3-4b, weights: q4_0, prompt: 512, generate: 128}
  camera: {model: resnet50, engine: ane, weight: 30}
objectives: [latency_s, area_mm2]
constraints: ["power_w <= 25"]
""")
study = read_study(study_file)
found = sensitivity("m4", study.workloads)
for line in found.elasticities[:4]:
    print(f"{line.figure}: 1 % more gives {line.basket:.2f} % more speed")

# %% [markdown]
# A single change, explained: which seconds of which phase shrink, and what the silicon costs.

# %%
change = what_if("m4", study.workloads, ("dram.bus_width=192bit",))
print(
    f"speed-up {change.before.basket_s / change.after.basket_s:.2f} for {change.after.area_mm2 - change.before.area_mm2:.1f} mm2"
)
for part, terms in change.before.terms.items():
    after = change.after.terms[part]
    print(
        part, ", ".join(f"{t} {terms[t] * 1e3:.2f} -> {after[t] * 1e3:.2f} ms" for t in terms if terms[t] != after[t])
    )

# %% [markdown]
# Now all sixty designs: those that no other beats in both objectives, within the power limit. A run is a folder: the same
# call again goes on where it was left, with the same numbers.

# %%
outcome = explore(study, folder / "run")
print(f"{outcome.evaluated} designs, {outcome.feasible} feasible, {len(outcome.front['latency_s'])} on the front")
for row in range(len(outcome.front["latency_s"])):
    design = ", ".join(f"{name} {outcome.front[name][row]:g}" for name in ("gpu.cores", "dram.bus_width", "gpu.clock"))
    print(f"{outcome.front['latency_s'][row]:6.2f} s {outcome.front['area_mm2'][row]:6.1f} mm2  {design}")
again = explore(study, folder / "run")
assert again.digest == outcome.digest
