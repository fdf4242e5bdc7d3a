"""`hf`: a data set of the Hugging Face Hub, or one on disk that `datasets` reads.

    hf:repo=OWNER/NAME,image=image,identity=label
    hf:identity=person                     with DIR, in the place of repo

DIR is what ``save_to_disk`` wrote, a folder that ``load_dataset`` understands (Parquet files, or
images in folders), or one Parquet file. No code that comes with a data set is ever run. Images stay
where they are, undecoded, until one is asked for.
"""

import logging
from collections.abc import Iterable, Iterator, Mapping
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

    An image is called SPLIT/ROW, after its split there and its row in it. People are called as
    their class is, where the column has classes, else as the column says. If all are called by
    whole numbers, these are the pids; else the pids are 1, 2, … in the sorted order of the names;
    and cameras alike.

    Where the only split is ``train_split``, and without ``split_column``, people are split at
    random, as `rga_timm.data.identity_split` says.

    Args:
        root: A data set on disk; None for one of the Hub.
        repo: OWNER/NAME on the Hub; None for one on disk.
        config: Which of the repository's configurations, where it has several.
        revision: Commit, tag or branch of the repository. Only a commit is the same tomorrow.
        image: Name of the column with the images.
        identity: Name of the column that says who it is.
        camera: Name of the column that says which camera took it. ``camera`` need not be there;
            another one has to. With None it is not read.
        split_column: Name of the column that says ``train``, ``query``, ``gallery`` or ``test`` of
            each row; then the data set's own splits do not count.
        train_split: The split to train on.
        test_split: The split whose images are both query and gallery. Beside these two, splits
            that are called ``query``, ``gallery`` or ``validation`` are taken as such.
        test_share: Where there is no test split: the share of the people to test on.
        seed: Where there is no test split: of the random split.
        split_file: Where the split by identity is kept: by default in ``OWNER--NAME.split.csv`` in
            the current folder, for one on disk in ``NAME.split.csv`` beside it.
    """
    if (root is None) == (repo is None):
        raise ValueError(
            "hf reads a data set of the Hub (hf:repo=OWNER/NAME) or one on disk (by its folder): "
            + ("neither was given" if root is None else f"both were given, {repo} and {root}")
        )
    source = str(repo or root)
    if root is not None:
        parts = _load_local(root, config)
        kept_in = root.absolute().with_name(f"{root.absolute().name}.split.csv")
    else:
        parts = _load(source, config, revision=revision)
        kept_in = Path(f"{source.replace('/', '--')}.split.csv")
    split_of = (
        dict.fromkeys(parts)
        if split_column
        else _split_names(source, parts, train_split, test_split)
    )
    wanted = {"identity": identity, "camera": camera, "split": split_column}
    images = [
        named if split_column else named._replace(split=split)
        for part, split in split_of.items()
        for named in _rows(f"{source}, {part}", part, parts[part], wanted)
    ]
    return splits_from_names(
        "hf",
        Path(source),
        images,
        IdentitySplit(kept_in, split_file, test_share, seed),
        opener=RowOpener({part: parts[part] for part in split_of}, image, source, root),
    )


class RowOpener:
    """From the name of an image, SPLIT/ROW, to an open file of it.

    Paths in the column start from ``folder``; ``source`` is the data set's name for errors.

    Raises:
        ValueError: There is no such column, or it holds no images.
    """

    def __init__(
        self, parts: Mapping[str, Any], column: str, source: str, folder: Path | None
    ) -> None:
        self.column = column
        self.folder = folder or Path()
        self.parts = {
            part: _undecoded(rows, column, f"{source}, {part}") for part, rows in parts.items()
        }

    def __call__(self, path: str) -> BinaryIO:
        """The file of this image."""
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
        raise FileNotFoundError(f"{root} does not exist. Expected is a data set of `datasets`")
    if root.is_file():
        return _load("parquet", config, data_files=str(root))
    if not any((root / name).exists() for name in ("dataset_dict.json", "state.json")):
        return _load(str(root.absolute()), config)
    loaded = _package().load_from_disk(str(root))
    return dict(loaded) if isinstance(loaded, dict) else {str(loaded.split or "train"): loaded}


def _load(source: str, config: str | None, **options: Any) -> dict[str, Any]:
    # Versions before 4 would run the code of a data set if they were not told not to.
    return dict(_package().load_dataset(source, config, trust_remote_code=False, **options))


def _package() -> Any:
    try:
        import datasets
    except ImportError as error:
        raise ImportError(
            "the data set hf needs the package datasets: pip install 'rga-timm[hf]'"
        ) from error
    return datasets


def _split_names(
    source: str, parts: Mapping[str, Any], train_split: str, test_split: str
) -> dict[str, str | None]:
    """What each of the data set's splits is for; None where it is to be split by identity."""
    for option, name in (("train_split", train_split), ("test_split", test_split)):
        if name != option.removesuffix("_split") and name not in parts:
            raise ValueError(f"{source} has no split {name!r} ({option}); it has {_join(parts)}")
    used: dict[str, str | None] = {}
    for part in parts:
        if part == train_split:
            used[part] = "train"
        elif part == test_split:
            used[part] = "test"
        elif part.lower() in SPLITS and part.lower() not in ("train", "test"):
            used[part] = part.lower()
    if not used and len(parts) == 1:
        return dict.fromkeys(parts)
    if not used:
        raise ValueError(
            f"{source} has the splits {_join(parts)}: say by train_split and test_split which are "
            "which"
        )
    if left_out := [part for part in parts if part not in used]:
        _logger.warning("%s: the splits %s are not read", source, _join(left_out))
    return used if set(used.values()) != {"train"} else dict.fromkeys(used)


def _rows(
    place: str, part: str, rows: Any, wanted: Mapping[str, str | None]
) -> Iterator[NamedImage]:
    """The rows of one of the data set's splits; only what the columns say is read, no image."""
    columns = choose_columns(place, rows.column_names, wanted, ("camera",), _OPTION_OF)
    texts = {role: _texts(rows, name, role, place) for role, name in columns.items()}
    for i in range(len(rows)):
        cells = {role: of_role[i] for role, of_role in texts.items()}
        yield image_of_row(f"{place}, row {i}", f"{part}/{i}", cells, columns, None)


def _texts(rows: Any, column: str, role: str, place: str) -> list[str]:
    """A column as texts; the name of its class for each row where it has classes."""
    feature = rows.features[column]
    values = rows.with_format(None).select_columns([column])[:][column]
    datasets = _package()
    if isinstance(feature, datasets.ClassLabel):
        return ["" if v is None or v < 0 else feature.names[v] for v in values]
    if not isinstance(feature, datasets.Value):
        raise ValueError(f"{place}: the column {column!r} holds {feature}, which says no {role}")
    return [text_of(value).strip() for value in values]


def _undecoded(rows: Any, column: str, place: str) -> Any:
    """The column of images alone, as it is on disk: encoded, or a path."""
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


def _join(names: Iterable[str]) -> str:
    return ", ".join(names)
