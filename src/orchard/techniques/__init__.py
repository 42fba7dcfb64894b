"""Layer 2: techniques. Cards (what is known), claims (what was published), passes (what they do to a graph or a run)."""

from orchard.techniques.base import GraphPass, RunTechnique, Stage, Technique
from orchard.techniques.cards import ENGINES, Card, Option, card, cards_for, load_cards
from orchard.techniques.claims import Claim, claims_file, load_claims, read_claims
from orchard.techniques.errors import TechniqueError
from orchard.techniques.plugins import technique_plugins
from orchard.techniques.registry import (
    CONFLICTS,
    NO_RULE,
    TECHNIQUES,
    apply_pass,
    apply_passes,
    check_engine,
    parse_all,
    parse_technique,
    run_techniques,
    technique_class,
)

__all__ = [
    "CONFLICTS",
    "ENGINES",
    "NO_RULE",
    "TECHNIQUES",
    "Card",
    "Claim",
    "GraphPass",
    "Option",
    "RunTechnique",
    "Stage",
    "Technique",
    "TechniqueError",
    "apply_pass",
    "apply_passes",
    "card",
    "cards_for",
    "check_engine",
    "claims_file",
    "load_cards",
    "load_claims",
    "parse_all",
    "parse_technique",
    "read_claims",
    "run_techniques",
    "technique_class",
    "technique_plugins",
]
