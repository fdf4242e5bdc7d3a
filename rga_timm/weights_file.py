"""Read a file of weights, or say in one line what it is instead.

Nothing but tensors and plain values is ever unpickled.
"""

import pickle
import re
import zipfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file
from timm.models import clean_state_dict
from torch import Tensor

# Entries of a checkpoint that hold the network, the averaged weights first, as timm does.
_WRAPPERS = (
    "state_dict_ema", "model_ema", "state_dict", "model", "model_state_dict", "net", "network",
)  # fmt: skip
_PREFIXES = ("model.", "net.", "network.")  # of all names, where a network is wrapped in another
_PARAMETERS = ("weight", "bias", "running_mean", "running_var")
_AGAIN = "copy or download it again"


class _Beside:
    """Stands for a value beside the weights, such as a score of NumPy's, which is not needed."""

    def __init__(self, *_: Any) -> None:
        pass

    def __setstate__(self, _: Any) -> None:
        pass


# Of both NumPy 1 and 2, whichever is installed.
_BESIDE: list[Any] = [
    (_Beside, name)
    for name in (
        "argparse.Namespace", "numpy.dtype", "numpy.ndarray",
        "numpy.core.multiarray.scalar", "numpy.core.multiarray._reconstruct",
        "numpy._core.multiarray.scalar", "numpy._core.multiarray._reconstruct",
    )
]  # fmt: skip


def read_weights(file: str | Path) -> dict[str, Tensor]:
    """Read the state dict in a file of safetensors or of ``torch.save``, on the CPU.

    Raises:
        ValueError: The file is something else, or damaged; the message says what to do.
        OSError: It cannot be read.
    """
    return read_weights_and_epoch(file)[0]


def read_weights_and_epoch(file: str | Path) -> tuple[dict[str, Tensor], int | None]:
    """Read a file as :func:`read_weights` does, and the epoch that it records, if it does."""
    content = _load(Path(file))
    try:
        weights = state_dict_of(content)
    except ValueError as error:
        raise ValueError(f"{file} holds no weights that can be read: {error}") from error
    epoch = content.get("epoch")
    return weights, epoch if type(epoch) is int else None


def _load(file: Path) -> Any:
    check_file(file)
    try:
        if _is_safetensors(file, _start(file)):
            return load_file(file)
        # Opened, as torch looks at names, too.
        with torch.serialization.safe_globals(_BESIDE), file.open("rb") as stream:
            return torch.load(stream, map_location="cpu", weights_only=True)
    except OSError:
        raise
    except Exception as error:  # the readers of archives and pickles raise many kinds
        why = f"it is no file of torch.save or safetensors, or is damaged ({_first_line(error)})"
        if wanted := re.search(r"GLOBAL (\S+)", str(error)):
            why = (
                f"it holds more than tensors and plain values ({wanted[1]}), which could run any "
                "code when read. In the program that made it, save the model's state_dict() alone"
            )
        raise ValueError(f"{file} holds no weights that can be read: {why}") from error


def check_file(file: Path) -> None:
    """Check that a file may hold weights, by its first bytes and its table of contents.

    Raises:
        ValueError, OSError: As :func:`read_weights`.
    """
    if why := _what_instead(file):
        raise ValueError(f"{file} holds no weights that can be read: {why}")


def _what_instead(file: Path) -> str | None:
    start = _start(file)
    if not start:
        return f"it is empty: {_AGAIN}"
    if start.startswith(b"version https://git-lfs"):
        return "it is a pointer of Git LFS, which `git lfs pull` replaces by the file"
    if start.lstrip().startswith(b"<"):
        return "it is a web page: download the file itself"
    if start.startswith(b"PK"):
        return _what_archive(file)
    if not _is_safetensors(file, start):
        return None
    try:
        with safe_open(file, framework="pt") as tensors:
            kinds = {name: tensors.get_slice(name).get_dtype() for name in tensors.keys()}  # noqa: SIM118
    except SafetensorError as error:
        return f"it is damaged or cut short ({error}): {_AGAIN}"
    quantised = [f"{name} {kind}" for name, kind in kinds.items() if re.match("[IUF]8|F4", kind)]
    return _quantised(quantised) if quantised else None


