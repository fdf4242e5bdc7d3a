"""The version of the code that made a checkpoint."""

import subprocess
from pathlib import Path

from rga_timm._version import __version__


def code_version() -> str:
    """The package's version, and in a clone its commit, ``-dirty`` where files were changed."""
    clone = Path(__file__).parents[2]
    # A virtual environment may be inside some other repository.
    if not (clone / ".git").exists():
        return __version__
    command = ["git", "-C", str(clone), "describe", "--always", "--dirty"]
    try:
        commit = subprocess.check_output(command, text=True, stderr=subprocess.DEVNULL).strip()
    except (OSError, subprocess.CalledProcessError):
        return __version__
    return f"{__version__} ({commit})"
