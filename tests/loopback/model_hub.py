"""A Hub on 127.0.0.1 with one model, which the stock client downloads; `is_gated` refuses its files as the real Hub does.

with running(ModelHub(folder)) as hub: ... HF_ENDPOINT=hub.url
"""

import hashlib
import json
from pathlib import Path
from urllib.parse import unquote

from tests.loopback.server import Handler, Server

COMMIT = "c" * 40


class ModelHub(Server):
    def __init__(self, id: str, folder: Path, *, is_gated: bool = False, license: str = "other") -> None:
        super().__init__(_ModelHub)
        self.id, self.is_gated, self.license = id, is_gated, license
        self.files = {
            path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()
        }


class _ModelHub(Handler):
    server: ModelHub

    def answer(self) -> None:
        path = unquote(self.path.partition("?")[0])
        info = f"/api/models/{self.server.id}"
        if path.startswith(f"{info}/tree/"):
            self._send_json([_entry(name, content) for name, content in self.server.files.items()])
        elif path == info or path.startswith(f"{info}/revision/"):
            siblings = [{"rfilename": name} for name in self.server.files]
            self._send_json(
                {
                    "id": self.server.id,
                    "sha": COMMIT,
                    "siblings": siblings,
                    "cardData": {"license": self.server.license},
                }
            )
        else:
            self._send_file(path.removeprefix(f"/{self.server.id}/resolve/").partition("/")[2])

    def _send_file(self, name: str) -> None:
        if self.server.is_gated:
            self.send(b"", 401, {"X-Error-Code": "GatedRepo", "X-Error-Message": "Access is restricted"})
        elif name in self.server.files:
            content = self.server.files[name]
            etag = hashlib.sha1(content).hexdigest()
            self.send(content, headers={"ETag": f'"{etag}"', "X-Repo-Commit": COMMIT})
        else:
            self.send(b"", 404, {"X-Error-Code": "EntryNotFound"})

    def _send_json(self, value: object) -> None:
        self.send(json.dumps(value).encode(), headers={"Content-Type": "application/json"})


def _entry(name: str, content: bytes) -> dict[str, object]:
    return {"type": "file", "path": name, "size": len(content), "oid": hashlib.sha1(content).hexdigest()}
