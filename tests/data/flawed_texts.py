"""Texts with every flaw that a rule looks for, in every strength, made from a seed: for our rules and for datatrove's alike."""

from __future__ import annotations

import random

COMMON = ["the", "be", "to", "of", "and", "that", "have", "with"]
WORDS = [
    "sea",
    "harbour",
    "gull",
    "captain",
    "letter",
    "morning",
    "candle",
    "river",
    "mountain",
    "window",
    "garden",
    "stranger",
    "silence",
    "promise",
    "winter",
    "bridge",
    "market",
    "shadow",
    "village",
    "thunder",
    "lantern",
    "orchard",
    "history",
    "question",
    "answer",
    "machine",
    "pattern",
    "number",
    "season",
    "music",
    "stone",
    "silver",
    "paper",
]


def sentence(draw: random.Random, length: int) -> str:
    words = [draw.choice(COMMON if draw.random() < 0.3 else WORDS) for _ in range(length)]
    return " ".join(words).capitalize() + draw.choice(".....!?")


def prose(draw: random.Random, sentences: int) -> str:
    paragraphs, left = [], sentences
    while left > 0:
        size = min(left, draw.randint(1, 6))
        paragraphs.append(" ".join(sentence(draw, draw.randint(4, 18)) for _ in range(size)))
        left -= size
    return "\n\n".join(paragraphs)


def flawed(number: int) -> str:
    """Text `number`: prose with one flaw, of a strength that goes from none to all."""
    draw = random.Random(number)
    strength = draw.random()
    lines = prose(draw, draw.randint(3, 60)).split("\n")
    kind = number % 14
    if kind == 0:
        return "\n".join(lines)[: draw.randint(20, 600)]
    if kind == 1:
        return " ".join(word + "#" * (draw.random() < strength / 4) for word in " ".join(lines).split())
    if kind == 2:
        return "\n".join(("- " if draw.random() < strength else "") + line for line in lines)
    if kind == 3:
        return "\n".join(line.rstrip(".!?") + (draw.choice(["...", "…"]) if draw.random() < strength else ".") for line in lines if line)
    if kind == 4:
        return " ".join(str(draw.randint(0, 9999)) if draw.random() < strength / 2 else word for word in " ".join(lines).split())
    if kind == 5:
        return " ".join(word for word in " ".join(lines).split() if word.lower() not in COMMON or draw.random() > strength)
    if kind == 6:
        copy = draw.choice([line for line in lines if line])
        return "\n".join(copy if draw.random() < strength else line for line in lines)
    if kind == 7:
        words, phrase = " ".join(lines).split(), [draw.choice(WORDS) for _ in range(draw.randint(2, 14))]
        for _ in range(int(strength * len(words) / len(phrase))):
            words[(at := draw.randrange(len(words))) : at] = phrase
        return " ".join(words)
    if kind == 8:
        return "\n".join(word for line in lines for word in line.split()) if strength > 0.5 else "\n".join(lines)
    if kind == 9:
        return " ".join(word * draw.randint(1, 1 + int(4 * strength)) for word in " ".join(lines).split())
    if kind == 10:
        return " ".join(word[: 1 + int(6 * strength)] for word in " ".join(lines).split())
    if kind == 11:
        return "\n".join(line.rstrip(".!?") if draw.random() < strength else line for line in lines)
    if kind == 12:
        page = "\n".join(lines)
        return "\n\n".join([page[: len(page) // 3]] * draw.randint(1, 4) + [page])
    return " ".join(
        draw.choice(["&&", "--", "::", "é", "naïve", "«мир»", "世界"]) if draw.random() < strength else word
        for word in " ".join(lines).split()
    )
