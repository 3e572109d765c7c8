"""Models that several threads may use at once: modules of their own, weights in common.

A forward pass here changes its model for the time it takes (which attention it uses, whether it
trains), and a tokenizer remembers how it was last asked to cut; so threads cannot share either.
"""

from __future__ import annotations

import copy
from dataclasses import replace
from itertools import chain
from typing import TYPE_CHECKING, Any
from weakref import WeakKeyDictionary

if TYPE_CHECKING:
    from rank_rl.models.loading import Loaded

_TABLES: list[WeakKeyDictionary[Any, Any]] = []


def known_of_models() -> WeakKeyDictionary[Any, Any]:
    """A table of what was found out about models, which holds for their twins too."""
    _TABLES.append(WeakKeyDictionary())
    return _TABLES[-1]


def twin(module: Any) -> Any:
    """A copy of a module that has the same parameters and buffers, not copies of them."""
    held = {id(tensor): tensor for tensor in chain(module.parameters(), module.buffers())}
    made = copy.deepcopy(module, held)
    for table in _TABLES:
        for known in list(table):
            if (other := held.get(id(known))) is not None:
                table[other] = table[known]
    return made


def twin_of(loaded: Loaded, *, of: int) -> Loaded:
    """A model for another thread.

    Args:
        loaded: the model.
        of: how many threads divide the memory for keys and values among them.
    """
    tokenizer = copy.deepcopy(loaded.tokenizer)
    return replace(loaded, model=twin(loaded.model), tokenizer=tokenizer, share=of)
