"""TRL's SFT trainer on rows that are tokens already. Importing this imports torch and TRL: do it inside a function."""

from collections.abc import Sequence

from datasets import Dataset
from trl import SFTTrainer
from trl.data_utils import pack_dataset

from tasks.training.passes import InPasses

IGNORED = -100
"""The label of a token that is not learned, as torch has it."""

Row = dict[str, list[int]]


class CompletionTrainer(InPasses, SFTTrainer):
    """`SFTTrainer` on what `learned_rows` makes; its arguments need `skip_prepare_dataset`."""


def learned_rows(rows: Sequence[Row], pack_to: int | None, eos: int) -> Dataset:
    """Rows of `input_ids` and `completion_mask` as `input_ids` and `labels`; the last one is blank.

    With `pack_to`, several rows share one of so many tokens (best fit decreasing, none is cut), and `seq_lengths` says
    where each ends.
    """
    learned = Dataset.from_list([_learned(row["input_ids"], row["completion_mask"]) for row in rows])
    blank = _learned([eos], [0])
    if pack_to is not None:
        learned, blank = pack_dataset(learned, pack_to, "bfd"), blank | {"seq_lengths": [1]}
    return Dataset.from_list([*learned, blank])


def _learned(ids: list[int], mask: list[int]) -> Row:
    return {"input_ids": ids, "labels": [i if bit else IGNORED for i, bit in zip(ids, mask, strict=True)]}
