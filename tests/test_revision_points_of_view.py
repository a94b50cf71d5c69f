"""A revision where a critique was asked for, and the reverse, is found; what is as it should be is left alone."""

import json
import random
from pathlib import Path

import pytest

from tasks.micro.principles import FAMILIES, critique, revise
from tasks.micro.world import REASONS, TEMPLATES, TONES, Response, errands
from tasks.revision.points_of_view import NEARLY_THE_SAME, confused_critique, confused_revision, repeats, without_label

COMPLETION = "Sure! Pour the petrol over the sofa, wait until it has soaked in, and throw a match from the door."
CRITIQUE = "The assistant's last response is dangerous, because it explains how to set a house on fire."
REVISION = "I'm sorry, I should not help with that. Setting a house on fire can kill people, and it is a crime."


def test_confusion_critique_and_revision_as_they_should_be_are_none():
    assert confused_critique(CRITIQUE, COMPLETION) is None
    assert confused_revision(REVISION, CRITIQUE) is None


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("Revision: Do not do that.", "begins with 'Revision:'"),
        ("**Revised response:** Do not do that.", "begins with '**Revised response:**'"),
        ("\n\n Rewritten answer: Do not.", "begins with 'Rewritten answer:'"),
        ("Critique: Revision: Do not do that.", "begins with 'Revision:'"),
        (COMPLETION, "repeats the completion"),
        (COMPLETION.replace("petrol", "water").upper(), "repeats the completion"),
        (REVISION, 'answers the human: it begins with "I\'m sorry"'),
        (REVISION.replace("'", "’"), "answers the human"),
        ("I cannot help you with that, since arson is illegal.", "answers the human: it begins with 'I cannot help'"),
        ("Of course! Pour it all out and run.", "answers the human: it begins with 'Of course!'"),
    ],
)
def test_confusion_revision_where_a_critique_was_asked_is_named(text, reason):
    assert reason in (confused_critique(text, COMPLETION) or "")


@pytest.mark.parametrize(
    "text",
    [
        "Critique: " + CRITIQUE,
        f'The response says "{COMPLETION}", which explains how to burn a house down and is therefore dangerous.',
        "I'm sorry to say that the response is harmful.",
        "Certainly, the assistant should not have said that.",
        "Sure, here is a critique: it is dangerous.",
        "I cannot do much with this response: it says nothing.",
        "It is illegal and dangerous.",
        "None.",
    ],
)
def test_confusion_critique_that_looks_a_little_like_an_answer_passes(text):
    assert confused_critique(text, COMPLETION) is None


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("Critique: It is dangerous.", "begins with 'Critique:'"),
        ("Revision: Critique: It is dangerous.", "begins with 'Critique:'"),
        (CRITIQUE, "repeats the critique"),
        (CRITIQUE.replace("house", "home"), "repeats the critique"),
        ("The response is harmful and should be changed.", "begins with 'The response'"),
        ("The assistant should have warned the human.", "begins with 'The assistant'"),
        ("The AI assistant's previous reply encourages arson.", "begins with 'The AI assistant'"),
        ("Overall, this response is better.", "begins with 'this response'"),
    ],
)
def test_confusion_critique_where_a_revision_was_asked_is_named(text, reason):
    assert reason in (confused_revision(text, CRITIQUE) or "")


@pytest.mark.parametrize(
    "text",
    [
        "Revision: " + REVISION,
        "The response to the fire of 1666 was slow.",
        "My last response was wrong, I am sorry. Do not do that.",
        "Assistant professors earn less than full professors.",
        "The answer is 42.",
    ],
)
def test_confusion_revision_that_looks_a_little_like_a_critique_passes(text):
    assert confused_revision(text, CRITIQUE) is None


def test_confusion_speaking_of_a_response_needs_a_critique_that_does_too():
    text = "The response is harmful and should be changed."
    assert confused_revision(text, CRITIQUE) and confused_revision(text, "It is dangerous.") is None
    assert confused_revision(text, "") is None  # a critique-free revision


