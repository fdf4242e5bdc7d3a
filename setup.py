"""What pyproject.toml cannot say: parts of weights/ are in the installed package."""

import shutil
from pathlib import Path

from setuptools import setup
from setuptools.command.build_py import build_py

WEIGHTS = Path(__file__).parent / "weights"
# The manifest tells which checkpoints there are, and their hashes. The checkpoint is small, free to
# pass on, and makes tests and first steps possible without a network.
FILES = [
    WEIGHTS / "manifest.json",
    *(
        WEIGHTS / "test_rga_resnet.pedestrians" / name
        for name in ("README.md", "config.json", "model.safetensors")
    ),
]


class BuildWithCheckpoints(build_py):
    """Puts them into rga_timm/checkpoints/, where rga_timm/weights.py looks."""

    def run(self) -> None:
        """Build as ever, then copy."""
        super().run()
        if self.editable_mode:
            return
        for file in FILES:
            target = Path(self.build_lib, "rga_timm", "checkpoints", file.relative_to(WEIGHTS))
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(file, target)


setup(cmdclass={"build_py": BuildWithCheckpoints})
