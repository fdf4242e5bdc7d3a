"""What pyproject.toml cannot say: the manifest of weights/ is installed; links of the page."""

import re
import shutil
from pathlib import Path

from setuptools import setup
from setuptools.command.build_py import build_py


class BuildWithManifest(build_py):
    """Without a clone, the package knows by it which checkpoints there are, and their hashes."""

    def run(self) -> None:
        """Build as ever, and put the manifest beside the modules."""
        super().run()
        if not self.editable_mode:
            manifest = Path(__file__).parent / "weights" / "manifest.json"
            shutil.copyfile(manifest, Path(self.build_lib) / "rga_timm" / manifest.name)


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
    cmdclass={"build_py": BuildWithManifest},
    long_description=package_page(),
    long_description_content_type="text/markdown",
)
