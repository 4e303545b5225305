"""Workarounds for faults and habits of JAX, XLA and OpenBLAS: one table, `WORKAROUNDS`, and their code.

`python -m elbojax.workarounds` prints the table and runs the reproductions with the installed versions.
`ELBOJAX_WORKAROUNDS=-lapack,-constants` leaves out those named.
"""

from elbojax.workarounds.base import Workaround as Workaround
from elbojax.workarounds.base import is_on as is_on
from elbojax.workarounds.constants import replace_constants as replace_constants
from elbojax.workarounds.lapack import replace_lapack as replace_lapack
from elbojax.workarounds.table import WORKAROUNDS as WORKAROUNDS
from elbojax.workarounds.ynn import replace_ynn as replace_ynn


def install() -> None:
    """Those that change JAX in this process, where the installed version needs them."""
    replace_lapack()
    replace_constants()
    replace_ynn()
