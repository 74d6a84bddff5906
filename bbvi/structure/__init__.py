"""Hierarchies found in a log density: given a few hyper-parameters, the other coordinates are independent in blocks.

The pattern of zeros of the Hessian is read off the program of the log density, so it holds at every point. Coordinates
that many others depend on are hyper-parameters, and so are those that change how curved the log density is in the
others, as scales do: given these, each block is nearly Gaussian.

References: Rue, Martino and Chopin 2009 (INLA); Kristensen et al. 2016 (TMB); Coleman and More 1984 (compressed
Hessians).
"""

from bbvi.structure.bending import bending
from bbvi.structure.find import Structure, find_structure, structure_of
from bbvi.structure.partition import partition
from bbvi.structure.pattern import hessian_pattern

__all__ = ["Structure", "bending", "find_structure", "hessian_pattern", "partition", "structure_of"]
