"""MATLAB files of version 4 to 7, as data sets keep their partitions in them."""

from pathlib import Path
from typing import Any

import numpy as np


def load_mat(path: Path, names: list[str]) -> dict[str, Any]:
    """The wanted variables of a MATLAB file, as `scipy.io.loadmat` gives them.

    Raises:
        FileNotFoundError: There is no such file.
        ValueError: It is not a MATLAB file of version 4 to 7, or lacks one of the variables.
    """
    from scipy.io import loadmat  # here, since few need it and importing it takes long

    if not path.is_file():
        raise FileNotFoundError(f"there is no file {path}")
    try:
        content = loadmat(str(path), variable_names=names)
    except Exception as error:  # its parser stumbles over other bytes in many ways
        raise ValueError(
            f"{path} is not a MATLAB file of version 4 to 7: is it cut off, or a web page? "
            f"({error})"
        ) from error
    if missing := [name for name in names if name not in content]:
        from scipy.io import whosmat

        there = ", ".join(name for name, *_ in whosmat(str(path))) or "nothing"
        raise ValueError(f"{path} holds no {missing[0]}, but {there}")
    return content


def read_matrix(path: Path, name: str) -> np.ndarray:
    """One variable of a MATLAB file: (rows, columns) int64; a vector is one row or column.

    Raises:
        FileNotFoundError: There is no such file.
        ValueError: `load_mat` cannot read the variable, or it is something else.
    """
    matrix = np.asarray(load_mat(path, [name])[name])
    if matrix.ndim == 2 and matrix.dtype.kind in "iuf":
        with np.errstate(invalid="ignore"):  # of NaN
            numbers = matrix.astype(np.int64)
        if (numbers == matrix).all():
            return numbers
    raise ValueError(f"{name} in {path} is not a matrix of whole numbers")
