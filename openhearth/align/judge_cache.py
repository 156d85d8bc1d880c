"""What an endpoint answered, kept on disk by the hash of the request: a run that was killed, or ran out of budget, pays nothing twice.

One file per request, written whole or not at all. A file holds the request without its key, the answer and what it cost; the sum of their
costs is what has been spent.
"""

from __future__ import annotations

from pathlib import Path

from openhearth.errors import DamagedError
from openhearth.ledger import Json, digest_json, read_json, write_json


class Cache:
    """Answers by request."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        folder.mkdir(parents=True, exist_ok=True)
        self.spent = sum(float(self._read(path)["cost"]) for path in sorted(folder.glob("*.json")))

    @staticmethod
    def key(address: str, request: Json) -> str:
        """The hash of everything that decides an answer: where it is asked and what."""
        return digest_json({"address": address, "request": request})

    def get(self, key: str) -> Json | None:
        """The answer that was paid for, or None. Raises DamagedError naming a file that is not one of ours."""
        path = self.folder / f"{key}.json"
        return self._read(path) if path.is_file() else None

    def put(self, key: str, request: Json, response: Json, cost: float) -> None:
        """Keep an answer, durably, before anything is done with it."""
        write_json(self.folder / f"{key}.json", {"request": request, "response": response, "cost": cost})
        self.spent += cost

    def _read(self, path: Path) -> Json:
        content = read_json(path)
        if not isinstance(content, dict) or not {"response", "cost"} <= set(content) or not isinstance(content["cost"], int | float):
            raise DamagedError(f"{path}: not an answer that was kept here; delete it to ask (and pay) again")
        return content
