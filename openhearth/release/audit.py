"""A spot check of a training: some segments between released checkpoints are trained again and compared bit for bit.

Which segments is the auditor's own chance, never a function of the release: whoever trains could otherwise make release after release
until the questions suit the answers. Where cheating pays most is always asked: the first segment, the last, and those in which the
learning rate turns. Audits add up: each leaves a signed attestation, and many of them cover the whole.
"""

from __future__ import annotations

import math
import secrets
import shutil
import tempfile
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from openhearth.errors import DamagedError, HearthError
from openhearth.ledger import Json, read_json, require_space, write_json
from openhearth.release import checkpoints, sign
from openhearth.release.environment import environment, planned_threads
from openhearth.release.manifest import strict_json
from openhearth.release.segments import Replay, State, read_state, recorded_end
from openhearth.release.verify import verify

PREDICATE = "urn:openhearth:audit:1"
EQUAL, DIFFERENT = "equal", "different"


@dataclass(frozen=True)
class Segment:
    """A piece of the training: from one number of steps of pretraining to another; the last is fine-tuning, whole."""

    number: int
    begin: int
    end: int
    always: str
    """Why it is always audited; '' when chance decides."""

    @property
    def name(self) -> str:
        """`steps 100 to 200`, or `fine-tuning`."""
        return f"steps {self.begin:,} to {self.end:,}" if self.end > self.begin else "fine-tuning"


@dataclass
class Audit:
    """What an audit found."""

    root: str
    segments: list[Segment]
    results: dict[int, str]
    """`equal` or `different`, by the number of the segment."""
    drawn: list[int]
    """Those that chance chose."""
    details: dict[int, str]

    @property
    def ok(self) -> bool:
        """Whether every segment that was trained again came out the same."""
        return all(result == EQUAL for result in self.results.values())

    def chances(self) -> dict[int, float]:
        """The probability of having met one of m bad segments, for some m, where all bad ones avoid those that are always audited."""
        open_ = len(self.segments) - sum(bool(segment.always) for segment in self.segments)
        return {bad: caught(open_, bad, len(self.drawn)) for bad in (1, 2, 3, 5, 10) if bad <= open_}


def caught(total: int, bad: int, drawn: int) -> float:
    """The probability that `drawn` of `total` segments, without replacement, hold at least one of the `bad` (hypergeometric)."""
    return 1.0 - math.comb(total - bad, drawn) / math.comb(total, drawn)


def segments_of(replay_steps: int, leaves: Sequence[Json], turns: Iterable[int]) -> list[Segment]:
    """The segments that the leaves cut the training into; `turns` are steps at which the learning rate turns."""
    ends = [leaf["step"] for leaf in leaves]
    turning = list(turns)
    found = []
    for number, (begin, end) in enumerate(zip([0, *ends[:-1]], ends, strict=True)):
        why = "the first" if number == 0 else "the end of pretraining" if end == replay_steps else ""
        if not why and any(begin < turn <= end for turn in turning):
            why = "the learning rate turns in it"
        found.append(Segment(number, begin, end, why))
    return [*found, Segment(len(ends), replay_steps, replay_steps, "the last")]


