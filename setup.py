"""What pyproject.toml cannot say: the manifest of weights/ is part of the installed package."""

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


setup(cmdclass={"build_py": BuildWithManifest})
