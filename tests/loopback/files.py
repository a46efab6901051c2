"""Serves a directory over HTTP with ranges, as an object store or a plain web server does.

python -m tests.loopback.files DIR PORT
"""

import sys
from pathlib import Path
from urllib.parse import unquote

from tests.loopback.server import Handler, Server


class _Files(Handler):
    server: "FileServer"

    def answer(self) -> None:
        path = self.server.root / unquote(self.path.partition("?")[0]).lstrip("/")
        if ".." in path.parts or not path.is_file():
            self.send(b"not found", 404)
            return
        self.send(path.read_bytes())


class FileServer(Server):
    def __init__(self, root: Path, port: int = 0) -> None:
        super().__init__(_Files, port)
        self.root = root


if __name__ == "__main__":
    FileServer(Path(sys.argv[1]), int(sys.argv[2])).serve_forever()
