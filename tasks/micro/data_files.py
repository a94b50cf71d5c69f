"""Write the micro world's prompt files: `python -m tasks.micro.data_files` fills `tasks/micro/data/`.

The alignment stages read `red_team.jsonl`, `helpful.jsonl` and `helpful_comparisons.jsonl`, which speak
only of errands of the alignment split; evaluation reads `held_out.jsonl`, which speaks only of the others.
Gates ask a feedback model about `canaries.jsonl`; nothing is trained on it.
"""

import json
import random
from dataclasses import replace
from pathlib import Path

from tasks.micro.corpus import assistant, user
from tasks.micro.principles import rank
from tasks.micro.world import ASKS, TONES, Errand, Mistake, Response, ResponseKind, ask, errands, mistaken, respond
from tasks.prompts import transcript

FOLDER = Path(__file__).parent / "data"
ASKED_FOR_TRAINING = 4
ASKED_FOR_EVALUATION = 3
NUM_COMPARISONS = 2000
WORSE: tuple[ResponseKind, ...] = ("wrong", "wrong", "wrong", "wrong", "refuse", "evade")
"""What a compliance is compared with. A refusal or an evasion is told from it after a few dozen comparisons, wrong
tools are the hard half, so most are of these."""
MISTAKEN: tuple[Mistake, ...] = ("object", "object", "verb")
"""Which tool is wrong, never both: a reward model would learn to look at one of them. The object's is harder to see."""
NUM_CANARIES = 40

JsonRow = dict[str, str]


def data_files() -> dict[str, list[JsonRow]]:
    """The rows of every file by its name; always the same."""
    used = [e for e in errands() if e.group == "alignment"]
    return {
        "red_team.jsonl": _prompts([e for e in used if e.harmful], random.Random("red_team")),
        "helpful.jsonl": _prompts([e for e in used if not e.harmful], random.Random("helpful")),
        "held_out.jsonl": _held_out([e for e in errands() if e not in used], random.Random("held_out")),
        "helpful_comparisons.jsonl": _comparisons([e for e in used if not e.harmful], random.Random("comparisons")),
        "canaries.jsonl": _canaries([e for e in used if e.harmful], random.Random("canaries")),
    }


def render(rows: list[JsonRow]) -> str:
    """One JSON object a line."""
    return "".join(json.dumps(row) + "\n" for row in rows)


def _prompts(pool: list[Errand], rng: random.Random) -> list[JsonRow]:
    rows = [{"prompt": prompt} for errand in pool for prompt in _asked(errand, ASKED_FOR_TRAINING, rng)]
    rng.shuffle(rows)
    return rows


def _held_out(pool: list[Errand], rng: random.Random) -> list[JsonRow]:
    rows = [
        {"prompt": prompt, "kind": "red_team" if errand.harmful else "helpful", "group": errand.group}
        for errand in pool
        for prompt in _asked(errand, ASKED_FOR_EVALUATION, rng)
    ]
    rng.shuffle(rows)
    return rows


def _asked(errand: Errand, times: int, rng: random.Random) -> list[str]:
    return [form.format(errand=errand.name) for form in rng.sample(ASKS, times)]


def _comparisons(pool: list[Errand], rng: random.Random) -> list[JsonRow]:
    """Stand-ins for human preferences, in the form of hh-rlhf; tones are drawn apart from kinds."""
    rows: list[JsonRow] = []
    for _ in range(NUM_COMPARISONS):
        errand, kind = rng.choice(pool), rng.choice(WORSE)
        assert rank("helpfulness", False, "comply", "curt") > rank("helpfulness", False, kind, "curt")
        prompt, better = ask(errand, rng), respond(errand, "comply", rng.choice(TONES), rng)
        worse = _mistaken(better, errand, rng) if kind == "wrong" else respond(errand, kind, rng.choice(TONES), rng)
        chosen, rejected = (_as_transcript(prompt, side.text(errand)) for side in (better, worse))
        rows.append({"chosen": chosen, "rejected": rejected})
    return rows


def _mistaken(response: Response, errand: Errand, rng: random.Random) -> Response:
    """The same sentence with one tool wrong: what else differed would only hide what makes it worse."""
    wrong = mistaken(errand, rng.choice(MISTAKEN), response.tone, rng)
    return replace(response, kind="wrong", tools=wrong.tools)


def _canaries(pool: list[Errand], rng: random.Random) -> list[JsonRow]:
    """A refusal with its reason beside a compliance in the same tone; in every other pair the refusal is longer."""
    rows: list[JsonRow] = []
    while len(rows) < NUM_CANARIES:
        errand, tone = rng.choice(pool), rng.choice(TONES)
        safe, harmful = (respond(errand, kind, tone, rng).text(errand) for kind in ("refuse", "comply"))
        if (len(safe) - len(harmful)) * (-1) ** len(rows) > 0:
            rows.append({"prompt": ask(errand, rng), "safe": safe, "harmful": harmful})
    return rows


def _as_transcript(prompt: str, completion: str) -> str:
    return "\n\n" + transcript([user(prompt), assistant(completion)])


def main() -> None:
    """Replace the files."""
    FOLDER.mkdir(exist_ok=True)
    for name, rows in data_files().items():
        (FOLDER / name).write_text(render(rows))
        print(f"{name}: {len(rows)} rows")


if __name__ == "__main__":
    main()
