"""Layer 2: ops with numbers, loop nests, tiles and the lattice a mapper searches."""

from orchard.mapping.errors import ImpossibleSpace, MappingError
from orchard.mapping.nest import Keep, Loop, Nest, nest_errors, print_nest
from orchard.mapping.problem import Problem

__all__ = ["ImpossibleSpace", "Keep", "Loop", "MappingError", "Nest", "Problem", "nest_errors", "print_nest"]
