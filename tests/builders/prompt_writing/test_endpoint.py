import itertools
import json
import random
import re
from pathlib import Path

import pytest

from builders.errors import UnreachableError, UserError
from builders.prompt_writing.endpoint import Endpoint
from builders.prompt_writing.write_prompts import write_prompts
from builders.recipes.recipe import Recipe
from tests.loopback.chat import ChatServer
from tests.loopback.server import failing, running

KEY = "sk-do-not-tell"
NUMBERS = itertools.count()


@pytest.fixture(autouse=True)
def _key(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", KEY)
    monkeypatch.setenv("HF_TOKEN", "hf_also_secret")
    monkeypatch.setattr("builders.storage.retry._wait", lambda state: 0.0)


def captions(request: str) -> str:
    lemma = re.findall(r"the words '(.*?)'", request)[0]
    return "\n".join(f"{n}. {lemma} in place {next(NUMBERS)}" for n in range(25))


def endpoint(server: ChatServer, max_requests: int = 0, key: str = "OPENAI_API_KEY") -> Endpoint:
    return Endpoint(f"{server.url}/v1", "m", key, concurrency=4, max_requests=max_requests)


def test_endpoint__failures_garbage_and_cut_answers_are_survived(recipe: Recipe, tmp_path: Path) -> None:
    garbage = itertools.cycle(
        ["", "raw:<html>", 'raw:{"choices": []}', "raw:[]", KEY, "no captions", 'raw:{"choices": [{']
    )
    dice = random.Random(1)

    def answer(request: str) -> str:
        return next(garbage) if dice.random() < 0.3 else captions(request)

    with running(ChatServer(answer, key=KEY)) as server:
        server.traffic.choose = failing(0.1)
        written = write_prompts(recipe, tmp_path / "out.csv", 60, endpoint(server), tries=9)
    assert written.num_rows == 180 and written.num_composed == 0
    lines = [json.loads(line) for line in (tmp_path / "out.csv.answers.jsonl").read_text().splitlines()[1:]]
    assert any(line["problem"] for line in lines)
    files = [path.read_text() for path in tmp_path.iterdir()]
    assert len(files) == 3 and not any(KEY in text or "secret" in text for text in files)


def test_endpoint__the_number_of_requests_is_limited_and_more_continue(recipe: Recipe, tmp_path: Path) -> None:
    with running(ChatServer(captions)) as server:
        written = write_prompts(recipe, tmp_path / "out.csv", 50, endpoint(server, max_requests=4))
        assert server.traffic.requests.total() == 4 and written.num_composed == 50
        written = write_prompts(recipe, tmp_path / "out.csv", 50, endpoint(server))
        assert server.traffic.requests.total() == 6 and written.num_composed == 0


def test_endpoint__a_refused_key_is_one_sentence_without_it(recipe: Recipe, tmp_path: Path) -> None:
    with running(ChatServer(captions, key="another")) as server, pytest.raises(UserError) as caught:
        write_prompts(recipe, tmp_path / "out.csv", 5, endpoint(server))
    assert "refuses the request" in str(caught.value) and KEY not in str(caught.value)


def test_endpoint__without_a_key_none_is_sent(recipe: Recipe, tmp_path: Path) -> None:
    with running(ChatServer(captions)) as server:
        write_prompts(recipe, tmp_path / "out.csv", 5, endpoint(server, key="UNSET"))
        assert server.authorizations == {""}


def test_endpoint__one_that_is_away_can_be_continued(recipe: Recipe, tmp_path: Path) -> None:
    with running(ChatServer(captions)) as server:
        gone = endpoint(server)
    with pytest.raises(UnreachableError, match="run it again to continue"):
        write_prompts(recipe, tmp_path / "out.csv", 5, gone)
