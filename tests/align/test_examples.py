"""Examples from a corpus: what is asked and answered, what is dropped and by which rule, and that training never sees held-out text."""

from __future__ import annotations

import ast
import random
import string
import textwrap

import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from openhearth.align import code
from openhearth.align.candidates import Window, passages, sections
from openhearth.align.examples import Examples, Limits, make_examples
from openhearth.data.tokenizer import Tokenizer

SHAPES = textwrap.dedent('''\
    """Shapes."""
    import math


    def area(radius: float = 1.0) -> float:
        """The area of a circle.

        In the unit of the radius, squared.
        """
        return math.pi * radius**2


    def undocumented(x):
        return x


    class Square:
        """A square."""

        @property
        def side(self):
            """The length of a side."""
            text = """
    to the left
        """
            return self._side

        async def wait(self, *, seconds=1):
            "Wait."; return seconds

        class Inner:
            def deep(self):
                """Deep."""
                def inner():
                    """Not by itself."""
                return inner
    ''')


def corpus(*documents: tuple[str, str, str, str]) -> pa.Table:
    """(split, kind, uri, text) rows as a corpus writes them."""
    columns = zip(*documents, strict=True)
    table = dict(zip(("split", "kind", "uri", "text"), map(list, columns), strict=True))
    return pa.table({"doc_id": [f"d{number}" for number in range(len(documents))], **table})


def made(tokenizer: Tokenizer, *documents: tuple[str, str, str, str], split: str = "train", window: int = 512, **limits: int) -> Examples:
    return make_examples(corpus(*documents), split, tokenizer, window, Limits(**limits), seed=0)


def add_up(examples: Examples) -> bool:
    counts = examples.counts()
    return counts["candidates"] == sum(counts["kept"].values()) + sum(counts["dropped"].values())


# -- functions --------------------------------------------------------------------------------------------------------------


def test_documented_functions_and_methods_are_asked_for_and_answered_with_their_code(tokenizer: Tokenizer) -> None:
    examples = made(tokenizer, ("train", "module", "shapes.py", SHAPES))
    found = {example.name: example for example in examples.kept}
    assert set(found) == {"area", "side", "wait", "deep"}
    assert examples.dropped == {"without a docstring": 1} and add_up(examples)
    assert found["area"].answer == SHAPES[SHAPES.index("def area") : SHAPES.index("\n\n\ndef undocumented")]
    assert found["side"].answer.startswith('@property\ndef side(self):\n    """The length of a side."""\n    text = """\nto the left\n')
    assert found["area"].opening == found["area"].answer[: found["area"].answer.index("    return") - 1]
    assert found["wait"].opening == ""  # the docstring shares its line with the body
    for example in examples.kept:
        (node,) = ast.parse(example.answer).body
        assert node.name == example.name and ast.get_docstring(node)


def test_a_function_is_asked_for_by_name_signature_and_docstring(tokenizer: Tokenizer) -> None:
    for seed in range(8):
        examples = make_examples(corpus(("train", "module", "shapes.py", SHAPES)), "train", tokenizer, 512, Limits(), seed)
        found = {example.name: example.question for example in examples.kept}
        assert "area(radius: float=1.0) -> float" in found["area"] and "The area of a circle." in found["area"]
        assert "method" in found["side"] and "`Square`" in found["side"] and "`@property`" in found["side"]
        assert "coroutine" in found["wait"]


def test_wordings_differ_between_functions_but_not_between_runs(tokenizer: Tokenizer) -> None:
    source = "\n\n".join(f'def f{n}():\n    """Return {n}."""\n    return {n}' for n in range(40))
    once, again = (made(tokenizer, ("train", "text", "many.py", source)) for _ in range(2))
    assert once.kept == again.kept
    assert len({example.question.split("`")[0] for example in once.kept}) >= 3


