"""Collections that are installed with the package, one folder each, in the BEIR layout.

Each folder keeps its ATTRIBUTION.md. Read them through ``source: bundled`` in a recipe.
"""
