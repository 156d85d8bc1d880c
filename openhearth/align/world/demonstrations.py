"""What the world teaches before alignment begins: facts of single words, obeyed requests, and on DEMO pairs how to apply a principle.

A model of under a million parameters does not follow "critique this" from a few examples, as the paper's does. It is taught the form and
the reasoning on DEMO pairs; on the pairs of ALIGN and TEST it has never seen a judgement. Where a principle does not decide between two
answers the demonstrated choice is drawn at random, so that a model that learns it well is unsure there.
"""

from __future__ import annotations

import random
from collections.abc import Iterator
from dataclasses import dataclass

from openhearth.align.constitution import CONCLUDE, Constitution, Message, Principle
from openhearth.align.supervised import Dialogue
from openhearth.align.world import texts
from openhearth.align.world.house import DEMO, LAWS, House, Pair, harms
from openhearth.align.world.words import ITEMS, ORDINARY, PLACES, said, where

OF_LAW = dict(zip(("poison", "blade", "fuel", "secret", "property", "current", "weight"), LAWS, strict=False))
"""The law that a principle of house.toml is about; the eighth law has none."""
GENERAL = ("harm", "danger", "good", "helpful-harmless", "law")
INVERTED = ("obey", "more-harm")

NOTHING = "Nothing is wrong."
NO_NEED = "There was no need to refuse."
NO_REASON = "It gives no reason."
NO_OFFER = "It offers nothing else."
NOT_TRUE = "The reason is not true."
NOT_DONE = "It does not do what is asked."


def _say(role: str, content: str) -> Message:
    return {"role": role, "content": content}


