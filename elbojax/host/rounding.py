"""How finely numbers are known, by the numbers themselves."""

import numpy as np

EPS, EPS_SINGLE = float(np.finfo(float).eps), float(np.finfo(np.float32).eps)


def spacing(values: np.ndarray) -> float:
    """The relative spacing of numbers: that of single precision where all of them are such numbers, whatever their dtype.

    Args:
      values: any shape; what is not finite does not count.

    Returns:
      Scalar.

    Example:
      >>> spacing(np.array([0.1, 0.5])) < 1e-15, spacing(np.float32([0.1, 0.5]).astype(float)) > 1e-8
      (True, True)
    """
    finite = values[np.isfinite(values)]
    return EPS_SINGLE if np.all(finite == finite.astype(np.float32)) else EPS