def audit(folder: Path, count: int, only: Sequence[int] = (), tell: Callable[[str], None] = lambda text: None) -> Audit:
    """Audit the release in `folder`: the segments that are always asked and `count` others by chance, or the numbers in `only`.

    Raises HearthError for a release that does not verify, has no checkpoints or not its text.
    """
    report = verify(folder)
    if not report.ok:
        raise DamagedError(f"{folder}: not verified: {report.fault}")
    release = report.folder
    if not (release / checkpoints.INDEX).is_file():
        raise HearthError(f"{release}: holds no checkpoints; make it with: hearth release RUN --checkpoints N, or use hearth rebuild")
    leaves = checkpoints.check_index(read_json(release / checkpoints.INDEX))
    place = Path(tempfile.mkdtemp(prefix="hearth-audit-"))
    try:
        require_space(place, 4 * sum(path.stat().st_size for path in release.rglob("*") if path.is_file()), "an audit")
        replay = Replay(release, place)
        if leaves[-1]["step"] != replay.steps:
            raise DamagedError(f"{checkpoints.INDEX}: ends after {leaves[-1]['step']:,} steps, pretraining has {replay.steps:,}")
        schedule = replay.course.settings.schedule
        turns = {round(schedule.warmup * replay.steps), round((1 - schedule.cooldown) * replay.steps)} - {0}
        segments = segments_of(replay.steps, leaves, turns)
        chosen, drawn = choose(segments, count, only)
        found = Audit(report.root, segments, {}, drawn, {})
        for done, segment in enumerate(chosen):
            began = time.monotonic()
            found.details[segment.number] = fault = _again(release, replay, leaves, segment)
            found.results[segment.number] = DIFFERENT if fault else EQUAL
            left = (time.monotonic() - began) * (len(chosen) - done - 1)
            tell(f"segment {segment.number} ({segment.name}): {fault or EQUAL}" + (f"; about {left:,.0f} s left" if left else ""))
        return found
    finally:
        shutil.rmtree(place, ignore_errors=True)


def choose(segments: Sequence[Segment], count: int, only: Sequence[int]) -> tuple[list[Segment], list[int]]:
    """The segments to train again, and which of them chance drew, from the operating system's randomness."""
    if only:
        if unknown := [number for number in only if not 0 <= number < len(segments)]:
            raise HearthError(f"--only {unknown[0]}: there are the segments 0 to {len(segments) - 1}")
        return [segments[number] for number in sorted(set(only))], []
    free = [segment.number for segment in segments if not segment.always]
    drawn = sorted(secrets.SystemRandom().sample(free, min(count, len(free))))
    return [segment for segment in segments if segment.always or segment.number in drawn], drawn


def _again(release: Path, replay: Replay, leaves: Sequence[Json], segment: Segment) -> str:
    """Train a segment again; '' when it ends in the recorded state, else what is different."""
    folder = release / checkpoints.FOLDER
    if segment.number == 0:
        trainer, history = replay.start()
    else:
        trainer, history = replay.restored(read_state(folder, leaves[segment.number - 1]))
    if segment.number == len(leaves):
        if trainer.tensor_digests() != recorded_end(release, "pretrain"):
            return "the last checkpoint does not hold the weights that pretraining ended with"
        made, recorded = replay.tuned(trainer), recorded_end(release, "sft")
        return _first("tensor", made, recorded or trainer.tensor_digests())
    replay.advance(trainer, history, segment.end)
    made_state = replay.state(trainer, history)
    if made_state.digest() == leaves[segment.number]["state"]:
        return ""
    return _difference(made_state, read_state(folder, leaves[segment.number]))


def _first(what: str, made: Json, recorded: Json) -> str:
    names = sorted(name for name in {*made, *recorded} if made.get(name) != recorded.get(name))
    return f"{what} {names[0]} differs ({len(names)} in all)" if names else ""


def _difference(made: State, recorded: State) -> str:
    """What of a state is not the recorded one."""
    for name, tensor in sorted(made.tensors.items()):
        other = recorded.tensors.get(name)
        if other is None or other.shape != tensor.shape:
            return f"the buffer {name} is missing or has another size"
        if not tensor.equal(other):
            apart = (tensor - other).abs()
            return f"{int((apart > 0).sum()):,} values of {name} differ, by {float(apart.max()):.3g} at most"
    for name, values in made.history.items():
        if values != recorded.history.get(name):
            return f"{name} of the steps so far differ"
    return "the state differs in its last bits"


# -- attestations -----------------------------------------------------------------------------------------------------------


