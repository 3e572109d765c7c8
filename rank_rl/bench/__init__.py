"""The benchmark: systems side by side on held-out queries, with intervals, tests and costs."""
