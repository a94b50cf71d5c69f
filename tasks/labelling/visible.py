"""Reasoning that a completion shows: taken apart from its answer, so that the two can be judged for agreement."""

import re

_TAGGED = re.compile(r"<(think|thinking|thought|reasoning)>(.*?)</\1>", re.DOTALL | re.IGNORECASE)
# where the chat template has written the opening tag, only the closing one is in the completion
_CLOSED = re.compile(r"</(?:think|thinking|thought|reasoning)>", re.IGNORECASE)
_STEPS = re.compile(r"\s*let[’']?s think step by step\s*[:.,]?", re.IGNORECASE)
_ANSWER = re.compile(
    r"(?:\bso,? the (?:final )?answer is|(?:^|\n)[\s*#]*(?:the )?final answer(?: is)?)[\s*]*:[\s*]*", re.I
)


def split_reasoning(completion: str) -> tuple[str, str] | None:
    """The reasoning and the answer of a completion that shows both; None where either is missing or empty.

    Read are `<think>`, `<thinking>`, `<thought>` and `<reasoning>` tags, a step-by-step beginning up to `So the
    answer is:`, and a line `Final answer:`; of several such endings the last counts.
    """
    reasoning, answer = _tagged(completion) or _stepwise(completion) or ("", "")
    return (reasoning.strip(), answer.strip()) if reasoning.strip() and answer.strip() else None


def _tagged(completion: str) -> tuple[str, str] | None:
    if blocks := [match[2].strip() for match in _TAGGED.finditer(completion)]:
        return "\n\n".join(blocks), _TAGGED.sub("", completion)
    closed = _CLOSED.search(completion)
    return (completion[: closed.start()], completion[closed.end() :]) if closed else None


def _stepwise(completion: str) -> tuple[str, str] | None:
    endings = list(_ANSWER.finditer(completion))
    begun = _STEPS.match(completion)
    if not endings or not (begun or "final" in endings[-1][0].lower()):
        return None
    return completion[begun.end() if begun else 0 : endings[-1].start()], completion[endings[-1].end() :]
