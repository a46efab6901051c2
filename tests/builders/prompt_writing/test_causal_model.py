import json
from pathlib import Path

import pytest
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

from builders.cli.main import main
from builders.prompt_writing.causal_model import CausalModel
from builders.prompt_writing.instruction import Request
from tests.in_process import call

WORDS = ["<s>", "</s>", "\n", "1", "a", "photo", "of", "zero", "digit", "captions", "write", "."]


@pytest.fixture(scope="module")
def tiny_llm(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Returns a causal language model with random weights and a tokenizer of twelve words."""
    out = tmp_path_factory.mktemp("llm") / "tiny-llm"
    tokenizer = Tokenizer(models.WordLevel({word: number for number, word in enumerate(WORDS)}, unk_token="a"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    PreTrainedTokenizerFast(tokenizer_object=tokenizer, bos_token="<s>", eos_token="</s>").save_pretrained(out)
    sizes = {"hidden_size": 16, "intermediate_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2}
    LlamaForCausalLM(LlamaConfig(vocab_size=len(WORDS), max_position_embeddings=128, **sizes)).save_pretrained(out)
    return out


def test_causal_model__the_same_seed_gives_the_same_answers(tiny_llm: Path) -> None:
    model = CausalModel(str(tiny_llm), "", batch_size=2)
    requests = [Request(f"n0{number}", 0, 3, "write captions " * number) for number in range(1, 4)]
    first, again, other = (list(model.answers(requests, seed)) for seed in (0, 0, 1))
    assert first == again != other and [answer.class_id for answer in first] == ["n01", "n02", "n03"]
    assert model.name == "tiny-llm" and model.revision.startswith("sha256:")


def test_causal_model__compositions_fill_in_where_it_says_nothing_useful(tiny_llm: Path, tmp_path: Path) -> None:
    out = tmp_path / "out.jsonl"
    ended = call(
        main, "prompts", "make", "digits_sd/c_cfg2", "-o", out, "--per-class", 6, "--llm", tiny_llm, "--tries", 1
    )
    assert ended.returncode == 0, ended.stderr
    rows = [json.loads(line) for line in out.read_text().splitlines()]
    assert len(rows) == 60 and {row["source"] for row in rows if row["class"] != "n13742358"} == {"composed"}
    facts = json.loads(Path(f"{out}.json").read_text())
    assert facts["num_answers"] == 10 and facts["lengths_checked"] and facts["revision"].startswith("sha256:")
