"""What holds for all tests."""

import os

# Before torch is imported, here and in the programs that tests start: on models this small, threads
# cost more than they bring, and round differently.
os.environ.setdefault("OMP_NUM_THREADS", "1")
