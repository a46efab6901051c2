"""An OpenAI-style endpoint on 127.0.0.1 that answers by a function; `Traffic.choose` plants faults in its answers."""

import json
from collections.abc import Callable

from tests.loopback.server import Handler, Server


class ChatServer(Server):
    def __init__(self, answer: Callable[[str], str], key: str = "") -> None:
        super().__init__(_Chat)
        self.answer, self.key = answer, key
        self.authorizations: set[str] = set()


class _Chat(Handler):
    server: ChatServer

    def answer(self) -> None:
        requested = json.loads(self.body())
        self.server.authorizations.add(self.headers.get("Authorization", ""))
        if self.server.key and self.headers.get("Authorization") != f"Bearer {self.server.key}":
            self.send(b'{"error": "wrong key"}', 401)
            return
        text = self.server.answer(requested["messages"][-1]["content"])
        if text.startswith("raw:"):
            self.send(text.removeprefix("raw:").encode(), headers={"Content-Type": "application/json"})
            return
        message = {"role": "assistant", "content": text}
        body = {
            "id": "1", "object": "chat.completion", "created": 0, "model": requested["model"],
            "choices": [{"index": 0, "message": message, "finish_reason": "stop"}],
            "usage": {"prompt_tokens": 1, "completion_tokens": 1, "total_tokens": 2},
        }  # fmt: skip
        self.send(json.dumps(body).encode(), headers={"Content-Type": "application/json"})
