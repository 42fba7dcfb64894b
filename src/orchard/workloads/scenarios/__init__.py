"""Scenarios: several streams of requests on one SoC, as YAML."""

from orchard.workloads.scenarios.schema import (
    Arrival,
    Cascade,
    Load,
    Scenario,
    ScenarioError,
    StreamSpec,
    UserSpec,
    load_scenario,
    parse_scenario,
    scenario_names,
)

__all__ = [
    "Arrival",
    "Cascade",
    "Load",
    "Scenario",
    "ScenarioError",
    "StreamSpec",
    "UserSpec",
    "load_scenario",
    "parse_scenario",
    "scenario_names",
]
