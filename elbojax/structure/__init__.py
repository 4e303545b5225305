"""What the pattern of the Hessian says about a posterior: leading coordinates, a border, independent latent components."""

from elbojax.structure.find import find_structure
from elbojax.structure.record import Structure

__all__ = ["Structure", "find_structure"]
