"""The ideas that are tried: each makes a sheet from prices and measurements. A falsifier is written before it is tried."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from orchard.studies.propose import allocate, joint
from orchard.studies.propose.evidence import Evidence, interval, rank_correlation
from orchard.studies.propose.pricing import DRAFTED, KINDS, Device
from orchard.studies.propose.sheet import Falsifier, Figure, Sheet, figure

Floats = NDArray[np.float64]
LARGEST = "a model of 1.05 M parameters: directions only"
LEAST_GAIN = 0.01
"""Share of time that a combination has to save before it counts as one."""
FREE_BITS = (2, 3, 4, 8)
"""Bits per weight that an allocation may give a tensor."""
TABLES = {"tensor": 0, "16": 16, "4": 4, "1": 1}
"""Output channels that share a look-up table, by granularity; 0: all of a tensor."""


@dataclass(frozen=True)
class Setting:
    """Prices of the chips, and what was measured on the text the search sees (`seen`) and on the one it does not (`fresh`)."""

    model: str
    devices: Sequence[Device]
    seen: Evidence
    fresh: Evidence

    @property
    def gpus(self) -> list[Device]:
        """Devices that can verify rows."""
        return [d for d in self.devices if d.rows]


def verify_aware_bits(s: Setting) -> Sheet:
    """I1: bits and drafted tokens chosen together."""
    lines, figures, leaves = [], [], []
    for d in s.gpus:
        found = joint.points(d, s.seen)
        able = [p for p in found if p.loss <= joint.FLOORS[1] and not p.sparsity]
        fewest, winner = min(p.bits for p in able), min(able, key=lambda p: p.seconds)
        plain = min(p.seconds for p in able if p.bits == fewest and not p.draft_bits)
        leaves.append(winner.bits > fewest)
        lines.append(f"{d.chip} {d.engine}: {winner.describe()}, {plain / winner.seconds:.2f}x plain {fewest}-bit")
        figures.append(
            figure(f"gain over plain {fewest} bits, {d.chip} {d.engine}", plain / winner.seconds, "x", "estimate")
        )
    return Sheet(
        id="I1",
        title="Choose weight bits and drafted tokens together",
        origin="brief",
        hypothesis="Within a loss of 0.02 nats the fastest single stream often has more bits and a draft, not the "
        "fewest bits alone, since "
        "verification of r rows costs less, in passes, the more bits a pass reads.",
        formula="T(b, g, b_d) = (g t(b_d, 1) + t(b, g+1)) / E(a(b, b_d), g), E = (1 - a^(g+1)) / (1 - a)",
        prediction="; ".join(lines),
        experiment=f"Acceptance and loss on {s.seen.label}; times of {s.model} from the performance model, every pair "
        f"of bits and 1 to 8 tokens.",
        result=f"the optimum has more than the fewest bits on {sum(leaves)} of {len(leaves)} devices",
        falsifiers=(
            Falsifier(
                text="on at least three devices the optimum never leaves the fewest bits",
                found=f"{sum(leaves)} of {len(leaves)} leave",
                struck=None if len(leaves) < 3 else not any(leaves),
            ),
        ),
        figures=tuple(figures),
        scale=LARGEST,
    )


def lut_budget(s: Setting) -> Sheet:
    """I3: tables of palettes spent where they help."""
    settings = {name: f"palettize:bits=3,group={group}" for name, group in TABLES.items()}
    names, loss = s.seen.sensitivities(settings)
    tables = _table_counts(s.seen, names)
    lines, figures, gains = [], [], []
    for column, level in ((1, "16"), (2, "4")):
        budget = float(tables[:, column].sum())
        found = allocate.allocate(loss, [tables], [budget])
        mixed, even = (
            s.fresh.mixed_loss({n: settings[level_name] for n, level_name in zip(names, chosen)})
            for chosen in ([list(settings)[c] for c in found.choice], [level] * len(names))
        )
        gains.append(1 - float(mixed.mean()) / float(even.mean()))
        low, high = interval(even - mixed)
        lines.append(
            f"at the tables of one per {level} channels ({budget:.0f}): loss {even.mean():.4f} even, "
            f"{mixed.mean():.4f} by "
            f"sensitivity; difference {low:.4f} to {high:.4f}"
        )
        figures += [
            figure(f"loss saved at {budget:.0f} tables", gains[-1], "share", "measurement"),
            figure(f"loss of the allocation at {budget:.0f} tables, added up", found.loss, "nats/token", "estimate"),
            figure(f"least that any allocation can have at {budget:.0f} tables", found.bound, "nats/token", "bound"),
        ]
    return Sheet(
        id="I3",
        title="Spend palette tables where they help",
        origin="brief",
        hypothesis="Tables are free on the Neural Engine until they take as long as the stream; that budget should go "
        "to sensitive tensors.",
        formula="min sum dL_i(G_i) subject to sum o_i / G_i <= budget, 3-bit palettes, proved by mixed-integer programming",
        prediction="an allocation by sensitivity loses at least 5 % less than the same number of tables spread evenly",
        experiment=f"Sensitivities on {s.seen.label}; both allocations applied to {s.fresh.label}.",
        result="; ".join(lines),
        falsifiers=(
            Falsifier(
                text="the allocation gains less than 5 % of the loss at equal tables",
                found=f"gains {_percents(gains)}",
                struck=max(gains) < 0.05,
            ),
        ),
        figures=tuple(figures),
        scale=LARGEST,
    )


def _percents(values: Sequence[float]) -> str:
    return ", ".join(f"{v * 100:.1f} %" for v in values)


def _table_counts(evidence: Evidence, names: Sequence[str]) -> Floats:
    """Tables of each product [products, settings]."""
    from orchard.numerics.surgery import linears

    found = linears(evidence.bench.model)
    return np.array([[1.0 if g == 0 else found[n].out_features / g for g in TABLES.values()] for n in names])


def one_copy(s: Setting) -> Sheet:
    """I4: one format that both engines can read."""
    both, table, grid = "rtn:bits=4", "palettize:bits=3", "gptq:bits=3,group=64"
    losses = {t: float(s.fresh.loss(t).mean()) for t in (both, table, grid, "palettize:bits=4", "gptq:bits=4,group=64")}
    extra = losses[both] - min(losses["palettize:bits=4"], losses["gptq:bits=4,group=64"])
    dropped = min(losses[table], losses[grid])
    return Sheet(
        id="I4",
        title="One copy of the weights for two engines",
        origin="brief",
        hypothesis="A table per channel whose entries lie on an even grid reads as a palette on the Neural Engine and "
        "as integers on the "
        "GPU, so that prefill on one and decoding on the other keep one copy of the weights.",
        formula="capacity B instead of 2 B; loss d = L(table restricted to a grid) - min(L(table), L(blocks))",
        prediction="at 4 bits the restriction costs less than what equal capacity costs otherwise: each copy at 3 bits or fewer",
        experiment=f"4 bits per channel on an even grid against the best 3-bit table and grid, on {s.fresh.label}.",
        result=f"restricted {losses[both]:.4f}, {extra:.4f} over the better free 4-bit format; "
        f"the better 3-bit copy {dropped:.4f} nats per token",
        falsifiers=(
            Falsifier(
                text="the restricted format loses more than dropping each copy to 3 bits",
                found=f"{losses[both]:.4f} against {dropped:.4f}",
                struck=losses[both] >= dropped,
            ),
            Falsifier(
                text="the compiler of the Neural Engine packs the weights again for itself",
                found="needs a device",
                struck=None,
            ),
        ),
        figures=(
            figure("loss of the restricted format", losses[both], "nats/token", "measurement"),
            figure("loss of the better 3-bit copy", dropped, "nats/token", "measurement"),
        ),
        scale=LARGEST,
    )


def switch(s: Setting) -> Sheet:
    """I9: speculate or sparsify, step by step."""
    won = _won(s.seen)
    lines, figures, oracle, real = [], [], [], []
    for d in s.gpus[:3]:
        speculating = (2 * d.one[3] + d.rows[8, 3]) / d.one[8]
        sparse = min(1.0, d.sparse[8] / d.one[8])
        known, guessed = _switch_gains(won, speculating, sparse)
        oracle.append(known)
        real.append(guessed)
        lines.append(
            f"{d.chip} {d.engine}: knowing each round {known * 100:.1f} %, guessing from the last {guessed * 100:.1f} %"
        )
        figures.append(figure(f"gain of guessing, {d.chip} {d.engine}", guessed, "share", "estimate"))
    figures.append(figure("correlation of neighbouring rounds", joint.lag_one(won), "1", "measurement"))
    return Sheet(
        id="I9",
        title="Switch between speculation and skipped inputs",
        origin="brief",
        hypothesis="Skipped inputs and speculation exclude each other within a pass, so choosing per round by expected "
        "acceptance beats both.",
        formula="time of a round = min(g c + v(g+1), w (1 - s)) for the w tokens it wins",
        prediction="little: acceptance hardly depends on the last round",
        experiment=f"Rounds of two tokens drafted at 3 bits for 8 bits, sampled from {s.seen.label}; the rule is set "
        f"on half of the streams.",
        result="; ".join(lines) + f"; neighbouring rounds correlate by {joint.lag_one(won):.2f}",
        falsifiers=(
            Falsifier(
                text="even knowing each round gains less than 5 % over the better fixed choice",
                found=_percents(oracle),
                struck=max(oracle) < 0.05,
            ),
            Falsifier(
                text="a rule that looks at the last round gains less than 5 %",
                found=_percents(real),
                struck=max(real) < 0.05,
            ),
        ),
        figures=tuple(figures),
        scale=LARGEST,
    )


def _won(evidence: Evidence, *, rounds: int = 24, streams: int = 32) -> np.ndarray:
    """Tokens won [rounds, streams] by real sampling."""
    from orchard.numerics.speculation import sampler, speculate

    target, draft = evidence.changed("gptq:bits=8,group=64"), evidence.changed(joint.DRAFTS[3])
    found = speculate(
        sampler(target), sampler(draft), evidence.bench.rows[:streams, :32], tokens=2, rounds=rounds, seed=1
    )
    return found.won.numpy()


def _switch_gains(won: np.ndarray, speculating: float, sparse: float) -> tuple[float, float]:
    """(knowing, guessing): time of the better fixed choice over that of the switch, less one."""
    half = won.shape[1] // 2
    train, check = won[:, :half], won[:, half:]
    fixed = min(speculating * check.size, sparse * check.sum())
    known = np.minimum(speculating, sparse * check).sum()
    by_last = {w: float(train[1:][train[:-1] == w].mean()) for w in (1, 2, 3) if (train[:-1] == w).any()}
    expected = np.vectorize(lambda w: by_last.get(int(w), float(train.mean())))(check[:-1])
    guessed = np.where(speculating <= sparse * expected, speculating, sparse * check[1:]).sum()
    later = min(speculating * check[1:].size, sparse * check[1:].sum())
    return float(fixed / known - 1), float(later / guessed - 1)


def free_bits(s: Setting) -> Sheet:
    """I11: bits by latency instead of by bytes."""
    settings = {str(b): f"gptq:bits={b},group=64" for b in FREE_BITS}
    names, loss = s.seen.sensitivities(settings)
    lines, figures, ranks, gains, confirmed = [], [], [], [], []
    for d in [d for d in s.devices if all(b in d.one for b in FREE_BITS)]:
        seconds, size = (_shares(d, names, index) for index in (0, 1))
        budget = float(size[:, FREE_BITS.index(4)].sum())
        by_bytes = allocate.allocate(loss, [size], [budget])
        time = float(seconds[np.arange(len(names)), list(by_bytes.choice)].sum())
        by_time = allocate.allocate(loss, [seconds], [time * (1 + 1e-9)])
        ranks.append(rank_correlation(by_bytes.choice, by_time.choice))
        gains.append(1 - by_time.loss / by_bytes.loss)
        kept, taken = (s.fresh.mixed_loss(_texts(names, a.choice, settings)) for a in (by_bytes, by_time))
        confirmed.append(1 - float(taken.mean()) / float(kept.mean()))
        low, high = interval(kept - taken)
        proof = "proved" if by_bytes.proved and by_time.proved else "not proved"
        lines.append(
            f"{d.chip} {d.engine}: rank correlation {ranks[-1]:.2f}, predicted loss -{gains[-1] * 100:.1f} % "
            f"at equal time ({proof}), "
            f"on fresh text and seed -{confirmed[-1] * 100:.1f} % (difference {low:.4f} to "
            f"{high:.4f} nats)"
        )
        figures += [
            figure(f"loss by bytes, {d.chip} {d.engine}", float(kept.mean()), "nats/token", "measurement"),
            figure(f"loss by time, {d.chip} {d.engine}", float(taken.mean()), "nats/token", "measurement"),
            figure(
                f"least loss of any allocation within the time, {d.chip} {d.engine}",
                by_time.bound,
                "nats/token",
                "bound",
            ),
        ]
    same = all(r > 0.95 for r in ranks)
    return Sheet(
        id="I11",
        title="Bits by latency sensitivity",
        origin="brief",
        hypothesis="Some tensors cost no time per bit (launch-bound, small); giving them bits is free, so an "
        "allocation by loss per second "
        "beats one by loss per byte.",
        formula="min sum dL_i(b_i) subject to sum t_i(b_i) <= T, against the same with bytes; both proved by "
        "mixed-integer programming",
        prediction="; ".join(f"{d.chip} {d.engine}: {g * 100:.1f} %" for d, g in zip(s.devices, gains)),
        experiment=f"Sensitivity of every product at {', '.join(settings)} bits on {s.seen.label}, layers of {s.model} "
        f"standing for those at the same "
        f"depth; both allocations at the same predicted time on {s.fresh.label}.",
        result="; ".join(lines),
        falsifiers=(
            Falsifier(
                text="the two allocations rank tensors alike (correlation above 0.95) on every device",
                found=", ".join(f"{r:.2f}" for r in ranks),
                struck=same,
            ),
            Falsifier(
                text="the gain in loss at equal time is below 1 % on every device, as predicted and as measured "
                "on fresh text",
                found=f"predicted {_percents(gains)}; measured {_percents(confirmed)}",
                struck=max(confirmed) < LEAST_GAIN,
            ),
        ),
        figures=tuple(figures),
        scale=LARGEST,
    )


def _shares(device: Device, names: Sequence[str], index: int) -> Floats:
    """Seconds (index 0) or bytes (1) of the layers that each product of the fixture stands for [products, bits]."""
    layers = len({n.split(".")[1] for n in names})
    kinds = [n.rpartition(".")[2].removesuffix("_proj") for n in names]
    assert set(kinds) <= set(KINDS), kinds
    return np.array([[device.products[k, b][index] / layers for b in FREE_BITS] for k in kinds])


def _texts(names: Sequence[str], choice: Sequence[int], settings: Mapping[str, str]) -> dict[str, str]:
    texts = list(settings.values())
    return {name: texts[c] for name, c in zip(names, choice)}


def bit_planes(s: Setting) -> Sheet:
    """I12: the draft reads the leading bits of the target's weights."""
    nested, own, whole = "leading-bits:bits=8,kept=3", "rtn:bits=3", "rtn:bits=8"
    a_nested, a_own = (s.fresh.acceptance(whole, d) for d in (nested, own))
    gains = {
        f"{d.chip} {d.engine}": max(d.one[8] / joint.time_per_token(d, 8, 3, g, a_nested) for g in DRAFTED)
        for d in s.gpus
    }
    lines = [f"{name} {gain:.2f}x over plain 8 bits" for name, gain in gains.items()]
    figures = [figure(f"gain over plain 8 bits, {name}", gain, "x", "estimate") for name, gain in gains.items()]
    figures += [
        figure("acceptance of leading bits", a_nested, "1", "measurement"),
        figure("acceptance of 3 bits of its own", a_own, "1", "measurement"),
    ]
    return Sheet(
        id="I12",
        title="Speculation from the leading bits of the weights",
        origin="brief",
        hypothesis="A plane of the 3 leading bits drafts for the 8-bit sum of both planes: speculation without a byte "
        "of capacity.",
        formula="c = 3/8 of the bytes; S = E(a, g) / (g c + v(g+1))",
        prediction="; ".join(lines),
        experiment=f"Acceptance of nested against independent 3 bits for the 8-bit model on {s.fresh.label}.",
        result=f"acceptance {a_nested:.3f} nested, {a_own:.3f} independent",
        falsifiers=(
            Falsifier(
                text="nesting lowers acceptance by more than 0.1",
                found=f"by {a_own - a_nested:.3f}",
                struck=a_own - a_nested > 0.1,
            ),
            Falsifier(text="no priced device gains from it", found="; ".join(lines), struck=max(gains.values()) <= 1),
            Falsifier(
                text="reading planes apart loses more than a fifth of the bandwidth",
                found="needs a device",
                struck=None,
            ),
        ),
        figures=tuple(figures),
        scale=LARGEST,
    )


