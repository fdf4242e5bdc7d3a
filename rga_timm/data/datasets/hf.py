"""`hf`: a data set of the Hugging Face Hub, or one on disk that `datasets` reads.

    hf:repo=OWNER/NAME,image=image,identity=label
    hf:identity=person                     with DIR instead of repo

DIR is what ``save_to_disk`` wrote, a folder that ``load_dataset`` reads (Parquet files, or images
in folders), or a Parquet file. Code that comes with a data set is never run. Images are read and
decoded only when they are needed.
"""

import logging
from collections.abc import Iterator, Mapping
from io import BytesIO
from pathlib import Path
from typing import Any, BinaryIO

from ..identity_split import DEFAULT_SEED, DEFAULT_SHARE, IdentitySplit
from ..named_images import SPLITS, NamedImage, choose_columns, image_of_row, splits_from_names
from ..registry import register_dataset
from ..splits import ReidSplits
from ..table_file import text_of

_logger = logging.getLogger(__name__)

_OPTION_OF = {"split": "split_column"}
_IMAGE_TYPES = ("string", "large_string", "binary", "large_binary")


@register_dataset("hf", title="a Hugging Face data set")
def hf(
    root: Path | None,
    *,
    repo: str | None = None,
    config: str | None = None,
    revision: str | None = None,
    image: str = "image",
    identity: str = "label",
    camera: str | None = "camera",
    split_column: str | None = None,
    train_split: str = "train",
    test_split: str = "test",
    test_share: float = DEFAULT_SHARE,
    seed: int = DEFAULT_SEED,
    split_file: str | None = None,
) -> ReidSplits:
    """Images of a Hugging Face data set; needs the package `datasets`.

    An image's path is SPLIT/ROW. If the names of all people (or of their classes) are whole
    numbers, these are the pids; else the pids are 1, 2, … in the sorted order of the names. Cameras
    are numbered in the same way. Without a test split or ``split_column``, people are split at
    random, as described in `rga_timm.data.identity_split`.

    Args:
        root: A data set on disk; None for one on the Hub.
        repo: OWNER/NAME on the Hub; None for one on disk.
        config: The repository's configuration, if it has several.
        revision: Commit, tag or branch of the repository. Only a commit never changes.
        image: Name of the column with the images.
        identity: Name of the column with the person.
        camera: Name of the column with the camera. The default column may be missing, another may
            not. None: cameras are not read.
        split_column: Name of a column with ``train``, ``query``, ``gallery`` or ``test``, which
            replaces the data set's own splits.
        train_split: The split to train on.
        test_split: The split whose images are both query and gallery. Other splits are used if
            their names are ``query``, ``gallery`` or ``validation``.
        test_share: The share of the people to test on, if there is no test split.
        seed: Of the random split, if there is no test split.
        split_file: File of the random split. The default is ``OWNER--NAME.split.csv`` in the
            current folder, or ``NAME.split.csv`` beside a data set on disk.
    """
    if (root is None) == (repo is None):
        given = "neither was given" if root is None else f"both were given, {repo} and {root}"
        raise ValueError(f"hf needs a data set of the Hub (repo=OWNER/NAME) or a folder: {given}")
    source = str(repo or root)
    if root is not None:
        parts = _load_local(root, config)
        kept_in = root.absolute().with_name(f"{root.absolute().name}.split.csv")
    else:
        parts = _load(source, config, revision=revision)
        kept_in = Path(f"{source.replace('/', '--')}.split.csv")
    split_of: dict[str, str | None] = dict.fromkeys(parts)
    if not split_column:
        split_of = _split_names(source, parts, train_split, test_split)
    wanted = {"identity": identity, "camera": camera, "split": split_column}
    images = [
        named if split_column else named._replace(split=split)
        for part, split in split_of.items()
        for named in _rows(f"{source}, {part}", part, parts[part], wanted)
    ]
    opener = RowOpener({part: parts[part] for part in split_of}, image, source, root)
    by_identity = IdentitySplit(kept_in, split_file, test_share, seed)
    return splits_from_names("hf", Path(source), images, by_identity, opener=opener)