def attest(found: Audit, release: Path, key: sign.Key, target: Path) -> None:
    """Write a signed statement of what was audited and found."""
    machine = environment(planned_threads(release))
    predicate = {
        "segments": len(found.segments),
        "results": {str(number): result for number, result in sorted(found.results.items())},
        "drawn": found.drawn,
        "machine": {"cpu": machine["cpu"]["model"], "capability": machine["torch"]["cpu_capability"], "packages": machine["packages"]},
        "signer": key.public.decode(),
    }
    subject = [{"name": "release", "digest": {"sha256": found.root}}]
    statement = {"_type": sign.STATEMENT, "subject": subject, "predicateType": PREDICATE, "predicate": predicate}
    write_json(target, sign.seal_statement(statement, key))


@dataclass
class Coverage:
    """What several attestations say of one release, segment by segment: the fingerprints of who found it equal, and different."""

    root: str
    segments: int
    equal: dict[int, set[str]]
    different: dict[int, set[str]]

    @property
    def uncovered(self) -> list[int]:
        """Segments that nobody found equal."""
        return [number for number in range(self.segments) if not self.equal.get(number)]

    @property
    def map(self) -> str:
        """A character for each segment: how many found it equal (9 for more), `.` for nobody, `X` where somebody found it different."""
        return "".join(
            "X" if self.different.get(number) else str(min(9, len(self.equal.get(number, ())))).replace("0", ".")
            for number in range(self.segments)
        )

    @property
    def complete(self) -> bool:
        """Whether every segment was found equal by somebody and different by nobody."""
        return not self.uncovered and not any(self.different.values())


def merge(files: Sequence[Path], trusted: Sequence[str] = (), root: str = "") -> Coverage:
    """Add attestations up; only those of `trusted` fingerprints where some are given, and of the release `root` where it is given.

    Raises HearthError for one that is not signed by its signer, or about another release.
    """
    found: Coverage | None = None
    for file in files:
        try:
            bundle = strict_json(file.read_bytes()[:1_000_000], str(file))
        except OSError as error:
            raise HearthError(f"{file}: not readable ({error.strerror})") from None
        who, about, predicate = _read(bundle, str(file))
        if trusted and who not in trusted:
            raise sign.UntrustedError(f"{file}: signed by {who}, who is not among the trusted")
        if about != (root or (found.root if found else about)):
            raise HearthError(f"{file}: is about another release ({about[:16]}...)")
        found = found or Coverage(about, predicate["segments"], {}, {})
        if predicate["segments"] != found.segments:
            raise HearthError(f"{file}: counts {predicate['segments']} segments, another attestation {found.segments}")
        for number, result in predicate["results"].items():
            (found.equal if result == EQUAL else found.different).setdefault(int(number), set()).add(who)
    if found is None:
        raise HearthError("--merge: no attestation was given")
    return found


def _read(bundle: object, where: str) -> tuple[str, str, Json]:
    """Who signed an attestation, the root that it is about, and what it says."""
    import base64

    try:
        payload = strict_json(base64.b64decode(bundle["dsseEnvelope"]["payload"]), where)  # type: ignore[index]
        public = sign.read_public(payload["predicate"]["signer"].encode(), where)
    except (KeyError, TypeError, ValueError, AttributeError):
        raise sign.SignatureError(f"{where}: not an attestation of an audit") from None
    statement = sign.open_statement(bundle, public, where)
    predicate = statement["predicate"]
    fine = statement.get("predicateType") == PREDICATE and type(predicate.get("segments")) is int and 0 < predicate["segments"] <= 10_000
    fine = fine and isinstance(predicate.get("results"), dict)
    fine = fine and all(
        number.isdecimal() and int(number) < predicate["segments"] and result in (EQUAL, DIFFERENT)
        for number, result in predicate["results"].items()
    )
    try:
        (subject,) = statement["subject"]
        root = subject["digest"]["sha256"]
    except (KeyError, TypeError, ValueError):
        fine, root = False, ""
    if not fine or not isinstance(root, str):
        raise sign.SignatureError(f"{where}: not an attestation of an audit")
    return sign.fingerprint(public), root, predicate