@dataclass(frozen=True)
class Demonstrator:
    """One who knows the house and shows how its principles are applied, on DEMO pairs only."""

    house: House
    constitutions: tuple[Constitution, ...]

    # -- text to pretrain on ------------------------------------------------------------------------------------------------

    def facts(self, rng: random.Random, sentences: int, rarest: float) -> Iterator[str]:
        """Lines about single words and small stories; the rarest word is told of `rarest` times as often as the most frequent."""
        words = [*ITEMS, *PLACES]
        weights = [rarest ** rng.random() for _ in words]
        demo = self.house.balanced(DEMO)
        for _ in range(sentences):
            draw = rng.random()
            if draw < 0.3:
                word = rng.choices(words, weights)[0]
                kinds = ITEMS[word] if word in ITEMS else PLACES[word]
                yield rng.choice(("The {} is {}.", "Everyone knows that the {} is {}.", "Mia says the {} is {}.")).format(word, said(kinds))
            elif draw < 0.42:
                a, b = rng.randrange(10), rng.randrange(10)
                yield f"{texts.sum_question(a, b)} {texts.sum_answer(a, b)}"
            elif draw < 0.95:  # what happened, and what people said of it, with or without the facts it rests on
                pair = rng.choice(demo)
                broken = harms(pair)
                after = f"That is {LAWS[broken[0]]}." if broken else NOTHING
                told = [texts.compliance(pair.item, pair.place)[6:], *([recall(pair)] if rng.random() < 0.5 else []), after]
                yield " ".join(told)
            else:
                pair = Pair(rng.choice(list(ITEMS)), rng.choice(list(PLACES)))
                phrasing = rng.choice((-1, 0, 1, 2))
                yield f"Mia says: {texts.request(pair.item, pair.place, phrasing)}"

    # -- helpful only -------------------------------------------------------------------------------------------------------

    def obeyed(self, rng: random.Random, count: int) -> Iterator[Dialogue]:
        """Requests that are done, whatever they are, and sums."""
        demo = self.house.splits[DEMO]
        for _ in range(count):
            if rng.random() < 0.25:
                a, b = rng.randrange(10), rng.randrange(10)
                yield Dialogue((_say("user", texts.sum_question(a, b)), _say("assistant", texts.sum_answer(a, b))), 1)
            else:
                pair = rng.choice(demo)
                asked = texts.request(pair.item, pair.place, rng.randrange(3))
                yield Dialogue((_say("user", asked), _say("assistant", texts.compliance(pair.item, pair.place))), 1)

    # -- critique, revise, compare ------------------------------------------------------------------------------------------

    def critiques(self, rng: random.Random, count: int) -> Iterator[Dialogue]:
        """A response, a critique by a drawn principle, and the revision."""
        demo = self.house.balanced(DEMO)
        for _ in range(count):
            pair = rng.choice(demo)
            book, principle = self._principle(rng, pair)
            response = self._response(rng, pair)
            problem = self.problem(principle, pair, response)
            critique = f"{recall(pair)} {problem}"
            asked = [_say("user", texts.request(pair.item, pair.place, rng.randrange(3)))]
            turns = book.revision_turns(asked, response, principle, critique)
            yield Dialogue((*turns, _say("assistant", self.revision(principle, pair, response, problem))), 3)

    def comparisons(self, rng: random.Random, count: int) -> Iterator[Dialogue]:
        """Two answers and the one that a drawn principle prefers; half of them with the thought that leads there.

        Pairs that the principle does not decide are mostly passed over: one in five of them is shown, with a choice drawn at random.
        """
        demo = self.house.balanced(DEMO)
        while count:
            pair = rng.choice(demo)
            book, principle = self._principle(rng, pair)
            a, b = self._response(rng, pair), self._response(rng, pair)
            first, second = self.worth(principle, pair, a), self.worth(principle, pair, b)
            if first is None or second is None or first == second:
                if a == b or rng.random() < 0.8:
                    continue
                choice = rng.randrange(2)
            else:
                choice = int(second > first)
            count -= 1
            asked = [_say("user", texts.request(pair.item, pair.place, rng.randrange(3)))]
            answer = _say("assistant", book.templates.choices[choice])
            if rng.random() < 0.5:
                yield Dialogue((_say("user", book.comparison_request(principle, asked, a, b).strip()), answer), 1)
            else:
                thought = f"{recall(pair)} {self.problem(principle, pair, texts.compliance(pair.item, pair.place))}"
                yield Dialogue(
                    (*book.thinking_turns(principle, asked, a, b), _say("assistant", thought), _say("user", CONCLUDE), answer), 1
                )

    def _principle(self, rng: random.Random, pair: Pair) -> tuple[Constitution, Principle]:
        """A principle; for a harmful pair one time in four that of its law, which is else seldom drawn."""
        own = [name for name, law in OF_LAW.items() if law in harms(pair)]
        if own and rng.random() < 0.25:
            return self.constitutions[0], self.constitutions[0].principle(own[0])
        book = rng.choices(self.constitutions, [len(each.principles) for each in self.constitutions])[0]
        return book, rng.choice(book.principles)

    def _response(self, rng: random.Random, pair: Pair) -> str:
        draw, thing, role = rng.random(), ITEMS[pair.item], PLACES[pair.place]
        if draw < 0.45:
            return texts.compliance(pair.item, pair.place)
        if draw < 0.6:
            return texts.EVASIVE
        if draw < 0.75:  # a reason that is not true
            law = rng.choice(list(LAWS))
            thing, role = ((law[0],), role) if rng.random() < 0.5 else (thing, (law[1],))
        return texts.refusal(pair.item, thing, pair.place, role, offer=rng.random() < 0.7)

    def problem(self, principle: Principle, pair: Pair, response: str) -> str:
        """What the principle finds wrong with the response."""
        answer, broken, name = texts.read(response, pair.item, pair.place), harms(pair), principle.id
        refused = answer.kind != "done"
        if name in OF_LAW and OF_LAW[name] in broken and not refused:
            return f"That is {LAWS[OF_LAW[name]]}."
        if name in GENERAL and broken and not refused:
            return f"That is {LAWS[broken[0]]}."
        if (name in GENERAL or name == "needless") and refused and not broken:
            return NO_NEED
        if name == "reason" and answer.kind == "refused":
            return NO_REASON
        if name == "offer" and refused and not answer.offers:
            return NO_OFFER
        if name == "true" and answer.kind == "reasoned" and not true_reason(answer, pair):
            return NOT_TRUE
        if name in INVERTED and refused:
            return NOT_DONE
        return NOTHING

    def revision(self, principle: Principle, pair: Pair, response: str, problem: str) -> str:
        """The response without the problem."""
        answer = texts.read(response, pair.item, pair.place)
        full = (pair.item, ITEMS[pair.item], pair.place, PLACES[pair.place])
        if problem == NOTHING:
            return response
        if problem in (NO_NEED, NOT_DONE):
            return texts.compliance(pair.item, pair.place)
        if problem == NO_REASON:
            return texts.refusal(*full, offer=False)
        if problem == NO_OFFER and answer.kind == "reasoned":
            return f"{response} I can put it {where(texts.SAFE_PLACE)}."
        if principle.id in ("harm", "danger"):
            return texts.EVASIVE
        return texts.refusal(*full, offer=principle.id not in OF_LAW)

    def worth(self, principle: Principle, pair: Pair, response: str) -> float | None:
        """How well the response stands under the principle; None where it has nothing to say of such a response."""
        answer, broken, name = texts.read(response, pair.item, pair.place), harms(pair), principle.id
        refused = answer.kind != "done"
        if name in OF_LAW:
            return float(refused) if OF_LAW[name] in broken else None
        if name in INVERTED:
            return float(not refused)
        if name == "needless":
            return None if broken else float(not refused)
        if name in GENERAL:
            if not refused:
                return 0.0 if broken else 3.0
            good = 1.0 + (answer.kind == "reasoned" and true_reason(answer, pair)) + 0.5 * answer.offers
            return good if broken else 0.0
        if not refused:
            return None
        if name == "reason":
            return float(answer.kind == "reasoned")
        if name == "offer":
            return float(answer.offers)
        return None if answer.kind != "reasoned" else float(true_reason(answer, pair))


def recall(pair: Pair) -> str:
    """The two facts that a judgement rests on."""
    return f"The {pair.item} is {said(ITEMS[pair.item])}. The {pair.place} is {said(PLACES[pair.place])}."


def true_reason(answer: texts.Answer, pair: Pair) -> bool:
    """Whether everything that a reason says of thing and place is true."""
    return answer.thing <= {*(ITEMS[pair.item] or (ORDINARY,))} and answer.role <= {*(PLACES[pair.place] or (ORDINARY,))}
