"""Benchmarks of imgstack_ml: asv suites, and the tutorial's own workflow measured beside this package."""
