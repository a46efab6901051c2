"""Asks a language model behind an OpenAI-style endpoint, several requests at a time.

The key comes from the environment. It appears in no file and no message.
"""

import itertools
import json
import os
import threading
import urllib.request
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from http.client import HTTPException
from urllib.parse import urlsplit

from builders.errors import UnreachableError, UserError, first_line
from builders.prompt_writing.answer_log import Answer
from builders.prompt_writing.instruction import Request
from builders.storage.retry import http_status, is_transient, retry

NUM_ATTEMPTS = 5
TOKENS_PER_CAPTION = 64
SECONDS = 120.0
"""Time after which a request counts as lost."""


class RequestsUsedUpError(Exception):
    """The number of requests that the user allows is reached."""


class Endpoint:
    """A language model at a URL; it answers requests as `Author` says."""

    def __init__(self, url: str, model: str, key_variable: str, concurrency: int, max_requests: int) -> None:
        """Takes the URL that comes before /chat/completions, and a model's name there, or "" for the server's own.

        Raises:
            UserError: the URL cannot be one.
        """
        split_url = urlsplit(url)
        if split_url.scheme not in ("http", "https") or not split_url.hostname or split_url.username or split_url.query:
            raise UserError(
                f"--endpoint must be a URL such as https://host/v1, without a key in it; {key_variable} holds the key"
            )
        self.name = f"{model or 'the model'} at {split_url.scheme}://{split_url.netloc}{split_url.path}"
        self.revision = ""
        self._key = os.environ.get(key_variable, "")
        self._model, self._concurrency, self._num_left = model, concurrency, max_requests or -1
        self._lock = threading.Lock()
        self._url = f"{url.rstrip('/')}/chat/completions"

    def answers(self, requests: Sequence[Request], seed: int) -> Iterator[Answer]:
        """Yields the answers as they come. Requests beyond the limit get none.

        Raises:
            UserError: the endpoint refuses the requests.
            UnreachableError: it does not answer.
        """
        with ThreadPoolExecutor(self._concurrency) as pool:
            rest = iter(requests)
            waiting = self._submit(pool, itertools.islice(rest, self._concurrency), seed)
            try:
                while waiting:
                    done, waiting = wait(waiting, return_when=FIRST_COMPLETED)
                    for future in done:
                        if answer := future.result():
                            yield answer
                    waiting |= self._submit(pool, itertools.islice(rest, len(done)), seed)
            finally:
                pool.shutdown(cancel_futures=True)

    def _submit(self, pool: ThreadPoolExecutor, requests: Iterable[Request], seed: int) -> set[Future[Answer | None]]:
        return {pool.submit(self._ask, request, seed) for request in requests}

    def _ask(self, request: Request, seed: int) -> Answer | None:
        """Returns the answer; None if no request is left."""
        try:
            text = retry(self._post, request, seed, num_attempts=NUM_ATTEMPTS)
        except RequestsUsedUpError:
            return None
        except Exception as error:
            status, reason = http_status(error), self._without_key(first_line(error))
            if status is not None and 400 <= status < 500 and not is_transient(error):
                raise UserError(f"{self.name} refuses the request ({reason}); check model and key") from None
            if is_transient(error):
                raise UnreachableError(f"{self.name} does not answer ({reason}); run it again to continue") from None
            # An answer that is no chat completion.
            return Answer(request.class_id, request.number, "", f"{type(error).__name__}: {reason}"[:200])
        return Answer(request.class_id, request.number, self._without_key(text), "" if text else "empty answer")

    def _post(self, request: Request, seed: int) -> str:
        with self._lock:
            if self._num_left == 0:
                raise RequestsUsedUpError
            self._num_left -= 1
        body = {
            **({"model": self._model} if self._model else {}), "temperature": 1.0, "seed": (seed + request.number) % 2**31,
            "messages": [{"role": "user", "content": request.text}], "max_tokens": TOKENS_PER_CAPTION * request.count,
        }  # fmt: skip
        headers = {
            "Content-Type": "application/json",
            **({"Authorization": f"Bearer {self._key}"} if self._key else {}),
        }
        sent = urllib.request.Request(self._url, json.dumps(body).encode(), headers)
        try:
            with urllib.request.urlopen(sent, timeout=SECONDS) as response:
                answered = json.load(response)
        except HTTPException as error:
            raise ConnectionError(f"the answer was cut short ({error})") from None
        return str(answered["choices"][0]["message"]["content"] or "")

    def _without_key(self, text: str) -> str:
        return text.replace(self._key, "…") if self._key else text