class RowOpener:
    """Opens the image SPLIT/ROW; paths in the column start from ``folder``."""

    def __init__(
        self, parts: Mapping[str, Any], column: str, source: str, folder: Path | None
    ) -> None:
        self.column, self.folder = column, folder or Path()
        self.parts = {
            part: _undecoded(rows, column, f"{source}, {part}") for part, rows in parts.items()
        }

    def __call__(self, path: str) -> BinaryIO:
        """Open an image."""
        part, _, row = path.rpartition("/")
        value = self.parts[part][int(row)][self.column]
        if isinstance(value, dict):
            value = value["bytes"] if value["bytes"] is not None else value["path"]
        if value is None:
            raise ValueError("the row has no image")
        return BytesIO(value) if isinstance(value, bytes) else (self.folder / value).open("rb")


def _load_local(root: Path, config: str | None) -> dict[str, Any]:
    """The splits of a data set on disk."""
    if not root.exists():
        raise FileNotFoundError(f"{root} does not exist. Expected a data set of `datasets`")
    if root.is_file():
        return _load("parquet", config, data_files=str(root))
    if not any((root / name).exists() for name in ("dataset_dict.json", "state.json")):
        return _load(str(root.absolute()), config)
    loaded = _package().load_from_disk(str(root))
    return dict(loaded) if isinstance(loaded, dict) else {str(loaded.split or "train"): loaded}


def _load(source: str, config: str | None, **options: Any) -> dict[str, Any]:
    # Versions before 4 may run code of the data set by default.
    return dict(_package().load_dataset(source, config, trust_remote_code=False, **options))


def _package() -> Any:
    try:
        import datasets
    except ImportError as error:
        needed = "the data set hf needs the package datasets: pip install 'rga-timm[hf]'"
        raise ImportError(needed) from error
    return datasets


def _split_names(
    source: str, parts: Mapping[str, Any], train_split: str, test_split: str
) -> dict[str, str | None]:
    """The use of each of the data set's splits; None if it is to be split by identity."""
    names = ", ".join(parts)
    for option, name in (("train_split", train_split), ("test_split", test_split)):
        if name != option.removesuffix("_split") and name not in parts:
            raise ValueError(f"{source} has no split {name!r} ({option}); it has {names}")
    uses = {part: part.lower() for part in parts if part.lower() in {*SPLITS} - {"train", "test"}}
    uses |= {test_split: "test"} | {train_split: "train"}
    used: dict[str, str | None] = {part: uses[part] for part in parts if part in uses}
    if not used and len(parts) == 1:
        return dict.fromkeys(parts)
    if not used:
        raise ValueError(f"{source} has the splits {names}: choose with train_split and test_split")
    if left_out := [part for part in parts if part not in used]:
        _logger.warning("%s: the splits %s are not read", source, ", ".join(left_out))
    return used if set(used.values()) != {"train"} else dict.fromkeys(used)


def _rows(
    place: str, part: str, rows: Any, wanted: Mapping[str, str | None]
) -> Iterator[NamedImage]:
    """The rows of one of the data set's splits; images are not read."""
    columns = choose_columns(place, rows.column_names, wanted, ("camera",), _OPTION_OF)
    texts = {role: _texts(rows, name, role, place) for role, name in columns.items()}
    for i in range(len(rows)):
        cells = {role: of_role[i] for role, of_role in texts.items()}
        yield image_of_row(f"{place}, row {i}", f"{part}/{i}", cells, columns, None)


def _texts(rows: Any, column: str, role: str, place: str) -> list[str]:
    """The text of each row, or the name of its class."""
    feature = rows.features[column]
    values = rows.with_format(None).select_columns([column])[:][column]
    datasets = _package()
    if isinstance(feature, datasets.ClassLabel):
        return ["" if v is None or v < 0 else feature.names[v] for v in values]
    if not isinstance(feature, datasets.Value):
        raise ValueError(f"{place}: the column {column!r} holds {feature}, which says no {role}")
    return [text_of(value).strip() for value in values]


def _undecoded(rows: Any, column: str, place: str) -> Any:
    """The column of images alone: encoded images, or paths."""
    choose_columns(place, rows.column_names, {"image": column}, (), _OPTION_OF)
    rows = rows.with_format(None).select_columns([column])
    feature = rows.features[column]
    datasets = _package()
    if isinstance(feature, datasets.Image):
        return rows.cast_column(column, datasets.Image(decode=False))
    is_file = isinstance(feature, dict) and {"bytes", "path"} <= set(feature)
    if is_file or getattr(feature, "dtype", None) in _IMAGE_TYPES:
        return rows
    raise ValueError(f"{place}: the column {column!r} holds {feature}, which is not an image")
