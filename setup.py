"""What pyproject.toml cannot say: what is installed of weights/, and absolute links."""

import re
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


def package_page() -> str:
    """Make the README's links absolute: a package index shows it without the files beside it."""
    folder = Path(__file__).parent
    settings = (folder / "pyproject.toml").read_text(encoding="utf-8")
    repository = re.search(r'^Repository = "(.+)"$', settings, re.M)[1]
    text = (folder / "README.md").read_text(encoding="utf-8")
    # Pictures are shown from their bytes, all else as the pages of the repository.
    text = re.sub(r"(!\[[^]]*\]\()(?!https?://)", rf"\1{repository}/raw/main/", text)
    return re.sub(r"(\]\()(?!https?://|#)", rf"\1{repository}/blob/main/", text)


setup(
    cmdclass={"build_py": BuildWithCheckpoints},
    long_description=package_page(),
    long_description_content_type="text/markdown",
)
