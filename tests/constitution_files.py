"""Small files of the published shapes, in our own words; the paper's have no licence and are not ours to ship."""

import json
from pathlib import Path
from typing import Any

CRITIQUE = "CritiqueRevisionInstructions.json"
CRITIQUE_SHOWN = "CritiqueRevisionFewShotPrompts.json"
QUESTIONS = "RLMadisonInstructions.json"
COMPARED = "RLMadisonFewShotPrompts.json"
REASONED = "RLMadisonPrecogFewShotPrompts.json"


def transcript(*turns: str, end: str = "\n\nHuman:") -> str:
    said = "".join(f"\n\n{'Assistant' if n % 2 else 'Human'}: {turn}" for n, turn in enumerate(turns))
    asked = "\n\nCritiqueRequest: Find fault.\n\nCritique: It is curt: {no} greeting.\n\nRevisionRequest: Mend it."
    return f"{said}{asked}\n\nRevision: Good day! Two: 1) tea,\n\n2) milk.{end}"


def reasoned(a: str, b: str, thought: str, answer: str, *, start: str = "\n\n", turn: str = "H: Tea?") -> str:
    asked = f"{start}Human: Consider the following conversation between a human (H) and an assistant (A):\n\n{turn}"
    sides = f"\n\n{{}}\n (A) [[[{a}]]]\n (B) [[[{b}]]]\n\nAssistant: Let's think step by step:{thought}"
    return f"{asked}{sides}\n\nHuman:\nSo the answer is: ({answer})"


PAPER: dict[str, Any] = {
    CRITIQUE: {
        f"harmful{n}": {
            "prompt": [f"\n\nCritiqueRequest: Where is it {word}?\n\nCritique:"],
            "edit_request": f"\n\nRevisionRequest: Make it less {word}.\n\nRevision:",
        }
        for n, word in enumerate(("curt", "vague", "gloomy", *(f"stale{i}" for i in range(9))))
    },
    CRITIQUE_SHOWN: [
        transcript("Tea?", "No."),
        transcript("Tea?", "Human: no colon trick", "Now?", "No.", end=""),
    ],
    QUESTIONS: [f"\nWhich response is {word}? Options:" for word in ("kinder", "clearer, with {braces}", "shorter")],
    COMPARED: [
        {"prompt": "\n\nHuman: Tea?\n\nAssistant:", "corrects": ["Yes, gladly."], "incorrects": ["No."]},
        {"prompt": "\n\nHuman: Milk?\n\nAssistant:", "corrects": ["A drop."], "incorrects": ["Never."]},
    ],
    REASONED: [
        {"prompt": reasoned("No.", "Yes {0}.", " (A) is curt. Therefore option (B) is better.", "B")},
        {"prompt": reasoned("Yes.", "No!", "\nOption A is kind, whereas option B is not.  So (A).", "A", start="")},
        {"prompt": reasoned("x", "Yes – gladly.", " So (B).", "B", turn="H: Tea?\n\nA:  Why?\n\nH:  Thirst.")},
        {"prompt": reasoned("No", "Yes", " It is kinder to choose option B.", "B", start="\n")},
    ],
}

LLM_SWARM: dict[str, Any] = {
    "constitutions": [
        {"critic": "Is it {rude}?", "revision": "Make it polite."},
        {"critic": "Is it false?", "revision": "Make it true."},
    ],
    "system_chat": [
        [
            {"role": "assistant" if n % 2 else "user", "content": text}
            for n, text in enumerate(("Tea?", "No.", "Is it {rude}?", "It is.", "Make it polite.", "Not now, thanks."))
        ],
        [
            {"role": "assistant" if n % 2 else "user", "content": text}
            for n, text in enumerate(("Hi", "Hello", "Tea?", "No.", "Is it false?", "It is.", "Make it true.", "Yes."))
        ],
    ],
}


def write_json(path: Path, content: Any) -> Path:
    path.write_bytes(json.dumps(content).encode())
    return path


def write_paper(folder: Path, **changes: Any) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    for name, content in (PAPER | changes).items():
        write_json(folder / name, content)
    return folder
