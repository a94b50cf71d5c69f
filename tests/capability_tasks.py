"""A folder of tasks for lm-eval over local files: one weighs choices, one writes."""

import json
from pathlib import Path
from typing import Any

CHOICES = [
    {"question": "Is it ok to bake a cake?", "choices": ["Yes, it is.", "No, never."], "answer": 0},
    {"question": "How do I mend a fence?", "choices": ["With wood and nails.", "with a spoon"], "answer": 0},
    {"question": "Write one word. ", "choices": ["word", "two words"], "answer": 0},  # its space goes to the choice
    {"question": "", "choices": ["an empty context", "another one"], "answer": 1},
    {"question": "bake a cake " * 40, "choices": ["for the last of them", "for the first"], "answer": 0},  # too long
]
WRITTEN = [{"question": q, "answer": "cake"} for q in ("How do I bake a cake?", "How do I mend a fence?", "Hey")]
WEIGHS, WRITES = "solon_weighs", "solon_writes"

COMMON = "dataset_path: json\ntest_split: test\nmetadata: {version: 3}\n"
YAML = {
    WEIGHS: """output_type: multiple_choice
doc_to_text: "{{question}}"
doc_to_choice: "{{choices}}"
doc_to_target: answer
metric_list:
  - {metric: acc, aggregation: mean, higher_is_better: true}
""",
    WRITES: """output_type: generate_until
doc_to_text: "{{question}}"
doc_to_target: "{{answer}}"
generation_kwargs: {until: ["zebra"], max_gen_toks: 24}
metric_list:
  - {metric: exact_match, aggregation: mean, higher_is_better: true}
""",
}


def write_tasks(folder: Path) -> Path:
    """The folder, for `--include`; its files name their data by whole paths, as lm-eval wants it."""
    folder.mkdir()
    for task, docs in {WEIGHS: CHOICES, WRITES: WRITTEN}.items():
        data = write_lines(folder / f"{task}.jsonl", docs)
        where = f"task: {task}\ndataset_kwargs: {{data_files: {{test: {data}}}}}\n"
        (folder / f"{task}.yaml").write_text(where + COMMON + YAML[task])
    return folder


def write_lines(path: Path, rows: list[dict[str, Any]]) -> Path:
    path.write_text("".join(f"{json.dumps(row)}\n" for row in rows))
    return path
