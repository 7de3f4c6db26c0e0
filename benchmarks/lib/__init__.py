"""What suites and comparisons share: stacks, right answers, measuring, tables."""
