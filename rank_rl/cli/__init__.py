"""The command line: thin commands over the package, and the one place that prints."""
