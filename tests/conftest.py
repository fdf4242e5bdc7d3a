"""What holds for all tests."""

import os

# Before torch is imported, here and in the programs that tests start: on models this small, threads
# cost more than they bring, and round differently.
os.environ.setdefault("OMP_NUM_THREADS", "1")

from hypothesis import settings

# The same cases every time, on machines however slow.
settings.register_profile("rga_timm", deadline=None, derandomize=True, database=None)
settings.load_profile("rga_timm")
