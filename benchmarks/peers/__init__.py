"""Systems that ``benchmarks/rerank.py`` compares: one ``worker_*.py`` each, a process of its own.

A worker runs in its system's virtual environment and imports ``protocol`` only, so that nothing of
rank_rl has to be installed there; those that answer rank_rl's own prompts import ``prompts`` too.
"""
