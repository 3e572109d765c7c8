"""A reranker behind HTTP, in the form that clients of Cohere's and Jina's rerank APIs speak.

``requests`` reads what is asked, ``answers`` writes what is answered, ``gate`` counts who is in,
``keys`` knows who may, ``telemetry`` counts; ``app`` joins them, ``server`` runs it. Nothing is
stored.
"""