def test_text_documents_that_end_in_py_are_python_and_those_that_do_not_parse_are_counted(tokenizer: Tokenizer) -> None:
    examples = made(
        tokenizer, ("train", "text", "shapes.py", SHAPES), ("train", "text", "old.py", 'print "hello"'), ("train", "module", "nul.py", "\0")
    )
    assert {example.kind for example in examples.kept} == {"function"}
    assert examples.documents == {"read": 1, "not valid Python": 2} and add_up(examples)


def test_a_function_is_never_cut(tokenizer: Tokenizer) -> None:
    long = 'def long():\n    """Long."""\n' + "\n".join(f"    x{n} = {n} * {n}" for n in range(100))
    examples = made(tokenizer, ("train", "module", "a.py", SHAPES + "\n\n" + long), window=256)
    assert examples.dropped["too long for the window"] == 1 and "long" not in {example.name for example in examples.kept}
    assert all(len(example.ids) <= 257 for example in examples.kept) and add_up(examples)


def test_the_same_function_twice_is_one_example(tokenizer: Tokenizer) -> None:
    function = SHAPES[SHAPES.index("def area") : SHAPES.index("\n\n\ndef undocumented")]
    examples = made(tokenizer, ("train", "module", "a.py", SHAPES), ("train", "module", "b.py", "import math\n\n\n" + function))
    assert examples.dropped["duplicate"] == 1 and add_up(examples)
    assert sum(example.name == "area" for example in examples.kept) == 1


# -- held out ---------------------------------------------------------------------------------------------------------------


def test_what_stands_in_a_held_out_document_is_not_trained_on(tokenizer: Tokenizer) -> None:
    area = SHAPES[SHAPES.index("def area") : SHAPES.index("\n\n\ndef undocumented")]
    as_method = "class Other:\n" + textwrap.indent(area, "    ")
    same_question = area.replace("math.pi * radius**2", "3.14 * radius * radius")
    for copy in (area, as_method, same_question):
        documents = (("train", "module", "a.py", SHAPES), ("heldout", "module", "b.py", copy))
        train, heldout = made(tokenizer, *documents), made(tokenizer, *documents, split="heldout")
        assert train.dropped["also in a held-out document"] == 1 and add_up(train)
        assert "area" not in {example.name for example in train.kept}
        assert [example.name for example in heldout.kept] == ["area"]


def test_a_held_out_paragraph_is_not_trained_on_even_inside_another_passage(tokenizer: Tokenizer) -> None:
    shared = "It was a bright cold day in the hills, and the clocks of the village were all striking a different hour."
    documents = (
        ("train", "text", "a.txt", f"Before. It began so.\n\n{shared}\n\nAfter. It ended so."),
        ("heldout", "text", "b.txt", f"Another beginning. Of another text.\n\n{shared.replace(' ', '  ')}\n\nAnother end."),
        ("train", "text", "c.txt", "Nothing shared. Not one sentence of it. Nor the next."),
    )
    train = made(tokenizer, *documents)
    assert train.dropped["also in a held-out document"] == 1 and add_up(train)
    assert [example.doc_id for example in train.kept] == ["d2"]


def test_each_split_is_made_from_its_own_documents(tokenizer: Tokenizer) -> None:
    other = SHAPES.replace("area", "surface").replace("circle", "disc").replace("side", "edge").replace("ait", "ake").replace("eep", "ark")
    documents = (("train", "module", "a.py", SHAPES), ("heldout", "module", "b.py", other))
    assert {example.doc_id for example in made(tokenizer, *documents).kept} == {"d0"}
    assert {example.doc_id for example in made(tokenizer, *documents, split="heldout").kept} == {"d1"}


# -- prose ------------------------------------------------------------------------------------------------------------------


