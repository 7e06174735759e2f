"""Tests import what stands beside them, and share the machine with others."""

import os
import pathlib
import sys

# Small tensors: threads that wait for each other on busy cores took a hundred times as long.
os.environ.setdefault("OMP_NUM_THREADS", "1")
sys.path.insert(0, str(pathlib.Path(__file__).parent))
