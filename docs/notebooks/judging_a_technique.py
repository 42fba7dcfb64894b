# %% [markdown]
# # Judging a technique
# A published speed-up belongs to the machine it was measured on. What does the technique do on this chip, in this phase, and
# why? Techniques are passes over the graph, so they compose and are priced together.

# %%
import orchard
from orchard.techniques import card, load_claims

CHIP, MODEL = "m4", "llama-3.2-1b"
plain = orchard.predict(MODEL, chip=CHIP, prompt=512, generate=128)
for technique in ("palettize:bits=4,group=16", "kv-quant:bits=8", "prune:sparsity=0.5"):
    changed = orchard.predict(MODEL, chip=CHIP, prompt=512, generate=128, apply=[technique])
    gains = {name: plain.phases[name].latency_s / phase.latency_s for name, phase in changed.phases.items()}
    print(
        f"{technique:28}",
        ", ".join(f"{name} {gain:.2f}x" for name, gain in gains.items()),
        f"{changed.weight_bytes / 2**20:.0f} MiB",
    )

# %% [markdown]
# The cache format does little at a context of some hundred tokens: the cache is a small part of what decode reads. At sixteen
# thousand it is a large one. A claim without its context length says nothing.

# %%
for depth in (0, 4096, 16384):
    times = [
        orchard.predict(MODEL, chip=CHIP, weights="q4_0", prompt=0, generate=128, depth=depth, apply=apply)
        .phases["decode"]
        .latency_s
        for apply in ([], ["kv-quant:bits=8"])
    ]
    print(f"{depth:6} cached tokens: {times[0] / times[1]:.2f}x")

# %% [markdown]
# What is published, with the machine it was measured on:

# %%
for claim in [c for c in load_claims() if c.card == "kv-quant"][:4]:
    print(f"{claim.paper} {claim.year}: {claim.metric} {claim.baseline} -> {claim.value}, {claim.setting}")
print("hurts:", card("kv-quant").hurts)