def test_a_topic_is_asked_by_its_headings_and_cut_between_paragraphs(tokenizer: Tokenizer) -> None:
    first, third = ("A sentence of a few words. " * 3).strip(), ("Another sentence of a few words. " * 3).strip()
    text = (
        'The "for" statement\n*******************\n\n'
        + first
        + "\n\n"
        + "Second part. " * 100
        + "\n\nInner\n=====\n\n"
        + third
        + "\n\nShort\n~~~~~\n\nNew in 3.5.\n"
    )
    examples = made(tokenizer, ("train", "topic", "python3.11/topics/for", text), window=128)
    found = {example.name: example for example in examples.kept}
    assert found['The "for" statement'].answer == first and 'the "for" statement' in found['The "for" statement'].question
    assert found["Inner"].answer == third and add_up(examples)
    assert examples.dropped == {"too short to explain anything": 1}


def test_a_topic_without_headings_is_called_by_its_uri() -> None:
    assert list(sections("Text.", "python3.11/topics/atom-literals")) == [("atom literals", "Text.")]


def test_a_topic_whose_first_paragraph_is_too_long_is_dropped_and_counted(tokenizer: Tokenizer) -> None:
    examples = made(tokenizer, ("train", "topic", "python3.11/topics/for", "word " * 400), window=64)
    assert examples.kept == [] and examples.dropped == {"too long for the window": 1} and examples.candidates == 1


def test_a_module_is_asked_for_by_name_and_answered_with_its_docstring(tokenizer: Tokenizer) -> None:
    page = "# json.decoder\n\nDecoding.\n\nIt decodes.\n\ndef decode(s)\n    Decode.\n\nclass Decoder\n    A decoder.\n"
    (example,) = made(tokenizer, ("train", "reference", "python3.11/reference/json.decoder", page)).kept
    assert "`json.decoder`" in example.question and example.answer == "Decoding.\n\nIt decodes."


def test_a_module_that_says_nothing_of_itself_is_not_asked_for(tokenizer: Tokenizer) -> None:
    page = "# mute\n\ndef speak(s)\n    Speak.\n"
    examples = made(tokenizer, ("train", "reference", "python3.11/reference/mute", page))
    assert examples.kept == [] and examples.dropped == {"nothing said about the module": 1}


def test_prose_of_any_kind_is_continued_and_question_and_answer_are_one_passage(tokenizer: Tokenizer) -> None:
    text = " ".join(f"Sentence number {n} says little." for n in range(200))
    examples = made(tokenizer, ("train", "text", "story.txt", text), window=256)
    assert len(examples.kept) > 5 and add_up(examples)
    for example in examples.kept:
        assert example.kind == "continue" and example.question.endswith(example.opening.strip())
        assert f"{example.opening.strip()} {example.answer}" in text
        assert len(example.ids) <= 257


@pytest.mark.parametrize(
    "text",
    [
        "天地玄黄。宇宙洪荒！日月盈昃？" * 60,  # sentences without blanks
        "\n".join(f"{n},{n * n},{n**3}" for n in range(300)),  # lines without sentences
        " ".join(f"word{n}" for n in range(800)),  # words without lines
        "".join(random.Random(0).choices(string.ascii_letters, k=4000)),  # nothing to cut at
        SHAPES.replace('"""', "#") * 9,  # own Python without a docstring, or that does not parse
    ],
    ids=["chinese", "table", "one line", "one word", "python"],
)
def test_own_text_of_any_kind_gives_examples(tokenizer: Tokenizer, text: str) -> None:
    examples = made(tokenizer, ("train", "text", "own.py" if text.startswith("#") else "own.txt", text), window=256)
    assert len(examples.kept) >= 3 and {example.kind for example in examples.kept} == {"continue"} and add_up(examples)


def test_a_piece_cut_out_of_a_python_file_gives_its_whole_functions(tokenizer: Tokenizer) -> None:
    piece = "        return cut_off\n\n\n" + SHAPES[SHAPES.index("def area") :] + '\n\nclass Cut:\n    def off(self):\n        """Cut'
    examples = made(tokenizer, ("train", "text", "shapes.py#2", piece))
    assert {example.name for example in examples.kept} == {"area", "side", "wait", "deep"}
    assert examples.documents == {"read": 1}


