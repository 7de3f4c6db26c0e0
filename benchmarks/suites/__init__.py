"""Suites of asv benchmarks: time, peak memory and tracked values, to be followed from commit to commit."""

import sys
from pathlib import Path

# asv imports this folder as a package of its own, named "suites". Appended, the path finds `benchmarks.lib`, and does
# not hide an installed imgstack_ml.
ROOT = str(Path(__file__).parents[2])
if ROOT not in sys.path:
    sys.path.append(ROOT)
