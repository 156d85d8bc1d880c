"""Documents with many words of a list that the user gives. No list comes with OpenHearth, and none is used unless it is named.

A list of words finds words, not meaning: it drops medicine and the speech of some groups more than others' (Dodge et al. 2021, section
4.3), which is why it is off and why the share of words decides, not one word.
"""

from __future__ import annotations

from pathlib import Path

import numpy
import pyarrow

from openhearth.data.batches import Judged, Why, judged, texts_of
from openhearth.data.words import Codes, Hashes, Words
from openhearth.inputs import read_small


def word_list(file: str) -> Hashes:
    """The hashes of the words in a file, one a line; lines that begin with # are remarks."""
    text = read_small(Path(file), limit=4_000_000, what="list of words", suffix=".txt")
    words = [line.strip() for line in text.splitlines() if line.strip() and not line.startswith("#")]
    return numpy.unique(Words.plain(Codes.of(words)).hashes)


def judge_toxicity(batch: pyarrow.RecordBatch, toxic: Hashes, most: float) -> Judged:
    """The stage: documents go when more than a share `most` of their words is on the list."""
    words = Words.plain(Codes.of(texts_of(batch)))
    of = numpy.repeat(numpy.arange(batch.num_rows), words.counts)
    shares = numpy.bincount(of, numpy.isin(words.hashes, toxic), batch.num_rows) / numpy.maximum(1, words.counts)
    return judged(batch, "toxicity", [Why("max_toxic", f"{share:.4f}", f"at most {most}") if share > most else None for share in shares])
