"""Scripts that compare this package with other libraries: ``python -m benchmarks.comparisons.peers --help``."""
