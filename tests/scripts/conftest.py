import sys
from pathlib import Path

# The scripts import each other by name, as they do when they are run from the command line.
sys.path.insert(0, str(Path(__file__).parents[2] / "scripts"))
