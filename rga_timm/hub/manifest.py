"""Write and check ``manifest.json`` of a weights folder, which lists its checkpoints."""

import json
from pathlib import Path
from typing import Any

from filelock import FileLock

from rga_timm.data.text_file import write_text
from rga_timm.hub.pretrained import read_config
from rga_timm.hub.publish.folder import check_checkpoint
from rga_timm.weights import MANIFEST_FILE, WEIGHTS_FILE, preprocessing_of, read_manifest, sha256_of


def list_in_manifest(weights: str | Path, name: str) -> dict[str, Any]:
    """Add or replace a checkpoint's entry in a weights folder's manifest, and return the entry.

    Several programs may do so at once.
    """
    weights = Path(weights)
    entry = _entry(weights / name)
    if read_manifest(weights).get(name) == entry:
        return entry  # the folder may be read-only
    with FileLock(weights / f".{MANIFEST_FILE}.lock"):
        entries = {**read_manifest(weights), name: entry}
        text = json.dumps({"checkpoints": dict(sorted(entries.items()))}, indent=2)
        write_text(weights / MANIFEST_FILE, text + "\n")
    return entry


def check_manifest(weights: str | Path) -> None:
    """Raise a ValueError unless a weights folder fits its manifest, and every checkpoint works."""
    weights = Path(weights)
    entries = read_manifest(weights)
    folders = {path.name for path in weights.iterdir() if path.is_dir() and path.name[0] != "."}
    problems = [f"{name} is not listed" for name in sorted(folders - entries.keys())]
    problems += [f"{name} is listed, but not there" for name in sorted(entries.keys() - folders)]
    for name in sorted(entries.keys() & folders):
        try:
            check_checkpoint(weights / name)
            current = _entry(weights / name)
        except (ValueError, OSError, KeyError) as error:
            problems.append(f"{name}: {error}")
            continue
        if entries[name] != current:
            differ = [key for key, value in current.items() if entries[name].get(key) != value]
            problems.append(f"{name}: listed with other {', '.join(differ) or 'fields'}")
        if current["name"] != name:
            problems.append(f"{name}: its config calls it {current['name']}")
    if problems:
        raise ValueError("\n".join([f"{weights / MANIFEST_FILE}:", *problems]))


def _entry(folder: Path) -> dict[str, Any]:
    """The manifest's entry of a checkpoint."""
    config = read_config(folder)
    reid, metrics = config["reid"], config["reid"]["metrics"]
    files = {
        path.name: {"sha256": sha256_of(path), "size": path.stat().st_size}
        for path in sorted(folder.iterdir())
    }
    return {
        "name": reid["name"],
        "version": reid["version"],
        **files.pop(WEIGHTS_FILE),
        "files": files,
        "preprocessing": preprocessing_of(config),
        "trained_on": [source["name"] for source in reid["trained_on"]],
        "dataset": reid["dataset"]["name"],
        "img_size": reid["protocol"]["img_size"],
        "metrics": {
            **{score: metrics[score] for score in ("mAP", "mAP_trapezoid", "mINP")},
            "rank1": metrics["cmc"][0],
        },
        "license": reid["license"],
    }
