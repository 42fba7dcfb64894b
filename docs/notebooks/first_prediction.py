# %% [markdown]
# # First prediction
# How fast does a language model run on a Mac that is not at hand, what bounds it, and how sure is the answer? Nothing is
# downloaded; each cell takes about a second.

# %%
import orchard

answer = orchard.predict("llama-3.1-8b", chip="m4max", weights="q8_0", prompt=512, generate=128)
for name, phase in answer.phases.items():
    low, high = phase.interval_s
    print(
        f"{name}: {phase.tokens_per_s:.0f} tokens/s, {phase.latency_s * 1e3:.1f} ms (80 %: {low * 1e3:.1f} to {high * 1e3:.1f})"
    )

# %% [markdown]
# Every number is one of four kinds: a bound (physics forbids less), an estimate (this), a simulation or a measurement. The
# estimate of a phase never lies below its bound, and the distance between the two is what better software could win.

# %%
for name, phase in answer.phases.items():
    share = phase.bound_s / phase.latency_s
    most = max(phase.bound_by, key=lambda term: phase.bound_by[term])
    print(f"{name}: {share:.0%} of what physics allows; the time goes to {most} ({phase.bound_by[most]:.0%})")
    assert phase.bound_s <= phase.latency_s

# %% [markdown]
# Prefill is bound by arithmetic, decode by the bytes of the weights: each new token reads all of them. So a smaller weight
# format speeds decode up, and prefill hardly. The comparison says so with numbers.

# %%
table = orchard.compare("llama-3.1-8b", ["m4max"], weights=["q4_k_m", "q8_0", "f16"])
for row in table.rows:
    prefill, decode = (row.prediction.phases[name].tokens_per_s for name in ("prefill", "decode"))
    print(f"{row.choice['weights']:7} prefill {prefill:5.0f}  decode {decode:4.0f} tokens/s")

# %% [markdown]
# Does it fit? The answer lists what needs memory, and what would help where it does not fit.

# %%
large = orchard.predict("llama-3.1-70b", chip="m4", weights="q8_0")
print("fits:", large.memory.fits)
for warning in large.warnings:
    print(warning)
