"""Which documents are copies, and which of them stays: of equal texts, of near-duplicates, of corpora built earlier, of passages.

The idea: all decisions are made once, over signatures, in an order that is a property of the input (source, then uri), so that neither the
number of workers nor the order of reading shows. Clusters keep all their members: when the kept one is removed the next takes its place.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy
import pyarrow
import pyarrow.parquet

from openhearth.data import minhash
from openhearth.data.batches import Why
from openhearth.data.settings import Duplicates
from openhearth.data.steps import SIGNED
from openhearth.ledger import Json

CLUSTERS = pyarrow.schema(
    [(name, pyarrow.string()) for name in ("cluster", "doc_id", "uri", "kind")]
    + [("similarity", pyarrow.float64()), ("kept", pyarrow.bool_()), ("corpus", pyarrow.string())]
)
"""A row for each member of each cluster; `cluster` is the id of the one that is kept, `corpus` the folder of an earlier corpus."""


@dataclass
class Verdicts:
    """What is decided about copies, by doc_id."""

    why: dict[str, Why] = field(default_factory=dict)
    cluster: dict[str, str] = field(default_factory=dict)
    clusters: list[Json] = field(default_factory=list)
    cut: dict[str, list[int]] = field(default_factory=dict)  # numbers of the passages to take out
    superseded: list[Json] = field(default_factory=list)


@dataclass(frozen=True)
class _Signed:
    """All documents in order, those of earlier corpora before the others, or behind them when they lose."""

    table: pyarrow.Table
    corpus: list[str]

    def strings(self, name: str) -> list[str]:
        values: list[str] = self.table.column(name).to_pylist()
        return values


def gathered(folders: Sequence[Path]) -> pyarrow.Table:
    """The tables of signatures of several units, one behind the other."""
    return pyarrow.concat_tables([pyarrow.parquet.read_table(folder / "signed.parquet") for folder in folders] or [SIGNED.empty_table()])


def decide(new: pyarrow.Table, earlier: Sequence[tuple[str, pyarrow.Table]], asked: Duplicates) -> Verdicts:
    """Which of `new` go, as copies among themselves or of documents in `earlier` (corpus, table); `new` is in order of preference."""
    tables = [table for _, table in earlier]
    names = [name for name, table in earlier for _ in range(table.num_rows)]
    ahead = asked.loser == "new"
    table = pyarrow.concat_tables([*tables, new] if ahead else [new, *tables])
    corpus = [*names, *[""] * new.num_rows] if ahead else [*[""] * new.num_rows, *names]
    signed = _Signed(table, corpus)
    verdicts = Verdicts()
    parent = _clusters(signed, asked)
    _judge(signed, parent, asked, verdicts)
    if asked.passages != "none":
        _cut(signed, asked, verdicts)
    return verdicts


def _clusters(signed: _Signed, asked: Duplicates) -> list[tuple[int, str]]:
    """For each document the place of the one that stays in its stead (itself where it stays), and by which kind of copy."""
    size = signed.table.num_rows
    digests = signed.table.column("sha256").to_pylist()
    stays = list(range(size))
    if asked.exact:
        first: dict[bytes, int] = {}
        stays = [first.setdefault(digest, place) for place, digest in enumerate(digests)]
    kinds = ["exact" if stays[place] != place else "" for place in range(size)]
    if asked.near:
        raw = signed.table.column("signature").to_pylist()
        chosen = numpy.array([place for place in range(size) if stays[place] == place and raw[place]], numpy.int64)
        if len(chosen):
            values = numpy.frombuffer(b"".join(raw[place] for place in chosen.tolist()), numpy.uint32).reshape(len(chosen), -1)
            edges = minhash.pairs(values, asked.bands, asked.similarity)
            for place, root in enumerate(minhash.components(len(chosen), edges).tolist()):
                if root != place:
                    stays[chosen[place]], kinds[chosen[place]] = int(chosen[root]), "near"
    return [(stays[stays[place]], kinds[place]) for place in range(size)]  # an exact copy follows its original into its cluster


def _judge(signed: _Signed, parent: Sequence[tuple[int, str]], asked: Duplicates, verdicts: Verdicts) -> None:
    ids, uris = signed.strings("doc_id"), signed.strings("uri")
    members: dict[int, list[int]] = {}
    for place, (root, _) in enumerate(parent):
        if root != place:
            members.setdefault(root, []).append(place)
    signatures = signed.table.column("signature")
    for root, others in members.items():
        if all(signed.corpus[place] for place in (root, *others)):
            continue  # copies inside earlier corpora are theirs to settle
        head = numpy.frombuffer(signatures[root].as_py(), numpy.uint32)
        for place in (root, *others):
            own, kind = signed.corpus[place], parent[place][1]
            alike = 1.0
            if kind == "near":
                alike = float((numpy.frombuffer(signatures[place].as_py(), numpy.uint32) == head).mean())
            row = {"cluster": ids[root], "doc_id": ids[place], "uri": uris[place], "kind": kind or "kept", "similarity": alike}
            verdicts.clusters.append({**row, "kept": place == root or bool(own), "corpus": own})
            if own and place != root:
                verdicts.superseded.append({"corpus": own, "doc_id": ids[place], "uri": uris[place], "by": uris[root]})
            if own:
                continue
            verdicts.cluster[ids[place]] = ids[root]
            if place != root:
                rule = f"{kind}_duplicate" + ("_of_earlier" if signed.corpus[root] else "")
                value = uris[root] if kind == "exact" else f"{alike:.3f} to {uris[root]}"
                threshold = "texts seen once" if kind == "exact" else f"estimated similarity below {asked.similarity}"
                verdicts.why[ids[place]] = Why(rule, value, threshold)


def _cut(signed: _Signed, asked: Duplicates, verdicts: Verdicts) -> None:
    """Passages that stood in a document that stays are taken out of those behind it; a document of little else goes."""
    ids = signed.strings("doc_id")
    stay = numpy.array([(not own and one not in verdicts.why) or bool(own) for own, one in zip(signed.corpus, ids, strict=True)])
    table = signed.table.filter(pyarrow.array(stay))
    names: list[str] = table.column("doc_id").to_pylist()
    own = [corpus for corpus, one in zip(signed.corpus, stay.tolist(), strict=True) if one]
    flat = table.column("passages").combine_chunks()
    hashes = flat.flatten().to_numpy(zero_copy_only=False)
    edges = numpy.concatenate(([0], numpy.cumsum(flat.value_lengths().to_numpy(zero_copy_only=False)))).astype(numpy.int64)
    lengths: list[list[int]] = table.column("lengths").to_pylist()
    _, first = numpy.unique(hashes, return_index=True)
    repeated = numpy.ones(len(hashes), bool)
    repeated[first] = False
    repeated &= hashes != 0
    characters: list[int] = table.column("characters").to_pylist()
    for place, name in enumerate(names):
        gone = numpy.flatnonzero(repeated[edges[place] : edges[place + 1]]).tolist()
        if not gone or own[place]:
            continue
        lost = sum(lengths[place][number] for number in gone)
        if lost > (1 - asked.min_left) * characters[place]:
            share = 1 - lost / characters[place]
            verdicts.why[name] = Why("duplicate_passages", f"{share:.3f} is new", f"at least {asked.min_left}")
        else:
            verdicts.cut[name] = gone


def cluster_table(verdicts: Verdicts) -> pyarrow.Table:
    """The clusters as a table, the member that stays first in each."""
    rows = sorted(verdicts.clusters, key=lambda row: (row["cluster"], row["doc_id"] != row["cluster"], row["doc_id"]))
    return pyarrow.Table.from_pylist(rows, schema=CLUSTERS)
