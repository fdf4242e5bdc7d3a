"""Files of weights, in the wrappings of other programs, and files that are something else."""

from __future__ import annotations

import random
import re
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from rga_timm.weights_file import not_finite, read_weights, read_weights_and_epoch

pytestmark = pytest.mark.faults


def weights() -> dict[str, Tensor]:
    return {
        "conv.weight": torch.arange(6.0).view(2, 3),
        "bn.running_var": torch.ones(2),
        "bn.num_batches_tracked": torch.tensor(3),
    }


def save(path: Path, content: Any, **options: Any) -> Path:
    torch.save(content, path, **options)
    return path


def is_ours(found: dict[str, Tensor]) -> bool:
    return found.keys() == weights().keys() and all(
        torch.equal(value, found[name]) for name, value in weights().items()
    )


OPTIMIZER = {"state": {0: {"exp_avg": torch.ones(2)}}, "param_groups": [{"lr": 0.1}]}


@pytest.mark.parametrize(
    "wrapped",
    [
        lambda w: w,
        *(
            lambda w, name=name: {"epoch": 3, name: w, "optimizer": OPTIMIZER}
            for name in (
                "state_dict", "model", "net", "network", "model_state_dict",
                "state_dict_ema", "model_ema",
            )
        ),
        lambda w: {"state_dict": {k: v + 1 for k, v in w.items()}, "state_dict_ema": w},
        lambda w: {"model": {"state_dict": w}},
        lambda w: {"model_ema": None, "model": w},
        lambda w: {**w, "epoch": 3, "best": 0.5, "name": "a", "optimizer": OPTIMIZER},
        lambda w: {f"module.{k}": v for k, v in w.items()},
        lambda w: {f"_orig_mod.module.{k}": v for k, v in w.items()},
        lambda w: {"state_dict": {f"model.{k}": v for k, v in w.items()}},
    ],
)  # fmt: skip
def test_weights_are_found_in_every_wrapping(
    wrapped: Callable[[dict[str, Tensor]], Any], tmp_path: Path
) -> None:
    assert is_ours(read_weights(save(tmp_path / "a.pth", wrapped(weights()))))


@pytest.mark.parametrize("is_zip", [True, False])
def test_numbers_of_numpy_beside_the_weights_do_no_harm(is_zip: bool, tmp_path: Path) -> None:
    content = {
        "net": weights(), "epoch": 7, "best": np.float64(0.5), "step": np.int64(3),
        "losses": [np.float32(1), np.ones(3)],
    }  # fmt: skip
    file = save(tmp_path / "a.pth", content, _use_new_zipfile_serialization=is_zip)
    found, epoch = read_weights_and_epoch(file)
    assert is_ours(found)
    assert epoch == 7
    if not is_zip:  # written with NumPy 1
        file.write_bytes(file.read_bytes().replace(b"cnumpy._core.", b"cnumpy.core."))
        assert is_ours(read_weights(file))


def test_the_content_counts_not_the_name(tmp_path: Path) -> None:
    save_file(weights(), tmp_path / "a.pth")
    assert is_ours(read_weights(tmp_path / "a.pth"))
    assert is_ours(read_weights(save(tmp_path / "b.safetensors", weights())))


class Trap:
    def __init__(self, file: Path) -> None:
        self.file = file

    def __reduce__(self) -> Any:
        return exec, (f"open({str(self.file)!r}, 'w').close()",)


def cut(path: Path, write: Callable[..., Any], **options: Any) -> None:
    write(weights(), path, **options)
    path.write_bytes(path.read_bytes()[:-70])


def quantised() -> Tensor:
    return torch.quantize_per_tensor(torch.ones(4), 0.1, 0, torch.qint8)


def contains_itself(path: Path) -> None:
    content: dict[str, Any] = {}
    content["model"] = content
    torch.save(content, path)