def found_by_search(s: Setting) -> list[Sheet]:
    """What the joint search finds: per device the combination that gains most over the best single technique at one loss."""
    out = []
    for d in s.gpus:
        found = joint.points(d, s.seen)
        gains = joint.gains(found)
        floor = max(gains, key=lambda f: gains[f])
        out.append(_searched(s, d, found, floor))
    return out


def _searched(s: Setting, d: Device, found: list[joint.Point], floor: float) -> Sheet:
    winner, single = joint.best(found, floor), joint.best(found, floor, parts=1)
    again = _confirmed(s, d, winner)
    alone = _confirmed(s, d, single)
    loss, gain = again["loss"], alone["seconds"] / again["seconds"]
    low, high = again["low"], again["high"]
    figures: tuple[Figure, ...] = (
        figure("predicted gain", single.seconds / winner.seconds, "x", "estimate"),
        figure("gain with fresh acceptance", gain, "x", "estimate"),
        figure("predicted loss", winner.loss, "nats/token", "estimate"),
        figure("loss on fresh text and seed", loss, "nats/token", "measurement"),
    )
    return Sheet(
        id=f"J-{d.chip}-{d.engine}",
        title=f"{winner.describe()} on the {d.engine} of {d.chip}",
        origin="search",
        hypothesis=f"Within a loss of {floor} nats, {winner.describe()} is faster on {d.chip} than any single "
        f"technique ({single.describe()}).",
        formula="T = (g t(b_d, 1) + t(b, g+1)) / E(a, g); losses of parts added; the draft needs capacity of its own",
        prediction=f"{single.seconds / winner.seconds:.2f}x: {winner.seconds * 1e3:.2f} against "
        f"{single.seconds * 1e3:.2f} ms per token of {s.model}; "
        f"loss {winner.loss:.4f}",
        experiment=f"{len(found)} combinations priced; found on {s.seen.label}; confirmed on {s.fresh.label}.",
        result=f"{gain:.2f}x with the acceptance found there; loss {loss:.4f} ({low:.4f} to {high:.4f})",
        falsifiers=(
            Falsifier(
                text="on fresh text and another seed the gain over the best single technique is below 5 %",
                found=f"{gain:.2f}x",
                struck=gain < 1.05,
            ),
            Falsifier(
                text=f"the loss there is above {floor} nats by more than its interval",
                found=f"{loss:.4f} ({low:.4f} to {high:.4f})",
                struck=low > floor,
            ),
        ),
        figures=figures,
        scale=LARGEST,
    )


def _confirmed(s: Setting, d: Device, p: joint.Point) -> dict[str, float]:
    """Loss and time per token of a point, asked again of the fresh subject."""
    text = p.text(d.engine)
    loss = s.fresh.loss(text) if text != "none" else np.zeros(s.fresh.sequences)
    low, high = interval(loss)
    seconds = p.seconds
    if p.draft_bits:
        acceptance = s.fresh.acceptance(joint.weights_of(p.bits, d.engine), joint.DRAFTS[p.draft_bits])
        seconds = joint.time_per_token(d, p.bits, p.draft_bits, p.drafted, acceptance)
    return {"loss": float(loss.mean()), "low": low, "high": high, "seconds": seconds}


def all_sheets(s: Setting, told: Any = None) -> list[Sheet]:
    """Every idea, those from the search last. `told` is called with the title of each before it is tried."""
    out: list[Sheet] = []
    for idea in (verify_aware_bits, lut_budget, one_copy, switch, free_bits, bit_planes):
        if told is not None:
            told((idea.__doc__ or idea.__name__).strip())
        out.append(idea(s))
    if told is not None:
        told("joint search")
    return out + found_by_search(s)