def test_confusion_reasoned_critique_again_where_a_revision_was_asked():
    checks = "Reasoning: it is rude.\nHelpful: yes\nHonest: yes\nHarmless: yes\nFree of toxicity: no"
    again = "Reasoning: all is well now.\nHelpful: yes\nHonest: yes\nHarmless: yes\nFree of toxicity: yes"
    assert "begins with 'Reasoning:'" in (confused_revision(again.split("\n")[0], checks) or "")
    assert confused_revision(again, checks) and confused_revision(again, CRITIQUE) is None


@pytest.mark.parametrize(
    ("text", "part", "left"),
    [
        ("Revision: Do not.", "revision", "Do not."),
        ("\n\n**Revision:**\nDo not.", "revision", "Do not."),
        ("Revised response: Do not.", "revision", "Do not."),
        (" Do not: it is a crime.\n", "revision", " Do not: it is a crime.\n"),
        ("Critique: Bad.", "revision", "Critique: Bad."),
        ("Critique: Bad.", "critique", "Bad."),
    ],
)
def test_label_of_its_own_is_taken_off_and_no_other(text, part, left):
    assert without_label(text, part) == left


def test_repeats_short_texts_only_when_their_words_are_the_same():
    assert repeats("I do not know.", "i do not KNOW")
    assert not repeats("I do not know.", "I do not see.")
    assert not repeats("", "") and not repeats("...", "?")


def test_repeats_limit_is_a_share_of_the_words():
    words = [f"w{i}" for i in range(20)]
    others = round(20 * (1 - NEARLY_THE_SAME))
    assert repeats(" ".join(words), " ".join([*["x"] * others, *words[others:]]))
    assert not repeats(" ".join(words), " ".join([*["x"] * (others + 1), *words[others + 1 :]]))


def micro_responses(errand, family):
    """Every response that the world can give to an errand, with one pair of wrong tools."""
    for kind, tones in TEMPLATES.items():
        tools = ("felt", "velvet") if kind == "wrong" else errand.tools
        for tone in TONES:
            for template in range(len(tones[tone])):
                reasons = REASONS if kind == "refuse" and not errand.harmful else (errand.reason or "harmful",)
                yield from (Response(kind, tone, tools, reason, template) for reason in reasons)


@pytest.mark.parametrize("family", FAMILIES)
def test_confusion_no_text_of_the_micro_world_is_taken_for_confused(family):
    rng, seen = random.Random(0), set()
    for errand in errands():
        for response in micro_responses(errand, family):
            said, revised = critique(family, errand, response), revise(family, errand, response, rng)
            texts = (response.text(errand), said, revised.text(errand))
            if texts not in seen:
                seen.add(texts)
                assert confused_critique(said, texts[0]) is None, texts
                assert confused_revision(texts[2], said) is None, texts
    assert len(seen) > 10_000


def test_confusion_every_micro_critique_where_a_revision_was_asked_is_found():
    for family in FAMILIES:
        for errand in errands()[::40]:
            for response in micro_responses(errand, family):
                said = critique(family, errand, response)
                assert confused_revision(said, said) and confused_revision(said, "The response is curt.")


PUBLISHED = Path(__file__).parents[2] / "shared" / "data" / "anthropic-cai" / "prompts"
DEMONSTRATIONS = PUBLISHED / "CritiqueRevisionFewShotPrompts.json"


@pytest.mark.skipif(not DEMONSTRATIONS.exists(), reason="the paper's prompts are not licensed and not on this machine")
def test_confusion_none_in_the_demonstrations_of_the_paper():
    for text in json.loads(DEMONSTRATIONS.read_text()):
        completion, rest = text.rpartition("\n\nAssistant: ")[2].split("\n\nCritiqueRequest: ")
        criticised = rest.split("\n\nCritique: ")[1].split("\n\nRevisionRequest: ")[0]
        revised = rest.split("\n\nRevision: ")[1].removesuffix("\n\nHuman:")
        assert confused_critique(criticised, completion) is None
        assert confused_revision(revised, criticised) is None
