"""Prompts that are held out for evaluation and trained on as well: copies, and near copies.

Near copies share most of their runs of three words (Jaccard). Pairs above the threshold are found exactly, by prefix
and position filtering (Bayardo et al. 2007; Xiao et al. 2008): two sets that alike share one of their rarest members.
Words are runs of letters and digits, so in a script without spaces only copies are found.
"""

import math
import re
import unicodedata
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Sequence
from functools import lru_cache
from typing import NamedTuple

RUN = 3
"""Words in a run. One other word breaks three runs: enough to tell two subjects in one template of a dozen words."""


class Text(NamedTuple):
    """A prompt by its id."""

    name: str
    text: str


class Leak(NamedTuple):
    """A held-out prompt and the training prompt most like it."""

    held_out: Text
    train: Text
    similarity: float
    """1 where they are the same but for case, punctuation and space."""


def find_leaks(train: Iterable[Text], held_out: Sequence[Text], threshold: float) -> list[Leak]:
    """Every held-out prompt that is a training prompt, or at least that similar to one, in order.

    Only the held-out side is kept in memory; the training side is read once.
    """
    index = Index(held_out, threshold)
    best: dict[int, tuple[float, Text]] = {}
    for text in train:
        for number, similarity in index.like(text.text):
            if number not in best or similarity > best[number][0]:
                best[number] = (similarity, text)
    return [Leak(held_out[number], text, similarity) for number, (similarity, text) in sorted(best.items())]


class Index:
    """Held-out prompts by their text, and by their rarest runs of words."""

    def __init__(self, texts: Sequence[Text], threshold: float) -> None:
        self.texts, self.threshold = texts, threshold
        self.copies: dict[str, list[int]] = defaultdict(list)
        self.frequency = Counter(run for text in texts for run in runs(normalised(text.text)))
        self.postings: dict[str, list[tuple[int, int, int]]] = defaultdict(list)
        """Rare run -> (prompt, place of the run in it, runs of the prompt)."""
        for number, text in enumerate(texts):
            plain = normalised(text.text)
            self.copies[plain].append(number)
            ranked = self.by_rarity(runs(plain))
            for place, run in enumerate(ranked[: self.prefix(len(ranked))]):
                self.postings[run].append((number, place, len(ranked)))
        self.runs_of = lru_cache(maxsize=100_000)(lambda number: runs(normalised(self.texts[number].text)))

    def like(self, text: str) -> Iterator[tuple[int, float]]:
        """The prompts that are like this one, each with its similarity; copies have 1."""
        plain = normalised(text)
        copies = self.copies.get(plain, [])
        yield from ((number, 1.0) for number in copies)
        own = runs(plain)
        for number in self.candidates(own) - set(copies):
            shared = len(own & self.runs_of(number))
            similarity = shared / (len(own) + len(self.runs_of(number)) - shared)
            if similarity >= self.threshold:
                yield number, similarity

    def candidates(self, own: frozenset[str]) -> set[int]:
        """Prompts that share a rare run, unless its place in both already says that too few can follow."""
        found, ranked = set[int](), self.by_rarity(own)
        for place, run in enumerate(ranked[: self.prefix(len(ranked))]):
            for number, other, num_runs in self.postings.get(run, ()):
                needed = self.threshold / (1 + self.threshold) * (len(ranked) + num_runs)
                if min(len(ranked) - place, num_runs - other) >= needed - 1e-9:  # up to rounding
                    found.add(number)
        return found

    def by_rarity(self, of: frozenset[str]) -> list[str]:
        """Rarest first, in one order for all; those that no held-out prompt has come first and find nothing."""
        return sorted(of, key=lambda run: (self.frequency[run], run))

    def prefix(self, num_runs: int) -> int:
        """Of so many runs, how many of the rarest must hold one that a similar prompt shares."""
        return num_runs - math.ceil(self.threshold * num_runs - 1e-9) + 1


def normalised(text: str) -> str:
    """Words in lower case with single spaces; a text without any stays as it is."""
    plain = unicodedata.normalize("NFKC", text).casefold()
    return " ".join(re.findall(r"\w+", plain)) or plain.strip()


def runs(plain: str) -> frozenset[str]:
    """Every run of three words, with two blanks at either end, so that the first and last word weigh the same."""
    words = ["", "", *plain.split(), "", ""]
    return frozenset(" ".join(words[i : i + RUN]) for i in range(len(words) - RUN + 1))
