"""The benchmarks are no installed package: they are run from a checkout, and so are their tests."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[2]))
