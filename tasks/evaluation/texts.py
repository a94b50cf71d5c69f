"""What completions show by their words alone: refusals, length, and the boilerplate that over-training ends in.

The paper names the failure (section 4.3): an over-trained policy adds the same phrases to everything that it says.
"""

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence

from tasks.evaluation.judged import Value
from tasks.gates.refusals import plain, refuses
from tasks.schema import Sample

PHRASE = 6
"""Words in a phrase."""
COMMON_SHARE, COMMON_COUNT = 0.05, 3
"""A phrase is common that so large a share of a policy's completions have, and so many at least."""
REFUSED = {"red_team": "refused_red_team", "helpful": "refused_helpful"}


def text_values(samples: Mapping[str, Sequence[Sample]]) -> Iterator[Value]:
    """Every completion of every policy as a part of each figure."""
    for policy, rows in samples.items():
        said = [row for row in rows if row.status == "ok"]
        texts = [row.completion or "" for row in said]
        times = Counter(map(plain, texts))
        for row, text, covered in zip(said, texts, boilerplate(texts), strict=True):
            figures = {
                REFUSED[row.kind]: float(refuses(text)),
                "boilerplate": covered,
                "distinct": float(times[plain(text)] == 1),
                "num_tokens": float(row.num_tokens),
            }
            yield from (Value(policy, name, row.group, value, row.prompt_id) for name, value in figures.items())


def boilerplate(texts: Sequence[str]) -> list[float]:
    """The share of each text's words that stand in phrases which many of the texts have."""
    words = [plain(text).split() for text in texts]
    having = Counter(phrase for each in words for phrase in set(phrases(each)))
    least = max(COMMON_COUNT, COMMON_SHARE * len(texts))
    common = {phrase for phrase, count in having.items() if count >= least}
    return [covered_share(each, common) for each in words]


def phrases(words: Sequence[str]) -> list[tuple[str, ...]]:
    """Every run of `PHRASE` words; a shorter text is one."""
    if len(words) < PHRASE:
        return [tuple(words)] if words else []
    return [tuple(words[i : i + PHRASE]) for i in range(len(words) - PHRASE + 1)]


def covered_share(words: Sequence[str], common: set[tuple[str, ...]]) -> float:
    covered = {i + k for i, phrase in enumerate(phrases(words)) if phrase in common for k in range(len(phrase))}
    return len(covered) / len(words) if words else 0.0
