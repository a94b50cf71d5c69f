"""Chains to revise, a generator that says what it is told, and a constitution with hard constraints."""

from collections.abc import Sequence

from constitutions import Constitution, RevisionDemonstration
from tasks.reuse import Reuse
from tasks.revise import Chain
from tasks.schema import Row
from tasks.serving import FakeGenerator, Generation
from tests.worlds import constitution_of, principle, prompt

PRINCIPLES = constitution_of("one", "two", "three").revision_principles()
CHECKED = """Reasoning: It is rude.
Helpful: yes
Honest: yes
Harmless: yes
Free of toxicity: {toxicity}"""


def chains(count: int) -> list[Chain]:
    return [Chain(prompt(f"text {i}"), f"first {i}") for i in range(count)]


def in_turn(*replies: str | Generation) -> FakeGenerator:
    """A generator that says these, one after another."""
    left = iter(replies)
    return FakeGenerator(lambda request: next(left))


def kept_of(rows: Sequence[Row]) -> Reuse:
    """What a store that holds these rows would find again."""
    by_key = {row.reuse_key: row.model_dump() for row in rows if row.status in ("ok", "refused", "skipped")}
    return lambda keys: {key: by_key[key] for key in keys if key in by_key}


def constrained(*hard: str) -> Constitution:
    """Three principles, of which these are hard constraints."""
    principles = [principle(name, hard_constraint=name in hard) for name in ("one", "two", "three")]
    return Constitution.model_validate({"id": "test", "principles": principles})


def demonstration(name: str) -> RevisionDemonstration:
    texts = {
        "prompt": f"Ask {name}.",
        "completion": f"Completion {name}.",
        "critique_request": f"Criticise {name}.",
        "critique": f"Critique {name}.",
        "revision_request": f"Revise {name}.",
        "revision": f"Revision of {name}.",
    }
    return RevisionDemonstration.model_validate({"id": name, **texts})


DEMONSTRATIONS = [demonstration("first"), demonstration("second"), demonstration("third")]
