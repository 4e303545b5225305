"""Leading coordinates, a border, independent latent components: found from the Hessian's pattern, and integrated out."""

from elbojax.structure.correct import Corrected
from elbojax.structure.find import find_structure
from elbojax.structure.nested import Conditional, Nested, NestedStatus, integrate_out
from elbojax.structure.record import Structure

__all__ = ["Conditional", "Corrected", "Nested", "NestedStatus", "Structure", "find_structure", "integrate_out"]
