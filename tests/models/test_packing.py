"""The layout of a packed sequence, in literal numbers."""

from __future__ import annotations

import pytest

GROUPS = [([11, 12], [[21], [31, 32]]), ([13], [[41, 42, 43]])]


@pytest.fixture(scope="module")
def batch():
    from rank_rl.models.packing import pack

    return pack(GROUPS)


def test_tokens_follow_one_another_and_positions_restart_behind_the_prefix(batch):
    assert batch.input_ids.tolist() == [[11, 12, 21, 31, 32, 13, 41, 42, 43]]
    assert batch.position_ids.tolist() == [[0, 1, 2, 2, 3, 0, 1, 2, 3]]
    assert batch.group.tolist() == [0, 0, 0, 0, 0, 1, 1, 1, 1]
    assert batch.segment.tolist() == [-1, -1, 0, 1, 1, -1, 2, 2, 2]


def test_slots_are_the_last_tokens_of_the_segments(batch):
    assert batch.input_ids[0, batch.slots].tolist() == [21, 32, 43]
    assert batch.owner.tolist() == [0, 0, 1]


def test_tables_hold_token_numbers_padded_with_zero(batch):
    assert batch.prefix_index.tolist() == [[0, 1], [5, 0]]
    assert batch.segment_index.tolist() == [[2, 0, 0], [3, 4, 0], [6, 7, 8]]


def test_cells_bring_the_tables_back_into_sequence_order(batch):
    import torch

    tables = torch.cat([batch.prefix_index.flatten(), batch.segment_index.flatten()])
    assert tables[batch.cells].tolist() == list(range(9))


def test_a_segment_sees_the_prefix_of_its_group_and_itself_up_to_where_it_is(batch):
    looks = ["".join("x" if seen else "." for seen in row) for row in batch.dense_mask()[0, 0]]
    assert looks == [
        "x........",
        "xx.......",
        "xxx......",
        "xx.x.....",
        "xx.xx....",
        ".....x...",
        ".....xx..",
        ".....xxx.",
        ".....xxxx",
    ]
    # The same, a segment at a time: two prefix positions, then three of its own.
    of_two = batch.segment_mask[1, 0].int().tolist()
    assert of_two == [[1, 1, 1, 0, 0], [1, 1, 1, 1, 0], [1, 1, 1, 1, 1]]
    alone = batch.segment_mask[2, 0].int().tolist()
    assert alone == [[1, 0, 1, 0, 0], [1, 0, 1, 1, 0], [1, 0, 1, 1, 1]]


def test_one_document_alone():
    from rank_rl.models.packing import pack

    one = pack([([7, 8], [[9]])])
    assert one.input_ids.tolist() == [[7, 8, 9]] and one.slots.tolist() == [2]
    assert one.dense_mask()[0, 0].int().tolist() == [[1, 0, 0], [1, 1, 0], [1, 1, 1]]


@pytest.mark.parametrize(
    "groups", [[], [([], [[1]])], [([1], [])], [([1], [[2], []])], [([1], [[2]]), ([1], [])]]
)
def test_nothing_empty_is_packed(groups):
    from rank_rl.models.packing import pack

    with pytest.raises(ValueError, match="at least one token"):
        pack(groups)
