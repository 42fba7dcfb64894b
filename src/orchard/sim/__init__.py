"""Deterministic event simulation of a SoC: engines, shared memory bandwidth, operating points, heat, traces. Layer 4.

Time is integer picoseconds. The simulator knows programs (ops with a time, bytes and joules), streams of requests and a machine;
it knows no model, no runtime and no study.
"""

from orchard.sim.arrivals import Arrivals, Closed, Periodic, Poisson, Times, Triggered
from orchard.sim.errors import SimError, TraceError
from orchard.sim.heat import Chassis, Heat, Node
from orchard.sim.machine import EngineSpec, Machine, OperatingPoint
from orchard.sim.program import PS, Call, Program, Stage, Workload
from orchard.sim.results import Outcome
from orchard.sim.simulator import MemoryUser, Simulator, Stream, Successor
from orchard.sim.trace import TraceWriter, check_trace

__all__ = [
    "PS",
    "Arrivals",
    "Call",
    "Chassis",
    "Closed",
    "EngineSpec",
    "Heat",
    "Machine",
    "MemoryUser",
    "Node",
    "OperatingPoint",
    "Outcome",
    "Periodic",
    "Poisson",
    "Program",
    "SimError",
    "Simulator",
    "Stage",
    "Stream",
    "Successor",
    "Times",
    "TraceError",
    "TraceWriter",
    "Triggered",
    "Workload",
    "check_trace",
]
