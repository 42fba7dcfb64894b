"""What a chip costs to build: die area by block, voltage and energy by clock, dollars and carbon. Array functions.

Everything takes `HardwareArrays` and broadcasts: one call prices a chip or a million variants of it.
"""

from orchard.cost.silicon.area import PRICED, Area, die_area, known_die, node_of
from orchard.cost.silicon.coefficients import Coefficient, coefficient, table
from orchard.cost.silicon.price import Price, carbon_g, die_price_usd, die_yield, dies_per_wafer, price
from orchard.cost.silicon.voltage import VOLTAGE_DOMAINS, energy_factor, voltage_v

__all__ = [
    "PRICED",
    "VOLTAGE_DOMAINS",
    "Area",
    "Coefficient",
    "Price",
    "carbon_g",
    "coefficient",
    "die_area",
    "die_price_usd",
    "die_yield",
    "dies_per_wafer",
    "energy_factor",
    "known_die",
    "node_of",
    "price",
    "table",
    "voltage_v",
]
