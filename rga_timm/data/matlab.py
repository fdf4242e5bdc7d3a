"""MATLAB files of version 4 to 7, in which data sets keep their partitions."""

from pathlib import Path
from typing import Any

import numpy as np


def load_mat(path: Path, names: list[str]) -> dict[str, Any]:
    """Read variables of a MATLAB file, as `scipy.io.loadmat` gives them.

    Raises:
        FileNotFoundError: There is no such file.
        ValueError: It is not a MATLAB file of version 4 to 7, or lacks one of the variables.
    """
    from scipy.io import loadmat, whosmat  # here, since few need it and importing it takes long

    if not path.is_file():
        raise FileNotFoundError(f"there is no file {path}")
    try:
        content = loadmat(str(path), variable_names=names)
    except Exception as error:  # its parser fails on other files in many ways
        text = f"{path} is not a MATLAB file of version 4 to 7: is it cut off, or a web page?"
        raise ValueError(f"{text} ({error})") from error
    if missing := [name for name in names if name not in content]:
        found = ", ".join(name for name, *_ in whosmat(str(path))) or "nothing"
        raise ValueError(f"{path} holds no {missing[0]}, but {found}")
    return content


def read_matrix(path: Path, name: str) -> np.ndarray:
    """Read a variable as (rows, columns) int64; a vector is one row or column.

    Raises `load_mat`'s errors, and a ValueError if it is not a matrix of whole numbers.
    """
    matrix = np.asarray(load_mat(path, [name])[name])
    if matrix.ndim == 2 and matrix.dtype.kind in "iuf":
        with np.errstate(invalid="ignore"):  # of NaN
            numbers = matrix.astype(np.int64)
        if (numbers == matrix).all():
            return numbers
    raise ValueError(f"{name} in {path} is not a matrix of whole numbers")
