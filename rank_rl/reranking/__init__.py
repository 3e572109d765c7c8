"""Reranking whole files: what ``rank-rl rerank`` reads, asks, keeps, divides and writes.

Queries are asked in fixed portions (``jobs``), so that the result does not depend on how often the
work was stopped (``kept``) nor on how many processes share it (``shares``).
"""
