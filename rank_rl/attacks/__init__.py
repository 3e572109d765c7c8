"""How far a document rises by what it says to its ranker: attacks, defences and what they cost.

``cases`` puts an attack into one document of each query, ``defences`` are what is tried against it,
``measure`` ranks clean and attacked lists and counts, ``results`` writes what was found. The texts
of the attacks are ``rank_rl.data.injections``.
"""
