"""Benchmarks of imgstack_ml: asv suites, comparisons with other libraries, and the code that both share."""
