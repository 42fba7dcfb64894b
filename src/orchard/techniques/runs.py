"""Techniques that change how a model is run: drafts, batches, steps, what stays on chip, where weights come from.

They hold options only. `orchard.studies.technique_runs` prices them with the engine model.
"""

from __future__ import annotations

from abc import ABC
from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

from orchard.techniques.base import RunTechnique, option
from orchard.techniques.errors import TechniqueError

STATIC = "verification of a varying number of rows needs dynamic shapes, which a Neural Engine program does not have"
NO_ROUTE = "weights chosen at run time would have to be gathered, which the Neural Engine has no op for"


@dataclass(frozen=True, slots=True, kw_only=True)
class Speculation(RunTechnique, ABC):
    """Drafted tokens that one pass of `rows` rows verifies. E tokens per round: (1 - a^(g+1)) / (1 - a) (arXiv 2211.17192)."""

    refused: ClassVar[Mapping[str, str]] = {"ane": STATIC}

    @property
    def rows(self) -> int:
        """Rows of a verification pass."""
        raise NotImplementedError

    @property
    def tokens_per_round(self) -> float:
        """Expected tokens that a round yields."""
        raise NotImplementedError


def expected_tokens(acceptance: float, drafted: int) -> float:
    """Sum of a^i for i = 0..g: the accepted run and the token that ends it."""
    return sum(acceptance**i for i in range(drafted + 1))


TOKENS = "tokens drafted per round"
ACCEPT = "probability that a drafted token is accepted"


@dataclass(frozen=True, slots=True, kw_only=True)
class Chain(Speculation, ABC):
    """One run of drafted tokens per round, each accepted alike; a pass of tokens+1 rows verifies it."""

    tokens: int = option(4, TOKENS, least=1, most=64)
    acceptance: float = option(0.7, ACCEPT, least=0.0, most=1.0)

    @property
    def rows(self) -> int:
        return self.tokens + 1

    @property
    def tokens_per_round(self) -> float:
        return expected_tokens(self.acceptance, self.tokens)

@dataclass(frozen=True, slots=True, kw_only=True)
class Speculative(Chain):
    """before:  one pass of one row per token
    after:   `tokens` passes of the draft model and one pass of tokens+1 rows per round
    """

    name: ClassVar[str] = "speculative"
    draft: str = option("", "the draft model (`orchard models`)")
    weights: str = option("", "weight format of the draft; empty: that of the target")

    def __post_init__(self) -> None:
        super(Speculative, self).__post_init__()
        if not self.draft:
            raise TechniqueError("speculative: draft= is missing, expected a model such as draft=llama-3.2-1b")


@dataclass(frozen=True, slots=True, kw_only=True)
class ParallelDraft(Chain):
    """before:  the GPU drafts, then verifies
    after:   the Neural Engine drafts the next round while the GPU verifies this one
    """

    name: ClassVar[str] = "parallel-draft"
    draft: str = option("", "the draft model (`orchard models`)")
    weights: str = option("", "weight format of the draft; empty: coreml-lut4")

    def __post_init__(self) -> None:
        super(ParallelDraft, self).__post_init__()
        if not self.draft:
            raise TechniqueError("parallel-draft: draft= is missing, expected a model such as draft=llama-3.2-1b")


@dataclass(frozen=True, slots=True, kw_only=True)
class MultiTokenHeads(Chain):
    """before:  one pass of one row per token
    after:   one pass of tokens+1 rows per round; the extra heads cost `cost` of the target's pass each
    """

    name: ClassVar[str] = "multi-token-heads"
    tokens: int = option(1, TOKENS, least=1, most=64)
    acceptance: float = option(0.8, ACCEPT, least=0.0, most=1.0)
    cost: float = option(0.02, "one head pass as a share of a target pass", least=0.0, most=1.0)


@dataclass(frozen=True, slots=True, kw_only=True)
class Eagle(Chain):
    """before:  one pass of one row per token
    after:   `tokens` passes of one decoder layer and the head, one pass of tokens+1 rows
    """

    name: ClassVar[str] = "eagle"
    acceptance: float = option(0.75, ACCEPT, least=0.0, most=1.0)


@dataclass(frozen=True, slots=True, kw_only=True)
class ReDrafter(Speculation):
    """before:  one pass of one row per token
    after:   a pass of beams * length rows per round; beams raise the chance that one of them is right

    A beam starts with the token that the last pass gave, so a round drafts length - 1 tokens (ml-recurrent-drafter,
    modeling_drafter.py). A position counts as accepted when any beam is right: 1 - (1 - a)^(1 + spread (beams - 1)). Beams of
    one drafter differ little: 2.4 tokens per step with one beam of 5 (M1 Max, 1.37 x 1.77) and with four of 4 (M2 Ultra,
    0.75 x 3.23) give a = 0.6 and a spread near 0.1, both from the tables beside that code.
    """

    name: ClassVar[str] = "redrafter"
    beams: int = option(1, "beams", least=1, most=64)
    length: int = option(5, "tokens per beam, the first one known", least=2, most=64)
    acceptance: float = option(0.6, "probability that a token of one beam is accepted", least=0.0, most=1.0)
    spread: float = option(0.1, "how far beams are independent guesses, 0 to 1", least=0.0, most=1.0)

    @property
    def rows(self) -> int:
        return self.beams * self.length

    @property
    def tokens_per_round(self) -> float:
        guesses = 1.0 + self.spread * (self.beams - 1)
        return expected_tokens(1.0 - (1.0 - self.acceptance) ** guesses, self.length - 1)