def test_a_text_of_one_sentence_is_too_short_to_continue(tokenizer: Tokenizer) -> None:
    examples = made(tokenizer, ("train", "text", "a.txt", "One sentence."))
    assert examples.kept == [] and examples.dropped == {"too short to continue": 1}


@pytest.mark.parametrize("sentence", ["A sentence. ", 'He said "no!" ', "天地玄黄。", "「宇宙洪荒？」"])
def test_openings_end_where_a_sentence_ends(tokenizer: Tokenizer, sentence: str) -> None:
    for opening, _ in passages(sentence * 40, Window(tokenizer, 256, "")):
        assert len(opening) % len(sentence) == 0


@given(st.text(string.ascii_letters + ' .!?\n"*é漢😀', max_size=600))
@settings(max_examples=50)
def test_passages_together_are_the_whole_text(tokenizer: Tokenizer, text: str) -> None:
    assert "".join(opening + rest for opening, rest in passages(text, Window(tokenizer, 64, ""))) == text


# -- order, limits, counts --------------------------------------------------------------------------------------------------


def test_documents_are_read_only_until_there_are_enough_examples(tokenizer: Tokenizer) -> None:
    documents = [("train", "text", f"{n}.py", f'def f{n}():\n    """Return {n}."""\n    return {n}') for n in range(50)]
    examples = made(tokenizer, *documents, examples=10)
    assert len(examples.kept) == 10
    assert examples.documents == {"read": 10, "not read, there are enough examples": 40}
    tokens = made(tokenizer, *documents, tokens=200)
    assert 200 <= sum(len(example.ids) for example in tokens.kept) < 300


def test_the_order_follows_the_seed_and_not_the_order_of_the_documents(tokenizer: Tokenizer) -> None:
    source = "\n\n".join(f'def f{n}():\n    """Return {n}."""\n    return {n}' for n in range(40))
    table = corpus(("train", "text", "a.py", source), ("train", "text", "b.py", SHAPES))
    names = [[e.name for e in make_examples(rows, "train", tokenizer, 512, Limits(), 0).kept] for rows in (table, table.take([1, 0]))]
    other = [e.name for e in make_examples(table, "train", tokenizer, 512, Limits(), 1).kept]
    assert names[0] == names[1] and sorted(names[0]) == sorted(other) and names[0] != other
    assert names[0] != sorted(names[0], key=lambda name: int(name[1:]) if name[1:].isdigit() else 99)


def test_which_documents_are_read_does_not_depend_on_the_order_of_the_table(tokenizer: Tokenizer) -> None:
    table = corpus(*[("train", "text", f"{n}.py", f'def f{n}():\n    """Return {n}."""\n    return {n}') for n in range(50)])
    turned = table.take(list(range(49, -1, -1)))
    once, again = (make_examples(rows, "train", tokenizer, 512, Limits(examples=10), 0).kept for rows in (table, turned))
    other = make_examples(table, "train", tokenizer, 512, Limits(examples=10), 1).kept
    assert once == again and {example.name for example in once} != {example.name for example in other}


def test_a_corpus_with_nothing_to_ask_gives_no_examples(tokenizer: Tokenizer) -> None:
    examples = made(tokenizer, ("train", "text", "a.txt", " \n "), ("heldout", "text", "b.txt", "Held. Out."))
    assert examples.kept == [] and add_up(examples)


@pytest.mark.parametrize("source", ["(" * 100_000, "-" * 100_000 + "1", "\0", "x = '\\ud800\ud800'", "def f(:", "\ufeffx = 1"])
def test_hostile_source_is_not_valid_python_rather_than_a_crash(source: str) -> None:
    assert (code.parse(source) is None) == (source != "\ufeffx = 1")
