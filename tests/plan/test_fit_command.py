"""`hearth plan fit` as a person types it: what is read from tables and ledgers, what is refused and in which words, what is printed."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from openhearth import cli, cli_plan
from openhearth.errors import HearthError
from openhearth.ledger import Ledger, write_json
from openhearth.plan.commands.ledgers import read_ledgers
from openhearth.plan.runs_table import read_table

pytestmark = pytest.mark.filterwarnings("error")

ROOT = Path(__file__).parents[2]
TABLES = ROOT / "openhearth/plan/tables"


def rows(count: int = 12) -> list[tuple[float, float, float]]:
    """Runs of a known law, without noise."""
    found = []
    for number in range(count):
        n = 1e7 * 1.7**number
        d = n * (5 + 13 * (number * 7 % count))
        found.append((n, d, 1.69 + 406.4 / n**0.34 + 410.7 / d**0.28))
    return found


def write(path: Path, header: str = "parameters,tokens,loss", lines: list[str] | None = None) -> Path:
    shown = [f"{n!r},{d!r},{loss!r}" for n, d, loss in rows()] if lines is None else lines
    path.write_text("\n".join([header, *shown]) + "\n")
    return path


def hearth(capfd: pytest.CaptureFixture[str], *arguments: str) -> str:
    assert cli._status(cli_plan.route(["plan", "fit", *arguments])) == 0
    return capfd.readouterr().out


def refused(capfd: pytest.CaptureFixture[str], *arguments: str) -> str:
    assert cli._status(cli_plan.route(["plan", "fit", *arguments])) == 2
    said = capfd.readouterr()
    assert said.out == "" and said.err.startswith("hearth: ") and said.err.count("\n") == 1
    return said.err.removeprefix("hearth: ").rstrip("\n")


# -- tables -------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "header",
    ["parameters,tokens,loss", "N,D,L", "Model Size,Training Tokens,Val Loss", "n_params,num_tokens,eval_loss", "params;tokens;loss"],
)
def test_columns_are_found_by_the_names_that_people_give_them(tmp_path: Path, header: str) -> None:
    lines = [";".join(map(repr, row)) if ";" in header else ",".join(map(repr, row)) for row in rows()]
    table = read_table(write(tmp_path / "runs.csv", header, lines))
    names = header.replace(";", ",").split(",")
    assert table.columns == dict(zip(("parameters", "tokens", "loss"), names, strict=True))
    assert list(zip(table.parameters, table.tokens, table.loss, strict=True)) == rows()


def test_tokens_follow_from_flops_where_there_are_none(tmp_path: Path) -> None:
    table = read_table(
        write(tmp_path / "runs.csv", "Model Size,Training FLOP,loss", [f"{n!r},{6 * n * d!r},{loss!r}" for n, d, loss in rows()])
    )
    assert table.tokens == pytest.approx([d for _, d, _ in rows()])
    assert table.columns["tokens"] == "Training FLOP / (6 x Model Size)"


def test_numbers_may_have_suffixes_and_files_a_mark_and_empty_lines(tmp_path: Path) -> None:
    path = tmp_path / "runs.csv"
    path.write_bytes("\ufeffname,params,tokens,loss\r\n\r\nsmall,70M,1.4B,3.1\r\nlarge,70B,1.4T,2.0\r\n".encode())
    table = read_table(path)
    assert (table.parameters, table.tokens, table.names) == ([70e6, 70e9], [1.4e9, 1.4e12], ["small", "large"])


@pytest.mark.parametrize(
    ("header", "lines", "said"),
    [
        ("parameters,loss", ["1e7,3"], "runs.csv: no column of tokens (or FLOPs); it has parameters, loss; say which with"),
        ("a,b,c", ["1,2,3"], "runs.csv: no column of parameters; it has a, b, c; say which with --column parameters=NAME"),
        ("parameters,tokens,loss_a,loss_b", ["1,2,3,4"], "runs.csv: 2 columns could be the loss (loss_a, loss_b); say which with"),
        ("parameters,tokens,loss", ["1e7,1e9,3", "2e7,none,3"], "runs.csv:3: tokens none: not a number; write it as 5.76e23, 70B or 1.3T"),
        ("parameters,tokens,loss", ["1e7,1e9,3", "2e7,2e9,"], "runs.csv:3: loss: empty; every run needs a number"),
        ("parameters,tokens,loss", ["1e7,1e9,nan"], "runs.csv:2: loss nan: must be a finite number"),
        ("parameters,tokens,loss", ["0,1e9,3"], "runs.csv:2: parameters 0: must be above zero"),
        ("parameters,tokens,loss", ["1e7,1e9,-3"], "runs.csv:2: loss -3: must be above zero"),
        ("parameters;tokens;loss", ["1e7;1e9;3,125"], "runs.csv:2: loss 3,125: a decimal comma; write a point"),
        ("parameters;tokens;loss", ["1e7;1,5e9;3.1"], "runs.csv:2: tokens 1,5e9: not a number; write it as 5.76e23, 70B or 1.3T, with a"),
        ("parameters,tokens,loss", ["1e7,1e9"], "runs.csv:2: 2 cells where the header has 3"),
        ("parameters,tokens,loss", [], "runs.csv: no runs in it; a line for each run is needed below the header"),
        ("parameters,parameters,tokens,loss", ["1,2,3,4"], "runs.csv: more than one column is called 'parameters'; name it once"),
        (
            "parameters,tokens,loss,tokenizer",
            ["1e7,1e9,3,gpt2", "2e7,2e9,3,llama"],
            "runs.csv: losses per token of different tokenizers (gpt2, llama) cannot be compared; give bits per byte, or one of them with "
            "--where tokenizer=gpt2",
        ),
        (
            "parameters,tokens,loss,bpb,tokenizer",
            ["1e7,1e9,3,1,gpt2", "2e7,2e9,3,1,llama"],
            "runs.csv: losses per token of different tokenizers (gpt2, llama) cannot be compared; take --column loss=bpb, which compares",
        ),
        ("parameters,tokens,loss,dataset", ["1e7,1e9,3,c4", "2e7,2e9,3,pile"], "runs.csv: runs on different text (dataset is c4, pile)"),
        ("parameters,tokens,loss,unit", ["1e7,1e9,3,nats", "2e7,2e9,1,bits"], "runs.csv: losses in different units (nats, bits) are"),
    ],
)  # fmt: skip
def test_a_table_that_is_no_laws_data_is_refused_with_its_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str], header: str, lines: list[str], said: str
) -> None:
    monkeypatch.chdir(tmp_path)
    write(tmp_path / "runs.csv", header, lines)
    assert refused(capfd, "runs.csv").startswith(said)


def test_a_file_that_is_no_table_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> None:
    monkeypatch.chdir(tmp_path)
    write(tmp_path / "runs.csv")
    assert "no such file (there is 'runs.csv')" in refused(capfd, "run.csv") or "did you mean 'runs.csv'" in refused(capfd, "run.csv")
    Path("noise.csv").write_bytes(bytes(range(256)))
    assert "not UTF-8" in refused(capfd, "noise.csv")
    Path("empty.csv").write_text("")
    assert "empty.csv: empty" in refused(capfd, "empty.csv")
    with Path("huge.csv").open("wb") as file:
        file.truncate(17_000_000)
    assert "is larger than" in refused(capfd, "huge.csv")
    os.mkfifo("pipe.csv")
    assert "not a regular file" in refused(capfd, "pipe.csv")
    assert "tables and folders do not mix" in refused(capfd, "runs.csv", "runs.csv")


def test_comparable_losses_of_different_tokenizers_are_fitted_with_a_note(tmp_path: Path) -> None:
    lines = [f"{n!r},{d!r},{loss!r},{name}" for (n, d, loss), name in zip(rows(), "abababababab", strict=True)]
    table = read_table(write(tmp_path / "runs.csv", "parameters,tokens,bits_per_byte,tokenizer", lines))
    assert table.unit == "bits per byte" and "different tokenizers" in table.notes[0]
    one = read_table(tmp_path / "runs.csv", where={"tokenizer": "b"})
    assert len(one) == 6 and one.notes == ()


def test_runs_that_are_there_twice_are_noted(tmp_path: Path) -> None:
    lines = [f"{n!r},{d!r},{loss!r}" for n, d, loss in [*rows(), rows()[3]]]
    assert read_table(write(tmp_path / "runs.csv", lines=lines)).notes == (
        "1 run is the same as an earlier one in every figure (line 14); each counts",
    )


# -- the command --------------------------------------------------------------------------------------------------------------


def test_facts_have_the_documented_keys_and_the_exact_law(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    path = write(tmp_path / "runs.csv")
    said = json.loads(hearth(capfd, str(path), "--bootstraps", "20", "--flops", "1e21", "--predict", "N=1B,D=20B", "--json"))
    found = {name: one["value"] for name, one in said["coefficients"].items()}
    assert found == pytest.approx({"E": 1.69, "A": 406.4, "B": 410.7, "alpha": 0.34, "beta": 0.28}, rel=1e-8)
    page = (ROOT / "docs/plan/fit.md").read_text()
    for key in said:
        assert f"`{key}`" in page
    assert said["exponent"]["value"] == pytest.approx(0.28 / 0.62)
    assert said["predictions"][0]["loss"] == pytest.approx(1.69 + 406.4 / 1e9**0.34 + 410.7 / 20e9**0.28)
    optimum = said["optimal"][0]
    assert 6 * optimum["parameters"]["value"] * optimum["tokens"]["value"] == pytest.approx(1e21)
    assert said["held_out"]["mean_error"] < 1e-9 and said["outliers"]["rows"] == [] and said["bootstraps"] == 20


def test_a_person_reads_all_that_a_fit_found(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    lines = [f"{n!r},{d!r},{loss * (1.2 if number == 4 else 1)!r}" for number, (n, d, loss) in enumerate(rows(20))]
    said = hearth(capfd, str(write(tmp_path / "runs.csv", lines=lines)), "--bootstraps", "30")
    for wanted in ("loss = E + A/N^alpha + B/D^beta", "exponent of N_opt", "95 % interval", "read: parameters = parameters", "optimum at"):
        assert wanted in said
    assert "outliers: 1, more than 5 robust standard deviations" in said and "run 5 (loss" in said
    assert "with them (used)" in said and "without them:" in said and "held out: the 3 largest" in said
    dropped = hearth(capfd, str(tmp_path / "runs.csv"), "--bootstraps", "0", "--drop-outliers")
    assert "without them (used): E=1.69 A=406.4 B=410.7 alpha=0.34 beta=0.28" in dropped


def test_rows_marked_as_held_out_are_foretold(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    lines = [f"{n!r},{d!r},{loss!r},{int(number >= 10)}" for number, (n, d, loss) in enumerate(rows())]
    path = write(tmp_path / "runs.csv", "parameters,tokens,loss,held_out", lines)
    said = json.loads(hearth(capfd, str(path), "--bootstraps", "50", "--json"))
    assert said["held_out"]["marked"] and "held out: the 2 marked" in hearth(capfd, str(path), "--bootstraps", "0")
    assert said["runs"] == 10 and said["held_out"]["rows"] == [10, 11] and said["held_out"]["largest_error"] < 1e-9


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["--flops", "1e26"], "decades beyond the largest run of the fit; more than 2 are answered only with --extrapolate"),
        (["--flops", "1e10"], "--flops 1e10: out of bounds"),
        (["--flops", "many"], "--flops many: not a number"),
        (["--predict", "N=1B"], "--predict N=1B: needs both N and D"),
        (["--predict", "N=1B,X=2"], "--predict N=1B,X=2: unknown X"),
        (["--predict", "N=900T,D=1B"], "decades beyond the runs of the fit"),
        (["--form", "chinchila"], "runs.csv: no form 'chinchila' (did you mean 'chinchilla'?)"),
        (["--form", "muennighoff"], "give unique_tokens for each run"),
        (["--form", "isoflop"], "isoFLOP parabolas need two such budgets"),
        (["--fix", "E"], "--fix E: write it as --fix E=1.69"),
        (["--fix", "Z=3"], "cannot fix Z"),
        (["--delta", "0"], "--delta 0: must be above zero"),
        (["--column", "loss=nothing"], "--column loss=nothing: "),
        (["--column", "lose=loss"], "--column lose=loss: unknown (did you mean 'loss'?)"),
        (["--where", "tokenizer=gpt2"], "--where tokenizer=gpt2: "),
        (["--hold-out", "9"], "--hold-out 9: leaves 3 runs for 5 coefficients; hold out at most 7"),
        (["--plot", "fit.gif"], "--plot fit.gif: the name must end in .png, .svg, .pdf"),
    ],
)
def test_a_question_without_an_answer_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str], options: list[str], said: str
) -> None:
    monkeypatch.chdir(tmp_path)
    write(tmp_path / "runs.csv")
    assert said in refused(capfd, "runs.csv", "--bootstraps", "10", *options)


def test_far_questions_are_answered_when_asked_for_twice(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    said = hearth(capfd, str(write(tmp_path / "runs.csv")), "--bootstraps", "10", "--flops", "1e26", "--extrapolate")
    assert "decades beyond the runs" in said


def test_fewer_runs_than_coefficients_are_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    write(tmp_path / "runs.csv", lines=[f"{n!r},{d!r},{loss!r}" for n, d, loss in rows()[:4]])
    assert refused(capfd, "runs.csv").startswith("runs.csv: 4 runs for 5 coefficients; give at least 5")


def test_the_tables_of_the_package_are_fitted(capfd: pytest.CaptureFixture[str]) -> None:
    gadre = str(TABLES / "gadre_runs_104.csv")
    assert "8 columns could be the loss" in refused(capfd, gadre)
    assert "runs on different text (train is" in refused(capfd, gadre, "--column", "loss=loss_c4_val")
    options = ["--column", "loss=loss_c4_val", "--where", "train=rpj", "--form", "gadre", "--bootstraps", "0", "--json"]
    said = json.loads(hearth(capfd, gadre, *options))
    assert said["runs"] == 35 and said["coefficients"]["eta"]["value"] == pytest.approx(0.136, abs=0.01)
    repeated = [str(TABLES / "datablations_runs_182.csv"), "--form", "muennighoff", "--bootstraps", "0"]
    said = json.loads(hearth(capfd, *repeated, "--predict", "N=6.34B,D=242B,U=25B", "--json"))
    assert said["profiles"]["repeat_parameters"]["open_ended"] is True and said["profiles"]["repeat_tokens"]["open_ended"] is False
    assert said["predictions"][0]["loss"] == pytest.approx(2.5, abs=0.15)
    assert "R_N* is weakly identified" in hearth(capfd, *repeated[:3], "--bootstraps", "20")


def test_the_command_needs_no_torch_and_starts_fast(tmp_path: Path) -> None:
    path = write(tmp_path / "runs.csv")
    code = (
        "import sys, openhearth.cli as cli, openhearth.cli_plan as p\n"
        f"cli._status(p.route(['plan', 'fit', {str(path)!r}, '--bootstraps', '10']))\n"
        "sys.exit(any(name in sys.modules for name in ('torch', 'pyarrow', 'scipy', 'matplotlib')))"
    )
    where = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    assert subprocess.run([sys.executable, "-c", code], env=where, check=False, capture_output=True).returncode == 0


# -- ledgers ------------------------------------------------------------------------------------------------------------------

MODEL = {
    "vocab_size": 4096, "hidden_size": 128, "intermediate_size": 320, "num_layers": 2, "num_heads": 2, "num_kv_heads": 2, "head_dim": 64,
    "max_position_embeddings": 256,
}  # fmt: skip


def make_run(
    folder: Path, bits: float, tokens: int, *, corpus: str = "c0", tokenizer: str = "t0", evaluated: bool = True, width: int = 128
) -> Path:
    """A run folder with the entries that a real one has where they matter here."""
    folder.mkdir(parents=True)
    (folder / "plan/key").mkdir(parents=True)
    write_json(folder / "plan/key/plan.json", {"model": {**MODEL, "hidden_size": width}})
    ledger = Ledger(folder / "ledger.jsonl")

    def stage(kind: str, facts: dict[str, Any], inputs: dict[str, str] | None = None, **config: Any) -> None:
        same = {"key": f"key of {kind}", "digest": f"digest of {kind}", "seconds": 1.0}
        ledger.append("stage", stage=kind, folder=f"{kind}/key", facts=facts, inputs=inputs or {}, config=config, **same)

    stage("tokenizer", {"train_tokens": 1_000_000})
    stage("plan", {})
    stage("pretrain", {"tokens": tokens, "flops": 6 * tokens * 700_000, "parameters": 1_000_000})
    if evaluated:
        stage("evaluate", {"bits_per_byte": {"base": bits}, "bytes": 365_362}, {"corpus": corpus, "tokenizer": tokenizer}, seed=1)
    return folder


def test_runs_are_read_straight_from_their_ledgers(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    folders = [
        make_run(tmp_path / f"runs/{width}-{tokens}", 1.0 + 40 / width + 3e2 / tokens**0.45, tokens, width=width)
        for width in (64, 128, 192, 256)
        for tokens in (400_000, 900_000, 2_000_000)
    ]
    table = read_ledgers(folders)
    assert table.unit == "bits per byte" and table.tokens[:3] == [400_000, 900_000, 2_000_000]
    assert table.unique_tokens is not None and table.unique_tokens[:3] == [400_000, 900_000, 1_000_000]
    assert table.parameters[3] == 2 * (128 * 4 * 128 + 3 * 128 * 320) + 4096 * 128
    said = json.loads(hearth(capfd, *map(str, folders), "--bootstraps", "20", "--json"))
    assert said["runs"] == 12 and said["unit"] == "bits per byte" and said["columns"]["loss"] == "bits per byte of the base model"


def test_runs_measured_differently_are_not_fitted_together(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    one = make_run(tmp_path / "one", 1.5, 100_000)
    other = make_run(tmp_path / "other", 1.4, 200_000, corpus="c1")
    assert f"{other}: measured on other held-out text than {one}" in refused(capfd, str(one), str(other))
    third = make_run(tmp_path / "third", 1.4, 200_000, tokenizer="t1")
    assert any("different tokenizers" in note for note in read_ledgers([one, third]).notes)


def test_runs_without_a_result_are_left_out_and_named(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    one, open_ = make_run(tmp_path / "one", 1.5, 100_000), make_run(tmp_path / "open", 1.5, 100_000, evaluated=False)
    assert read_ledgers([one, open_]).notes == (f"{open_}: not evaluated yet; left out",)
    assert "no run that is pretrained and evaluated" in refused(capfd, str(open_))
    (tmp_path / "notes").mkdir()
    assert "not the folder of a run" in refused(capfd, str(tmp_path / "notes"))
    assert "are about tables" in refused(capfd, str(one), "--where", "a=b")
    with pytest.raises(HearthError):
        read_table(tmp_path)
