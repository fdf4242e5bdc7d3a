import sys
from pathlib import Path

# run.py and its modules import each other by name, as when it is run from the command line.
sys.path.insert(0, str(Path(__file__).parent))
