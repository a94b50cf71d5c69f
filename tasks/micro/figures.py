"""What a model of the micro world can do: `python -m tasks.micro.figures [FOLDER] [--num 400]` prints every skill."""

import argparse
from pathlib import Path

from tasks.micro.form_skills import form_figures
from tasks.micro.skills import Speaker, skill_figures

MODEL = Path("tasks/micro/model")


def load(folder: Path) -> Speaker:
    """The model of a folder, ready to be asked."""
    from transformers import AutoModelForCausalLM, AutoTokenizer

    return Speaker(AutoModelForCausalLM.from_pretrained(folder), AutoTokenizer.from_pretrained(folder))


def report(folder: Path, num: int) -> None:
    """Print the skill figures of a saved model, `num` samples each."""
    speaker = load(folder)
    for name, value in (skill_figures(speaker, num, seed=7) | form_figures(speaker, num, seed=7)).items():
        print(f"  {name:44} {value:.3f}", flush=True)


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path, nargs="?", default=MODEL)
    parser.add_argument("--num", type=int, default=400, help="samples of each figure")
    arguments = parser.parse_args()
    report(arguments.folder, arguments.num)


if __name__ == "__main__":
    main()
