"""Keeps every answer of a language model in a file beside the prompts, so that a killed run continues.

The first line has the model and the instruction; each other line is one answer. A line that was cut short by a crash
does not count.
"""

import json
import os
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from builders.errors import UserError


@dataclass(frozen=True)
class Answer:
    class_id: str
    number: int
    """How many requests for this class came before."""
    text: str
    problem: str = ""
    """Why there is no text."""


class AnswerLog:
    """The answers to the requests of one command, in the order in which they came."""

    def __init__(self, path: Path, settings: dict[str, Any]) -> None:
        """Opens the file, or begins it.

        Raises:
            UserError: the file is from other settings, or cannot be read or written.
        """
        self.path, self.answers = path, list[Answer]()
        header = json.dumps(settings, sort_keys=True, ensure_ascii=False)
        try:
            content = path.read_bytes() if path.is_file() else b""
            # Not splitlines: an answer may hold other line separators of Unicode.
            lines = content[: content.rfind(b"\n") + 1].decode().split("\n")[:-1]
            if lines and lines[0] != header:
                raise UserError(
                    f"'{path}' holds the answers of {json.loads(lines[0]).get('model', 'another model')!r} or to another "
                    "instruction; remove it, or choose another file"
                )
            self.answers = [Answer(**json.loads(line)) for line in lines[1:]]
            self._file = path.open("r+b" if lines else "wb")
            self._file.truncate(content.rfind(b"\n") + 1)
            self._file.seek(0, os.SEEK_END)
        except (OSError, ValueError, TypeError, AttributeError) as error:
            raise UserError(f"'{path}' cannot be used ({error}); remove it, or choose another file") from None
        if not lines:
            self._write(header)

    def add(self, answer: Answer) -> None:
        """Appends an answer, which survives the end of this process."""
        self.answers.append(answer)
        self._write(json.dumps(asdict(answer), ensure_ascii=False))

    def close(self) -> None:
        self._file.close()

    def _write(self, line: str) -> None:
        self._file.write(f"{line}\n".encode())
        self._file.flush()
