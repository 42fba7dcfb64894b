# %% [markdown]
# # Why is my model slow on the Neural Engine?
# Two reasons cover most cases: an op the engine does not take, so that the work goes back and forth, and a layout in which it
# wastes its lanes. `orchard lint` names both, op by op, with what each change gains.

# %%
import orchard
from orchard.studies.lint import lint

report = lint("distilbert-base-uncased", "a17pro", target="ane", prompt=128)
print(f"now {report.now_s * 1e3:.2f} ms, with every change {report.then_s * 1e3:.2f} ms (estimates)")
for group in report.groups:
    gain = "not priced" if group.gain_s is None else f"{group.gain_s * 1e3:.3f} ms"
    print(f"- {group.reason} ({group.ops} ops, first {group.first}): {group.change}; gains {gain}")

# %% [markdown]
# The gains of a report add up: each counts from the changes before it. The source of each rule stands beside it.

# %%
total = sum(group.gain_s or 0.0 for group in report.groups)
assert abs(total - (report.now_s - report.then_s)) < 1e-9
for group in report.groups:
    print(group.rule, "-", group.source)

# %% [markdown]
# Which engine should run which part? `place` answers with a proof: no other assignment is faster under the same prices.

# %%
placed = orchard.place("whisper-tiny", chip="a17pro", objective="latency")
print(f"best: {placed.total_s * 1e3:.0f} ms, gap to the proven least: {placed.answer.gap:.1%}")
for alternative in placed.alternatives:
    if alternative.value is not None:
        print(f"only {'+'.join(alternative.engines)}: {alternative.value * 1e3:.0f} ms")
        assert alternative.value >= placed.answer.value * (1 - 1e-9)
