"""llm-swarm's shape: pairs of a critic and a revision request, and chats that go before them."""

from typing import Any

from constitutions.demonstrations import RevisionDemonstration, Turn
from constitutions.importers.checking import expect, keys, text_of
from constitutions.importers.naming import unique_ids
from constitutions.model import Constitution, Principle

_TAIL = ("completion", "critique_request", "critique", "revision_request", "revision")


def read_llm_swarm(content: Any, file: str, name: str) -> tuple[Constitution, list[str]]:
    """A principle for each pair, for the supervised phase only; a demonstration for each chat.

    Raises: ConstitutionError: a key or a shape that this reader does not know.
    """
    keys(content, file, "constitutions", optional=("system_chat",))
    pairs, chats = content["constitutions"], content.get("system_chat", [])
    for key, value in (("constitutions", pairs), ("system_chat", chats)):
        expect(isinstance(value, list), f"{file}: {key}", type(value).__name__, "a list")
    expect(bool(pairs), f"{file}: constitutions", "an empty list", "at least one pair of critic and revision")
    texts = []
    for number, pair in enumerate(pairs):
        where = f"{file}: constitutions[{number}]"
        keys(pair, where, "critic", "revision")
        texts.append(tuple(text_of(pair[key], f"{where}.{key}").strip() for key in ("critic", "revision")))
    ids = unique_ids(" ".join(pair) for pair in texts)
    principles = [
        Principle(
            id=ids[number], source=f"{file}#constitutions/{number}", critique_request=critic, revision_request=revision
        )
        for number, (critic, revision) in enumerate(texts)
    ]
    shown = [_demonstration(chat, f"{file}: system_chat[{number}]") for number, chat in enumerate(chats)]
    names = unique_ids([" ".join(turn.content for turn in fields["prompt"]) for fields in shown], "demonstration")
    demonstrations = [
        RevisionDemonstration(id=names[number], source=f"{file}#system_chat/{number}", **fields)
        for number, fields in enumerate(shown)
    ]
    constitution = Constitution(id=name, principles=tuple(principles), revision_demonstrations=tuple(demonstrations))
    return constitution, [
        f"read {len(principles)} principles and {len(shown)} demonstrations, for the supervised phase",
        "it has no comparison questions: the preference phase needs some",
    ]


def _demonstration(chat: Any, where: str) -> dict[str, Any]:
    """User and assistant in turn; the last five are completion, critique and revision with what asked for them."""
    expect(isinstance(chat, list), where, type(chat).__name__, "a list of turns")
    contents = []
    for number, turn in enumerate(chat):
        keys(turn, f"{where}[{number}]", "role", "content")
        expected = "assistant" if number % 2 else "user"
        expect(turn["role"] == expected, f"{where}[{number}].role", repr(turn["role"]), expected)
        contents.append(text_of(turn["content"], f"{where}[{number}].content").strip())
    enough = len(contents) > len(_TAIL) and len(contents) % 2 == 0
    expect(enough, where, f"{len(contents)} turns", "6 or more, an even number, of which the last is the revision")
    asked = contents[: -len(_TAIL)]
    turns = tuple(Turn(role="assistant" if n % 2 else "user", content=text) for n, text in enumerate(asked))
    return {"prompt": turns} | dict(zip(_TAIL, contents[-len(_TAIL) :], strict=True))