def _what_archive(file: Path) -> str | None:
    if not zipfile.is_zipfile(file):
        return f"it is cut short, it begins as a file of torch.save and has no end: {_AGAIN}"
    try:
        with zipfile.ZipFile(file) as archive:
            names = [Path(name).name for name in archive.namelist()]
    except (zipfile.BadZipFile, ValueError, NotImplementedError) as error:
        return f"it is damaged ({error}): {_AGAIN}"
    if "constants.pkl" in names:
        return "it is a TorchScript archive: take the state dict that it was made from"
    if "data.pkl" not in names:
        return f"it is an archive of {some(names)}, not of torch.save"
    return None


def _start(file: Path) -> bytes:
    with file.open("rb") as stream:
        return stream.read(512)


def _is_safetensors(file: Path, start: bytes) -> bool:
    """Whether a file is of safetensors: a length in 8 bytes, then JSON; whatever its name."""
    is_of_torch = start.startswith((b"PK", b"\x80"))
    return start[8:9] == b"{" or (file.suffix == ".safetensors" and not is_of_torch)


def state_dict_of(content: Any) -> dict[str, Tensor]:
    """Find the network's state dict in a checkpoint: its tensors by name, without prefixes.

    Raises:
        ValueError: There is none, or its numbers are quantised.
    """
    for _ in range(4):  # a wrapper in a wrapper; not for ever, as a file may contain itself
        if not isinstance(content, Mapping):
            raise ValueError(f"it holds a {type(content).__name__}, not a state dict")
        inner = (content[name] for name in _WRAPPERS if isinstance(content.get(name), Mapping))
        content = next(filter(None, inner), content)
    weights = {str(name): v for name, v in content.items() if isinstance(v, Tensor)}
    groups = [str(name) for name, v in content.items() if _has_tensors(v)]
    if groups or not weights:
        raise ValueError(_what_entries(content, groups))
    weights = clean_state_dict(weights)
    for prefix in _PREFIXES:
        if all(name.startswith(prefix) for name in weights):
            weights = {name.removeprefix(prefix): value for name, value in weights.items()}
    if quantised := [f"{k} {v.dtype}" for k, v in weights.items() if _is_quantised(k, v)]:
        raise ValueError(_quantised(quantised))
    return weights


def _has_tensors(entry: Any) -> bool:
    return isinstance(entry, Mapping) and any(isinstance(v, Tensor) for v in entry.values())


def _what_entries(content: Mapping[Any, Any], groups: list[str]) -> str:
    if content.keys() >= {"state", "param_groups"}:
        return "it is the state of an optimizer: take the file with the network's state dict"
    names = some([*map(str, content)]) if content else "0"
    if groups:
        return (
            f"none of its entries, {names}, is known to be the network's state dict; it may be "
            f"in {some(groups)}: save that one alone"
        )
    return f"its entries, {names}, are no tensors and no state dict"


def _is_quantised(name: str, value: Tensor) -> bool:
    one_byte = value.dtype.itemsize == 1 and value.dtype != torch.bool
    is_whole = name.endswith(_PARAMETERS) and not value.is_floating_point()
    return value.is_quantized or one_byte or is_whole


def _quantised(tensors: list[str]) -> str:
    return f"its numbers are quantised, {some(tensors)}: take the weights in floating point"


def forget_weights(model: Any) -> Any:
    """Return a model without the state dict it was made from, which timm keeps in its config."""
    model.pretrained_cfg.pop("state_dict", None)
    return model


def not_finite(weights: Mapping[str, Tensor]) -> str | None:
    """Name the tensors with values that are NaN or infinite, and count the values."""
    # First the quick question.
    names = [name for name, value in weights.items() if not value.isfinite().all()]
    if not names:
        return None
    count = sum(int((~weights[name].isfinite()).sum()) for name in names)
    return f"{count} values are NaN or infinite, in {some(names)}"


def some(items: Sequence[str]) -> str:
    """How many items there are, and the first of them."""
    more = f" and {len(items) - 8} more" if len(items) > 8 else ""
    return f"{len(items)} ({', '.join(items[:8])}{more})"


def _first_line(error: Exception) -> str:
    # Of torch's advice, the second line is to unpickle without checks.
    if isinstance(error, pickle.UnpicklingError):
        return "the pickle in it cannot be read"
    return str(error).strip().partition("\n")[0] or type(error).__name__
