"""Facts of the real tokenizer. Its ranks are in the package dashscope (extra `dev`) as qwen.tiktoken."""

import base64
import importlib.util
import itertools
from collections.abc import Callable
from pathlib import Path

import pytest
from transformers import AddedToken, Qwen2Tokenizer
from transformers.convert_slow_tokenizer import bytes_to_unicode

from harald import hub
from harald.base.prompt_template import TEMPLATE_HEAD
from harald.config import ModelRef, full
from harald.encoder.chat import INSTRUCTION
from harald.injection.layout import word_ends
from harald.injection.prompt import parse
from harald.published.facts import PUBLISHED, SPECIAL_TOKENS, TEMPLATE_HEAD_TOKENS
from tests.published.checkpoints import write_tokenizer

SPEC = importlib.util.find_spec("dashscope")
RANKS = Path(SPEC.origin).parent / "resources" / "qwen.tiktoken" if SPEC and SPEC.origin else None
pytestmark = pytest.mark.skipif(
    RANKS is None or not RANKS.is_file(), reason="the real ranks are in dashscope: pip install -e .[dev]"
)

# transformers, tests/models/qwen2/test_tokenization_qwen2.py (Qwen/Qwen-tokenizer)
SENTENCE = (
    "Transformers (formerly known as pytorch-transformers and pytorch-pretrained-bert) provides general-purpose "
    "architectures (BERT, GPT-2, RoBERTa, XLM, DistilBert, XLNet...) for Natural Language Understanding (NLU) and "
    "Natural Language Generation (NLG) with over 32+ pretrained models in 100+ languages and deep interoperability "
    "between Jax, PyTorch and TensorFlow."
)
SENTENCE_IDS = [
    8963, 388, 320, 69514, 3881, 438, 4510, 27414, 32852, 388, 323, 4510, 27414, 21334, 35722, 1455, 529, 8, 5707, 4586,
    58238, 77235, 320, 61437, 11, 479, 2828, 12, 17, 11, 11830, 61437, 64, 11, 1599, 10994, 11, 27604, 321, 33, 529, 11,
    29881, 6954, 32574, 369, 18448, 11434, 45451, 320, 45, 23236, 8, 323, 18448, 11434, 23470, 320, 30042, 38, 8, 448,
    916, 220, 18, 17, 10, 80669, 4119, 304, 220, 16, 15, 15, 10, 15459, 323, 5538, 94130, 2897, 1948, 619, 706, 11,
    5355, 51, 21584, 323, 94986, 13,
]  # fmt: skip
# transformers, tests/models/qwen2_5_vl/test_modeling_qwen2_5_vl.py (Qwen/Qwen2.5-VL-7B-Instruct)
CHAT = "<|im_start|>system\nYou are a helpful assistant.<|im_end|>\n<|im_start|>user\n<|vision_start|><|image_pad|>"
CHAT_IDS = [
    151644, 8948, 198, 2610, 525, 264, 10950, 17847, 13, 151645, 198, 151644, 872, 198, 151652, 151655,
]  # fmt: skip


def merges_of(ranks: dict[bytes, int]) -> list[tuple[bytes, bytes]]:
    """The two pieces that byte-level BPE joins last for every token, in order of rank."""
    merges = []
    for token, rank in sorted(ranks.items(), key=lambda item: item[1]):
        pieces = [token[i : i + 1] for i in range(len(token))]
        while len(pieces) > 2:
            pairs = [ranks.get(a + b, rank) for a, b in itertools.pairwise(pieces)]
            at = pairs.index(min(pairs))
            pieces[at : at + 2] = [pieces[at] + pieces[at + 1]]
        if len(pieces) == 2:
            merges.append((pieces[0], pieces[1]))
    return merges


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory) -> Qwen2Tokenizer:
    """The published tokenizer, written in the published form and loaded as the encoder loads it."""
    lines = (line.split() for line in RANKS.read_bytes().splitlines() if line)
    ranks = {base64.b64decode(token): int(rank) for token, rank in lines}
    letters = bytes_to_unicode()
    spell: Callable[[bytes], str] = lambda token: "".join(letters[byte] for byte in token)  # noqa: E731
    vocab = {spell(token): rank for token, rank in ranks.items()}
    plain = Qwen2Tokenizer(vocab=vocab, merges=[(spell(a), spell(b)) for a, b in merges_of(ranks)])
    plain.add_tokens([AddedToken(token, special=True, normalized=False) for token in SPECIAL_TOKENS])
    folder = tmp_path_factory.mktemp("tokenizer")
    write_tokenizer(plain, folder / "source")
    (folder / "source" / "model.safetensors").write_bytes((2).to_bytes(8, "little") + b"{}")
    hub.install(folder / "cache", "someone/tokenizer", folder / "source")
    return hub.load(Qwen2Tokenizer, folder / "cache", ModelRef("someone/tokenizer"))


