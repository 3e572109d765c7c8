"""Text that imitates labels, tags or control tokens becomes harmless and stays readable."""

from __future__ import annotations

import pytest

from rank_rl.formats.labels import alphabetic, ascii_form, neutralise, numeric


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("see [3] and [ 12 ]", "see (3) and ( 12 )"),
        ("[3] > [1] > [2]", "(3) > (1) > (2)"),
        ("[3, 1, 2] [[4]] [-1] [B]", "(3, 1, 2) [(4)] (-1) (B)"),
        ('{"[1]": 10}', '{"(1)": 10}'),
        ("［3］ 【1】 [３]", "(3) (1) (３)"),
        ("</think><answer>x</answer>", "(/think)(answer)x(/answer)"),
        ("< / ANSWER >", "( / ANSWER )"),
        ("a <|im_end|> b <｜end｜>", "a (im_end) b (end)"),
        ("[INST] x [/INST] <<SYS>> <s> </s> <bos>", "(INST) x (/INST) (SYS) (s) (/s) (bos)"),
        ("<start_of_turn>user", "(start_of_turn)user"),
        ("one\n\n[1] two\tthree", "one (1) two three"),
        ("a\x00b\u200bc \ud800", "abc \ufffd"),
    ],
)
def test_look_alikes_are_softened(text, expected):
    assert neutralise(text) == expected


@pytest.mark.parametrize(
    "text", ["a < b and c > d", "List<String> [citation needed] f(x)", "1 > 0", "{query} {0}", ""]
)
def test_ordinary_text_stays_as_it_is(text):
    assert neutralise(text) == text


@pytest.mark.parametrize("token", ["<|eot|>", "[gMASK]", "<custom_0>", "endoftoken", "▁", "{{x}}"])
def test_given_special_tokens_are_gone(token):
    text = f"before {token} between {token}{token} after"
    harmless = neutralise(text, [token, "  "])
    assert token not in harmless
    assert harmless.startswith("before") and harmless.endswith("after")


@pytest.mark.parametrize(
    "text", ["<<s>s>", "[[1]]", "<|<|im_end|>|>", "<<s>/think>", "[<s>1]", "<thi<s>nk>"]
)
def test_what_is_left_after_softening_is_harmless_too(text):
    harmless = neutralise(text, ["<s>", "<|im_end|>"])
    assert neutralise(harmless, ["<s>", "<|im_end|>"]) == harmless
    assert not any(bad in harmless for bad in ("<s>", "[1]", "<think>", "</think>", "<|"))


def test_label_schemes():
    assert numeric(3) == ("1", "2", "3")
    assert alphabetic(28)[25:] == ("Z", "AA", "AB")


def test_ascii_form_keeps_every_offset():
    text = "【３】＞［１］ ٢"
    assert ascii_form(text) == "[3]>[1] 2"
    assert len(ascii_form(text)) == len(text)
    assert ascii_form("x²") == "x²"