@pytest.mark.parametrize(
    ("write", "message"),
    [
        (lambda p: p.write_bytes(b""), "it is empty: copy or download it again"),
        (lambda p: p.write_text("\n<!DOCTYPE html><html>"), "it is a web page: download the file"),
        (
            lambda p: p.write_text("version https://git-lfs.github.com/spec/v1\noid sha256:0\n"),
            "it is a pointer of Git LFS, which `git lfs pull` replaces",
        ),
        (lambda p: p.write_text("hello"), "it is no file of torch.save or safetensors"),
        (lambda p: cut(p, torch.save), "it is cut short"),
        (
            lambda p: cut(p, torch.save, _use_new_zipfile_serialization=False),
            "it is no file of torch.save or safetensors, or is damaged",
        ),
        (lambda p: cut(p, save_file), r"it is damaged or cut short \(.*\): copy or download"),
        (lambda p: np.savez(p.open("wb"), a=np.ones(2)), r"an archive of 1 \(a\.npy\), not of tor"),
        (lambda p: save(p, OPTIMIZER), "it is the state of an optimizer"),
        (lambda p: save(p, [weights()]), "it holds a list, not a state dict"),
        (lambda p: save(p, {}), "its entries, 0, are no tensors"),
        (lambda p: save(p, {"epoch": 3, "lr": 0.1}), r"its entries, 2 \(epoch, lr\), are no tens"),
        (
            lambda p: save(p, {"teacher": weights(), "student": weights(), "step": 3}),
            r"none of its entries, 3 \(teacher, student, step\), is known .* may be in 2 \(teacher,"
            r" student\): save that one alone",
        ),
        (contains_itself, r"its entries, 1 \(model\), are no tensors"),
        (lambda p: save(p, {"a": nn.Linear(2, 2)}), r"more than tensors .*Linear\), which could"),
        (lambda p: save(p, {"w": torch.ones(2, dtype=torch.int8)}), "quantised, 1 .w torch.int8."),
        (lambda p: save(p, {"a.weight": torch.ones(2, dtype=torch.int32)}), "quantised, 1 .a.wei"),
        (lambda p: save(p, {"a.weight": quantised()}), "quantised, 1 .a.weight torch.qint8."),
        (
            lambda p: save(p, {"w": torch.ones(2).to(torch.float8_e4m3fn)}),
            "quantised, 1 .w torch.float8_e4m3fn.: take the weights in floating point",
        ),
        (
            lambda p: save_file({"w": torch.ones(2, dtype=torch.uint8)}, p),
            "quantised, 1 .w U8.",
        ),
    ],
)
@pytest.mark.filterwarnings("ignore")  # newer torch is about to give up its own quantisation
def test_what_is_no_file_of_weights_is_called_by_its_name(
    write: Callable[[Path], Any], message: str, tmp_path: Path
) -> None:
    file = tmp_path / "file.pth"
    write(file)
    with pytest.raises(ValueError, match=f"{file} holds no weights that can be read: ") as error:
        read_weights(file)
    assert re.search(message, str(error.value)), error.value
    assert "\n" not in str(error.value)
    assert "weights_only" not in str(error.value)  # torch's advice to unpickle without checks


def test_no_code_in_a_file_is_run(tmp_path: Path) -> None:
    file = save(tmp_path / "a.pth", {"net": weights(), "trap": Trap(tmp_path / "sprung")})
    with pytest.raises(ValueError, match=r"more than tensors and plain values \(exec\)"):
        read_weights(file)
    assert not (tmp_path / "sprung").exists()


@pytest.mark.parametrize("kind", ["zip", "legacy", "safetensors"])
def test_damage_anywhere_is_an_error_of_one_kind(kind: str, tmp_path: Path) -> None:
    file = tmp_path / "a.pth"
    if kind == "safetensors":
        save_file(weights(), file)
    else:
        save(file, {"net": weights()}, _use_new_zipfile_serialization=kind == "zip")
    whole, choose = file.read_bytes(), random.Random(0)
    for _ in range(150):
        damaged = bytearray(whole)
        place = choose.randrange(len(whole))
        if choose.random() < 0.3:
            del damaged[place:]
        else:
            damaged[place] ^= 1 << choose.randrange(8)
        file.write_bytes(damaged)
        with suppress(ValueError):  # a flipped bit of a number cannot be seen
            read_weights(file)


def test_values_that_are_not_finite_are_named_and_counted() -> None:
    values = weights()
    assert not_finite(values) is None
    values["conv.weight"][1] = torch.nan
    values["bn.running_var"][0] = -torch.inf
    text = "4 values are NaN or infinite, in 2 (conv.weight, bn.running_var)"
    assert not_finite(values) == text
