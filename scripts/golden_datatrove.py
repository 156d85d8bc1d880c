"""What datatrove's filters say of the texts in tests/data/flawed_texts.py, for tests/data/test_quality.py to hold our rules against.

    python3 -m venv /tmp/datatrove && /tmp/datatrove/bin/pip install 'datatrove[io,processing]==0.10.1' spacy
    /tmp/datatrove/bin/python scripts/golden_datatrove.py

Each filter is asked twice: with the words that `str.split()` gives (ours), and with its own English tokenizer (spaCy).
"""

from __future__ import annotations

import importlib.metadata
import importlib.util
import json
from pathlib import Path
from typing import Any

TEXTS = 420
ROOT = Path(__file__).parents[1]


def main() -> None:
    """Write tests/data/golden_datatrove.json."""
    from datatrove.data import Document
    from datatrove.pipeline.filters import fineweb_quality_filter, gopher_quality_filter, gopher_repetition_filter

    source = importlib.util.spec_from_file_location("flawed_texts", ROOT / "tests/data/flawed_texts.py")
    assert source is not None and source.loader is not None
    texts = importlib.util.module_from_spec(source)
    source.loader.exec_module(texts)
    filters = {
        "gopher_quality": gopher_quality_filter.GopherQualityFilter(),
        "gopher_repetition": gopher_repetition_filter.GopherRepetitionFilter(),
        "fineweb": fineweb_quality_filter.FineWebQualityFilter(),
    }
    modules = (fineweb_quality_filter, gopher_quality_filter, gopher_repetition_filter)
    golden: dict[str, Any] = {"datatrove": importlib.metadata.version("datatrove"), "spacy": importlib.metadata.version("spacy")}
    own = [module.split_into_words for module in modules]
    for words in ("spaces", "spacy"):
        for module, function in zip(modules, own, strict=True):
            module.split_into_words = (lambda text, language: text.split()) if words == "spaces" else function
        golden[words] = {
            name: [said(filter_.filter(Document(text=texts.flawed(number), id=str(number)))) for number in range(TEXTS)]
            for name, filter_ in filters.items()
        }
    (ROOT / "tests/data/golden_datatrove.json").write_text(json.dumps(golden, separators=(",", ":")) + "\n")


def said(answer: bool | tuple[bool, str]) -> str:
    """The reason for which a filter drops a text, or ''."""
    return "" if answer is True else answer[1] if isinstance(answer, tuple) else "dropped"


if __name__ == "__main__":
    main()