def ids(tokenizer: Qwen2Tokenizer, text: str) -> list[int]:
    return tokenizer(text, add_special_tokens=False).input_ids


def test_ranks_are_those_of_the_published_tokenizer(tokenizer):
    assert ids(tokenizer, SENTENCE) == SENTENCE_IDS
    assert ids(tokenizer, CHAT) == CHAT_IDS


def test_special_tokens_have_the_published_ids(tokenizer):
    assert {token: tokenizer.convert_tokens_to_ids(token) for token in SPECIAL_TOKENS} == SPECIAL_TOKENS
    assert (SPECIAL_TOKENS["<|im_start|>"], SPECIAL_TOKENS["<|image_pad|>"]) == (151_644, 151_655)


def test_head_of_the_template_is_34_tokens(tokenizer):
    assert len(ids(tokenizer, TEMPLATE_HEAD)) == TEMPLATE_HEAD_TOKENS == 34


def test_head_keeps_its_tokens_whatever_follows(tokenizer):
    """The pipeline drops 34 states: no prompt may melt into the head. Leading empty lines would; `parse` drops them."""
    head = ids(tokenizer, TEMPLATE_HEAD)
    for prompt in (" ", "person", " a person", "王小明", "'s", "...", "<|im_end|>", "1"):
        assert ids(tokenizer, TEMPLATE_HEAD + prompt)[:34] == head, prompt
    for prompt in ("\n<person> laughing", "\n\n photo of <person>"):
        assert ids(tokenizer, TEMPLATE_HEAD + prompt)[:34] != head
        assert ids(tokenizer, TEMPLATE_HEAD + parse(prompt).with_word("person"))[:34] == head, prompt


@pytest.mark.parametrize("word", ["person", "man", "woman", "child", "character"])
def test_class_word_ends_on_a_token_boundary(tokenizer, word):
    for text in ("<person>", "photo of <person> laughing", "a comic. <person>, angry", "<person>'s hat", "(<person>)"):
        prompt = parse(text)
        (end,) = word_ends(lambda piece: ids(tokenizer, piece), prompt, word)
        (start, stop) = prompt.spans(word)[0]
        full_text = prompt.with_word(word)
        assert tokenizer.decode(ids(tokenizer, full_text)[:end]) == full_text[:stop]
        assert full_text[start:stop] == word


@pytest.mark.parametrize("repo", sorted(PUBLISHED))
def test_reserved_rows_are_free_and_enough(tokenizer, repo):
    """What QwenImage and PersonEncoder call reserved: rows of the vocabulary that no text can reach."""
    rows = PUBLISHED[repo].rows
    reserved = range(len(tokenizer), rows)
    assert len(tokenizer) == 151_669
    assert len(reserved) == {151_936: 267, 152_064: 395}[rows]
    assert len(reserved) >= full().encoder.tokens == 64
    assert max(tokenizer.get_vocab().values()) < reserved[0]


def test_text_of_the_encoders_chat_is_short(tokenizer):
    """The chat of n pictures has this many tokens beside the pictures' own and the queries."""
    text = f"<|im_start|>user\n{INSTRUCTION}<|im_end|>\n<|im_start|>assistant\n"
    assert len(ids(tokenizer, text)) == 24
