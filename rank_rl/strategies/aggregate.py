"""From compared pairs to one order: Bradley-Terry strengths, and the heaviest Hamiltonian path.

Items are numbered 0 … n-1 in first-stage order; ``weights[i][j]`` says how much speaks for i before
j. Everything is deterministic and plain Python, so that strategies, scorers and losses share it.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TypeAlias

Weights: TypeAlias = Sequence[Sequence[float]]

EXACT = 12  # items up to which the best path is found exactly: 2 ** n * n * n steps
LEAST_GAIN = 1e-9  # what counts as heavier; less is rounding
LONGEST_MOVE = 3  # items that the local search moves together


def bradley_terry(
    wins: Weights, *, prior: float = 0.1, tolerance: float = 1e-8, most: int = 200
) -> list[float]:
    """Log-strengths of the Bradley-Terry model (1952), by the MM iterations of Hunter (2004).

    P(i beats j) = s_i / (s_i + s_j). Every item also wins and loses ``prior`` times against one of
    strength 1, so that those never beaten stay finite and groups that never met are comparable.

    Args:
        wins: n × n; how often, or how far, i won against j. The diagonal does not count.
        prior: above 0; the smaller, the farther apart are those that always win.
        tolerance: largest relative change of a strength at which it ends.
        most: iterations at most.

    Returns:
        n log-strengths, rounded to 6 digits, so that items with the same record are tied.
    """
    count = len(wins)
    if not count:
        return []
    met = [
        [(j, wins[i][j] + wins[j][i]) for j in range(count) if j != i and wins[i][j] + wins[j][i]]
        for i in range(count)
    ]
    won = [prior + sum(wins[i][j] for j, _ in met[i]) for i in range(count)]
    strength = [1.0] * count
    for _ in range(most):
        new = [
            won[i] / (2 * prior / (s + 1) + sum(games / (s + strength[j]) for j, games in met[i]))
            for i, s in enumerate(strength)
        ]
        # All of them against strength 1, which on its own converges slowly.
        scale = count / 2 / sum(s / (s + 1) for s in new)
        new = [scale * s for s in new]
        change = max(abs(a / b - 1) for a, b in zip(new, strength, strict=True))
        strength = new
        if change < tolerance:
            break
    return [round(math.log(s), 6) for s in strength]


def hamiltonian(weights: Weights) -> list[int]:
    """Order of all items with the largest sum of weights from each to the next (TSPRank, 2024).

    Exact up to 12 items. Above, a local search (items moved, stretches turned round) from the
    order by net weight and from one joined of the heaviest steps: never lighter than the order by
    net weight, and not always the heaviest. Of equally heavy paths, up to 12 items, the one whose
    first differing item has the larger net weight, then the lower number.

    Args:
        weights: n × n, finite, of any sign; the diagonal does not count.

    Raises:
        ValueError: the rows are not n numbers each.
    """
    count = len(weights)
    if any(len(row) != count for row in weights):
        raise ValueError(f"weights must be {count} x {count}")
    if count < 2:
        return list(range(count))
    by_weight = by_net_weight(weights)
    if count <= EXACT:
        path = _exact([[weights[i][j] for j in by_weight] for i in by_weight])
        return [by_weight[i] for i in path]
    paths = [_improved(start, weights) for start in (by_weight, _joined(weights))]
    heavier = path_weight(paths[1], weights) > path_weight(paths[0], weights) + LEAST_GAIN
    return paths[heavier]


def path_weight(path: Sequence[int], weights: Weights) -> float:
    """Sum of the weights from each item of a path to the next."""
    return sum(weights[a][b] for a, b in zip(path, path[1:], strict=False))


def by_net_weight(weights: Weights) -> list[int]:
    """Items by what speaks for them less what speaks against them, ties by number."""
    items = range(len(weights))
    net = [sum(weights[i][j] - weights[j][i] for j in items) for i in items]
    return sorted(items, key=lambda i: -round(net[i], 9))


def _exact(weights: Weights) -> list[int]:
    """Dynamic programming over sets (Held and Karp, 1962); of equal paths the first by number."""
    count = len(weights)
    every = (1 << count) - 1
    items = range(count)
    # rest[left][i]: heaviest path that starts at i and goes through all items of the set ``left``.
    rest = [[0.0] * count] + [[-math.inf] * count for _ in range(every)]
    for left in range(1, every):
        members = [j for j in items if left >> j & 1]
        after = [(j, rest[left & ~(1 << j)][j]) for j in members]
        row = rest[left]
        for i in items:
            if not left >> i & 1:
                to = weights[i]
                row[i] = max([to[j] + further for j, further in after])
    path: list[int] = []
    left = every
    while left:
        members = [j for j in items if left >> j & 1]
        values = [
            (weights[path[-1]][j] if path else 0.0) + rest[left & ~(1 << j)][j] for j in members
        ]
        enough = max(values) - LEAST_GAIN
        path.append(next(j for j, v in zip(members, values, strict=True) if v >= enough))
        left &= ~(1 << path[-1])
    return path


def _joined(weights: Weights) -> list[int]:
    """The heaviest steps first, each taken where it still fits into one path."""
    items = range(len(weights))
    steps = sorted((-weights[i][j], i, j) for i in items for j in items if i != j)
    after: dict[int, int] = {}
    behind: set[int] = set()
    end_of = {i: i for i in items}  # the other end of the piece that starts or ends here
    for _, i, j in steps:
        if i not in after and j not in behind and end_of[i] != j:
            after[i] = j
            behind.add(j)
            start, end = end_of[i], end_of[j]
            end_of[start], end_of[end] = end, start
    path = [next(i for i in items if i not in behind)]
    while path[-1] in after:
        path.append(after[path[-1]])
    return path


def _gain(path: Sequence[int], at: int, block: Sequence[int], weights: Weights) -> float:
    """What a path gains when a block is put in before place ``at``, but for the block's own."""
    gain = 0.0
    if at > 0:
        gain += weights[path[at - 1]][block[0]]
    if at < len(path):
        gain += weights[block[-1]][path[at]]
    if 0 < at < len(path):
        gain -= weights[path[at - 1]][path[at]]
    return gain