@dataclass(frozen=True, slots=True, kw_only=True)
class PromptLookup(Chain):
    """before:  one pass of one row per token
    after:   on a match one pass of tokens+1 rows, else one row; drafting costs nothing
    """

    name: ClassVar[str] = "prompt-lookup"
    tokens: int = option(10, TOKENS, least=1, most=64)
    match: float = option(0.5, "share of rounds with a match", least=0.0, most=1.0)
    acceptance: float = option(0.6, ACCEPT, least=0.0, most=1.0)


@dataclass(frozen=True, slots=True, kw_only=True)
class EarlyExit(Chain):
    """before:  one pass of one row per token
    after:   `tokens` passes of the first `exit` layers, one pass of tokens+1 rows
    """

    name: ClassVar[str] = "early-exit"
    exit: int = option(8, "layers of a draft pass", least=1, most=1000)
    tokens: int = option(6, TOKENS, least=1, most=64)
    acceptance: float = option(0.6, ACCEPT, least=0.0, most=1.0)


@dataclass(frozen=True, slots=True, kw_only=True)
class Batching(RunTechnique):
    """before:  B = 1
    after:   B = size   # tokens per second sum over the sequences
    """

    name: ClassVar[str] = "batching"
    size: int = option(4, "sequences at once", least=2, most=4096)


@dataclass(frozen=True, slots=True, kw_only=True)
class StepReduction(RunTechnique):
    """before:  20 passes of the denoiser
    after:   `steps` passes
    """

    name: ClassVar[str] = "step-reduction"
    steps: int = option(4, "denoising steps", least=1, most=10000)


@dataclass(frozen=True, slots=True, kw_only=True)
class FeatureCache(RunTechnique):
    """before:  every step runs the whole denoiser
    after:   one step in `interval` does; the others run its outermost `blocks` resolution levels
    """

    name: ClassVar[str] = "feature-cache"
    interval: int = option(3, "steps from one whole pass to the next", least=2, most=100)


@dataclass(frozen=True, slots=True, kw_only=True)
class FlashAttention(RunTechnique):
    """before:  %s = einsum(%q, %k), %p = softmax(%s), %y = einsum(%p, %v), three kernels, scores in memory
    after:   one kernel, scores on chip   # `on=false` takes it away
    """

    name: ClassVar[str] = "flash-attention"
    refused: ClassVar[Mapping[str, str]] = {
        "ane": "the compiler decides how attention runs; there is no kernel to choose"
    }
    on: bool = option(True, "false: scores, softmax and values as kernels of their own")


@dataclass(frozen=True, slots=True, kw_only=True)
class Fusion(RunTechnique):
    """before:  %y = einsum(%x, %w), %z = elementwise(%y) fn="silu", two kernels
    after:   one kernel   # `on=false` takes all fusion away but that of attention
    """

    name: ClassVar[str] = "fusion"
    on: bool = option(True, "false: every op a kernel of its own")


@dataclass(frozen=True, slots=True, kw_only=True)
class PrefillChunk(RunTechnique):
    """before:  a prompt in passes of the runtime's own size (512 rows in most)
    after:   in passes of `tokens` rows   # weights are read, and expanded, once per pass
    """

    name: ClassVar[str] = "prefill-chunk"
    tokens: int = option(2048, "rows of a pass over all sequences", least=1, most=65536)


@dataclass(frozen=True, slots=True, kw_only=True)
class ActivationSparsity(RunTechnique):
    """before:  a decode step reads all weights
    after:   a step of r rows reads 1 - sparsity^r of the rows of each matrix, one more launch per layer predicts which
    """

    name: ClassVar[str] = "activation-sparsity"
    refused: ClassVar[Mapping[str, str]] = {"ane": NO_ROUTE}
    sparsity: float = option(0.4, "share of inputs that count as zero", least=0.01, most=0.99)


@dataclass(frozen=True, slots=True, kw_only=True)
class ExpertOffload(RunTechnique):
    """before:  all experts in DRAM
    after:   a share `hit` of the chosen experts is found there, the rest is read from flash at `ssd` GB/s
    """

    name: ClassVar[str] = "expert-offload"
    refused: ClassVar[Mapping[str, str]] = {"ane": NO_ROUTE}
    hit: float = option(0.7, "share of chosen experts found in DRAM", least=0.0, most=1.0)
    ssd: float = option(6.0, "flash, GB/s", least=0.1, most=50.0)


@dataclass(frozen=True, slots=True, kw_only=True)
class FlashOffload(RunTechnique):
    """before:  all weights in DRAM
    after:   a share `resident` of them is; of the others each token reads 1 - sparsity from flash at `ssd` GB/s
    """

    name: ClassVar[str] = "flash-offload"
    refused: ClassVar[Mapping[str, str]] = {"ane": NO_ROUTE}
    resident: float = option(0.5, "share of the weights in DRAM", least=0.0, most=1.0)
    sparsity: float = option(0.0, "share of the others that a token does not need", least=0.0, most=0.999)
    ssd: float = option(6.0, "flash, GB/s", least=0.1, most=50.0)


@dataclass(frozen=True, slots=True, kw_only=True)
class PrefillDecodeSplit(RunTechnique):
    """before:  the GPU reads the prompt and generates
    after:   the Neural Engine reads the prompt, its cache is copied, the GPU generates; two copies of the weights
    """

    name: ClassVar[str] = "prefill-decode-split"
