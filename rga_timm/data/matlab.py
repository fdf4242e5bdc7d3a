"""Matrices of whole numbers from MATLAB files, as data sets keep their partitions in them."""

from pathlib import Path

import numpy as np


def read_matrix(path: Path, name: str) -> np.ndarray:
    """One variable of a MATLAB file, of whole numbers.

    Args:
        path: Of a file of version 4 to 7; newer ones are HDF5.
        name: Of the variable.

    Returns:
        (rows, columns) int64. MATLAB knows no vectors: they are matrices of one row or column.

    Raises:
        FileNotFoundError: There is no such file.
        ValueError: It is no such MATLAB file, lacks the variable, or holds something else in it.
    """
    from scipy.io import loadmat  # here, since few need it and importing it takes long

    if not path.is_file():
        raise FileNotFoundError(f"there is no file {path}")
    try:
        content = loadmat(str(path))
    except Exception as error:  # its parser stumbles over other bytes in many ways
        raise ValueError(f"{path} is not a MATLAB file of version 4 to 7: {error}") from error
    if name not in content:
        there = ", ".join(key for key in content if not key.startswith("__")) or "nothing"
        raise ValueError(f"{path} holds no {name}, but {there}")
    matrix = np.asarray(content[name])
    if matrix.ndim == 2 and matrix.dtype.kind in "iuf":
        with np.errstate(invalid="ignore"):  # of NaN
            numbers = matrix.astype(np.int64)
        if (numbers == matrix).all():
            return numbers
    raise ValueError(f"{name} in {path} is not a matrix of whole numbers")
