import numpy as np
import pytest
import scipy.io

from rga_timm.data.matlab import read_matrix


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16, np.int32, np.float64])
def test_a_matrix_comes_as_whole_numbers_whatever_its_type(tmp_path, dtype):
    path = tmp_path / "a.mat"
    scipy.io.savemat(path, {"a": np.array([[1, 2, 255]], dtype=dtype), "b": 7})
    matrix = read_matrix(path, "a")
    assert matrix.dtype == np.int64
    assert matrix.tolist() == [[1, 2, 255]]


@pytest.mark.parametrize("value", [np.array([[0.5]]), "text", np.array([[{}]], dtype=object)])
def test_what_is_no_matrix_of_whole_numbers_is_refused(tmp_path, value):
    scipy.io.savemat(tmp_path / "a.mat", {"a": value})
    with pytest.raises(ValueError, match=r"a in .*a\.mat is not a matrix of whole numbers"):
        read_matrix(tmp_path / "a.mat", "a")


def test_infinite_and_missing_numbers_are_refused(tmp_path):
    for value in (np.inf, np.nan):
        scipy.io.savemat(tmp_path / "a.mat", {"a": np.array([[value]])})
        with pytest.raises(ValueError, match="not a matrix of whole numbers"):
            read_matrix(tmp_path / "a.mat", "a")


def test_another_variable_or_file_is_told(tmp_path):
    path = tmp_path / "a.mat"
    with pytest.raises(FileNotFoundError, match=r"no file .*a\.mat"):
        read_matrix(path, "a")
    scipy.io.savemat(path, {"b": np.ones((2, 2))})
    with pytest.raises(ValueError, match=r"a\.mat holds no a, but b"):
        read_matrix(path, "a")
    whole = path.read_bytes()
    scipy.io.savemat(path, {"b": np.arange(400)}, do_compression=True)
    cut_off = [whole[:150], path.read_bytes()[:200]]
    for content in (b"", b"<html>not found</html>" * 20, b"MATLAB 7.3 MAT-file", *cut_off):
        path.write_bytes(content)
        with pytest.raises(ValueError, match=r"a\.mat is not a MATLAB file of version 4 to 7"):
            read_matrix(path, "b")
