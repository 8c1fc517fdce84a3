"""Reasoning between tags: every way to cut an answer into chunks gives the same division."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ollama_dify.wire.messages import ToolCall
from ollama_dify.wire.responses import ChatChunk, Finish
from ollama_dify.wire.think_tags import ThinkTags

END = Finish("stop", "m")


def run(pieces: list[str], *, end_apart: bool = True) -> tuple[str, str]:
    """Feed pieces as the decoder does; the filter is left out once it is done."""
    filtering = ThinkTags()
    chunks = [ChatChunk(piece) for piece in pieces]
    if end_apart or not chunks:
        chunks.append(ChatChunk(finish=END))
    else:
        chunks[-1] = chunks[-1]._replace(finish=END)
    out = []
    for chunk in chunks:
        out.append(chunk if filtering.done else filtering.feed(chunk))
    assert out[-1].finish is END
    return "".join(chunk.text for chunk in out), "".join(chunk.thinking for chunk in out)


@pytest.mark.parametrize(
    ("answer", "text", "thinking"),
    [
        pytest.param("Hello", "Hello", "", id="no tag"),
        pytest.param("", "", "", id="nothing"),
        pytest.param("  ", "  ", "", id="blanks only"),
        pytest.param("<think>a</think>b", "b", "a", id="plain"),
        pytest.param("<think>\na\n</think>\n\nb\n", "b\n", "a\n", id="line breaks"),
        pytest.param("\n <think>a</think>b", "b", "a", id="blanks first"),
        pytest.param("<think>\n\n</think>\n\nb", "b", "", id="empty thought"),
        pytest.param("<think></think>", "", "", id="nothing but tags"),
        pytest.param("<think>a", "", "a", id="never closed"),
        pytest.param("<think>a</thi", "", "a</thi", id="cut in the closing tag"),
        pytest.param("<thi", "<thi", "", id="cut in the opening tag"),
        pytest.param("<thinking>a</thinking>", "<thinking>a</thinking>", "", id="another tag"),
        pytest.param("b <think>a</think>", "b <think>a</think>", "", id="not at the start"),
        pytest.param("<think>a < b </ c</think>d", "d", "a < b </ c", id="angles in the thought"),
        pytest.param("<think>a</think>b<think>c</think>", "b<think>c</think>", "a", id="only the first"),
        pytest.param("<think>a<</think>b", "b", "a<", id="angle before the tag"),
    ],
)
def test_every_split_equals_the_whole(answer: str, text: str, thinking: str) -> None:
    assert run([answer]) == (text, thinking)
    assert run([answer], end_apart=False) == (text, thinking)
    assert run(list(answer)) == (text, thinking)
    for cut in range(len(answer) + 1):
        assert run([answer[:cut], answer[cut:]]) == (text, thinking)
        assert run([answer[:cut], answer[cut:]], end_apart=False) == (text, thinking)


@given(
    words=st.lists(
        st.sampled_from(["<think>", "</think>", "<", "/", "think", ">", "\n", " ", "a"]), max_size=9
    ),
    data=st.data(),
)
def test_random_splits_equal_the_whole(words: list[str], data: st.DataObject) -> None:
    answer = "".join(words)
    cuts = sorted(data.draw(st.lists(st.integers(0, len(answer)), max_size=6)))
    pieces = [answer[a:b] for a, b in zip([0, *cuts], [*cuts, len(answer)], strict=True)]
    assert run(pieces) == run([answer])


@pytest.mark.parametrize(
    "first",
    [
        pytest.param(ChatChunk(thinking="hm"), id="thinking"),
        pytest.param(ChatChunk(tool_calls=(ToolCall("f", {}, "1"),)), id="a call"),
    ],
)
def test_a_server_that_keeps_them_apart_is_left_alone(first: ChatChunk) -> None:
    filtering = ThinkTags()
    held = filtering.feed(ChatChunk("<th"))
    assert held.text == ""
    assert filtering.feed(first) == first._replace(text="<th")
    assert filtering.done