def _improved(path: list[int], weights: Weights) -> list[int]:
    """A path that neither moving up to three items nor turning a stretch round makes heavier."""
    while True:
        better = _moved(path, weights) or _turned(path, weights)
        if better is None:
            return path
        path = better


def _moved(path: list[int], weights: Weights) -> list[int] | None:
    """The path after the best move of some block; None where no move gains."""
    best, found = LEAST_GAIN, None
    for length in range(1, LONGEST_MOVE + 1):
        for start in range(len(path) - length + 1):
            block = path[start : start + length]
            others = path[:start] + path[start + length :]
            here = _gain(others, start, block, weights)
            for at in range(len(others) + 1):
                gain = _gain(others, at, block, weights) - here
                if gain > best:
                    best, found = gain, others[:at] + block + others[at:]
    return found


def _turned(path: list[int], weights: Weights) -> list[int] | None:
    """The path after turning the best stretch round; None where that gains nothing."""
    # A stretch weighs other than its reverse: what turning each step round adds, summed up.
    turning = [0.0]
    for a, b in zip(path, path[1:], strict=False):
        turning.append(turning[-1] + weights[b][a] - weights[a][b])
    best, found = LEAST_GAIN, None
    for start in range(len(path) - 1):
        for end in range(start + 1, len(path)):
            gain = turning[end] - turning[start]
            if start > 0:
                before = weights[path[start - 1]]
                gain += before[path[end]] - before[path[start]]
            if end + 1 < len(path):
                after = path[end + 1]
                gain += weights[path[start]][after] - weights[path[end]][after]
            if gain > best:
                best, found = gain, path[:start] + path[start : end + 1][::-1] + path[end + 1 :]
    return found
