"""Run any timm script, unchanged, with the models registered.

usage: python -m rga_timm SCRIPT [arguments of the script …]

    python -m rga_timm train.py --model rga_resnet50 --num-classes 751 …
    torchrun --nproc-per-node 4 -m rga_timm train.py …

The script runs as ``python SCRIPT …`` would run it, but after ``import rga_timm``. Processes that
it starts by spawn or forkserver do not have that import: they know the models only if the script
imports rga_timm itself. Worker processes of a DataLoader need no models.
"""

import os
import runpy
import sys
import warnings
from pathlib import Path

import timm


def main() -> None:
    """Make ``sys.argv`` and ``sys.path`` the script's own, and run it as ``__main__``."""
    arguments = sys.argv[1:]
    if arguments[:1] in (["-h"], ["--help"]):
        sys.stdout.write(__doc__ or "")
        sys.exit(0)
    if not arguments:
        _refuse("no script given")
    script = arguments[0]
    if script.startswith("-"):
        _refuse(f"the script comes first, its options after it; got {script}")
    if not os.path.isfile(script):
        _refuse(f"no such script: {script}")

    folder = os.path.dirname(os.path.realpath(script))
    _warn_of_other_timm(Path(folder))
    sys.argv = arguments
    if not getattr(sys.flags, "safe_path", False):  # python -P; from 3.11 on
        sys.path[0] = folder  # python -m has put the working directory there
    # run_path puts the script's module into sys.modules as __main__ while it runs, with its
    # __file__: that is how a worker process that does not fork finds the script's classes.
    # Absolute, as python makes it, so that it holds after a change of directory.
    runpy.run_path(os.path.abspath(script), run_name="__main__")


def _refuse(message: str) -> None:
    """Say what was wrong and how it is done; exit with code 2, as argparse does."""
    sys.stderr.write(f"{__doc__}\npython -m rga_timm: error: {message}\n")
    sys.exit(2)


def _warn_of_other_timm(folder: Path) -> None:
    """A clone of timm has scripts and package side by side; ours has imported the installed one."""
    version_file = folder / "timm" / "version.py"
    if not version_file.is_file():
        return
    if f"'{timm.__version__}'" not in version_file.read_text():
        warnings.warn(
            f"the script lies beside another version of timm than the installed one, which it will "
            f"use, {timm.__version__}: take the script of that version (git checkout "
            f"v{timm.__version__}), or install the package beside it (pip install {folder})",
            stacklevel=2,
        )


if __name__ == "__main__":
    main()
