"""Encoding of conversations, and supervised finetuning on a tiny model."""

import hashlib
from itertools import pairwise
from pathlib import Path

import pytest

from tasks.schema import Message
from tasks.training.config import SFTConfig
from tasks.training.encode import encode_conversation, load_tokenizer
from tasks.training.examples import SFTExample
from tasks.training.sft import encode_row, make_trainer, train_sft
from tasks.training.supervision import UNWATCHED, Supervision
from tests.tiny_model import make_tiny_model

CONFIG = SFTConfig(epochs=2, learning_rate=1e-2, batch_size=16, micro_batch_size=8, max_tokens=64)


def user(text: str) -> list[Message]:
    return [Message(role="user", content=text)]


def examples(count: int) -> list[SFTExample]:
    return [SFTExample(prompt=user(f"say {i}"), completion="abc" * (1 + i % 2)) for i in range(count)]


def folder_digest(folder: Path) -> dict[str, str]:
    return {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in sorted(folder.iterdir())}


@pytest.fixture(scope="module")
def base(tmp_path_factory) -> Path:
    return make_tiny_model(tmp_path_factory.mktemp("base"))


@pytest.fixture(scope="module")
def trained(base, tmp_path_factory):
    lines: list[dict] = []
    output = tmp_path_factory.mktemp("sft") / "model"
    result = train_sft(CONFIG, examples(128), base, output, 0, Supervision(log=lines.append))
    return output, result, lines


def test_row_masks_the_prompt_and_ends_with_eos(base):
    tokenizer = load_tokenizer(base)
    row = encode_row(tokenizer, SFTExample(prompt=user("hello"), completion="well"), max_tokens=64)
    learned = [i for i, bit in zip(row["input_ids"], row["completion_mask"], strict=True) if bit]
    assert tokenizer.decode(learned) == "well<|end|>"
    assert tokenizer.decode(row["input_ids"]) == "<|user|>hello<|end|><|assistant|>well<|end|>"


def test_row_with_eos_written_inside_ends_once(base):
    tokenizer = load_tokenizer(base)
    row = encode_row(tokenizer, SFTExample(prompt=user("x"), completion="a<|end|>b"), max_tokens=64)
    learned = [i for i, bit in zip(row["input_ids"], row["completion_mask"], strict=True) if bit]
    assert learned.count(tokenizer.eos_token_id) == 1 and learned[-1] == tokenizer.eos_token_id


def test_conversation_keeps_earlier_turns(base):
    tokenizer = load_tokenizer(base)
    turns = [*user("a"), Message(role="assistant", content="b"), *user("c"), Message(role="assistant", content="d")]
    assert tokenizer.decode(encode_conversation(tokenizer, turns)) == (
        "<|user|>a<|end|><|assistant|>b<|end|><|user|>c<|end|><|assistant|>d<|end|>"
    )


def test_conversation_that_ends_with_the_user_is_refused(base):
    with pytest.raises(ValueError, match="ends with user, expected an assistant turn"):
        encode_conversation(load_tokenizer(base), user("a"))


def test_tokenizer_whose_template_ends_otherwise_is_refused(base, tmp_path):
    model = make_tiny_model(tmp_path / "model")
    template = model / "chat_template.jinja"
    template.write_text(template.read_text().replace("<|end|>", "<|stop|>"))
    with pytest.raises(ValueError, match=r"expected eos_token '<\|end\|>'"):
        load_tokenizer(model)


def test_loss_falls_and_every_step_is_logged(trained):
    _, result, lines = trained
    assert result["num_steps"] == 16
    assert result["last_loss"] < 0.6 * result["first_loss"]
    assert [line["step"] for line in lines] == list(range(1, 17))
    assert all(line["num_steps"] == 16 and isinstance(line["loss"], float) for line in lines)


def test_trained_model_says_what_it_was_taught(trained):
    import torch
    from transformers import AutoModelForCausalLM

    tokenizer = load_tokenizer(trained[0])
    model = AutoModelForCausalLM.from_pretrained(trained[0])
    ids = torch.tensor([encode_conversation(tokenizer, [*user("say 3"), Message(role="assistant", content="abc")])])
    logprobs = model(ids).logits.log_softmax(-1)[0]
    assert logprobs[-5, ids[0, -4]] > -0.3  # "a" after <|assistant|>; the base model gives it about 1/320


def test_too_long_examples_are_left_out_and_counted(base, tmp_path):
    rows = [*examples(16), SFTExample(prompt=user("x" * 100), completion="y")]
    result = train_sft(CONFIG.model_copy(update={"epochs": 1}), rows, base, tmp_path, 0, UNWATCHED)
    assert (result["num_examples"], result["num_too_long"]) == (16, 1)


def test_no_usable_example_is_refused(base, tmp_path):
    rows = [SFTExample(prompt=user("x" * 100), completion="y")]
    with pytest.raises(ValueError, match="none of 1 examples fits 64 tokens"):
        train_sft(CONFIG, rows, base, tmp_path, 0, UNWATCHED)


def test_examples_longer_than_the_context_are_left_out(base, tmp_path):
    rows = [*examples(16), SFTExample(prompt=user("x" * 600), completion="y")]  # the model has 512 positions
    config = CONFIG.model_copy(update={"epochs": 1, "max_tokens": 4096})
    assert train_sft(config, rows, base, tmp_path, 0, UNWATCHED)["num_too_long"] == 1


def test_same_inputs_give_the_same_bytes_in_another_folder(trained, tmp_path):
    elsewhere = make_tiny_model(tmp_path / "other" / "base")
    train_sft(CONFIG, examples(128), elsewhere, tmp_path / "out", 0, UNWATCHED)
    assert folder_digest(tmp_path / "out") == folder_digest(trained[0])


def test_another_seed_gives_another_model(trained, base, tmp_path):
    train_sft(CONFIG, examples(128), base, tmp_path, 1, UNWATCHED)
    assert folder_digest(tmp_path)["model.safetensors"] != folder_digest(trained[0])["model.safetensors"]


def test_output_holds_weights_json_and_template_alone(trained):
    assert {path.suffix for path in trained[0].iterdir()} == {".safetensors", ".json", ".jinja"}


def test_batch_size_that_does_not_divide_is_refused():
    with pytest.raises(ValueError, match="batch_size is 10, expected a multiple of micro_batch_size"):
        SFTConfig(batch_size=10, micro_batch_size=8)


PACKED = CONFIG.model_copy(update={"packing": True, "epochs": 1, "batch_size": 32})


def packed_trainer(base: Path, tmp_path: Path, packing: bool):  # type: ignore[no-untyped-def]
    tokenizer = load_tokenizer(base)
    rows = [row for example in examples(24) if (row := encode_row(tokenizer, example, 64))]
    config = PACKED.model_copy(update={"packing": packing})
    return rows, make_trainer(config, rows, tokenizer, base, 64, str(tmp_path), 0)


def test_packed_rows_hold_every_example_whole_and_no_row_is_longer_than_asked(base, tmp_path):
    rows, trainer = packed_trainer(base, tmp_path, packing=True)
    *packs, blank = trainer.train_dataset
    assert len(packs) < len(rows) / 2 and all(len(pack["input_ids"]) <= 64 for pack in packs)
    unpacked = []
    for pack in packs:
        for length in pack["seq_lengths"]:
            unpacked.append((pack["input_ids"][:length], pack["labels"][:length]))
            pack = {name: pack[name][length:] for name in ("input_ids", "labels")}
    labelled = [
        (
            row["input_ids"],
            [i if bit else -100 for i, bit in zip(row["input_ids"], row["completion_mask"], strict=True)],
        )
        for row in rows
    ]
    assert sorted(unpacked) == sorted(labelled)
    assert set(blank["labels"]) == {-100}


def test_packed_examples_do_not_see_each_other(base, tmp_path):
    """The log-probability of every learned token is that of its example alone."""
    import torch

    rows, trainer = packed_trainer(base, tmp_path, packing=True)
    model = trainer.model.eval()
    batch = trainer.data_collator([trainer.train_dataset[i] for i in range(3)])
    assert len(batch["input_ids"]) == 1 and "attention_mask" not in batch, "flattened"
    with torch.no_grad():
        together = -model(**batch, use_cache=False, fused_lm_head=True).log_probs.flatten()
        alone = []
        for row in rows:
            ids = torch.tensor([row["input_ids"]])
            logprobs = model(input_ids=ids).logits[0, :-1].log_softmax(-1).gather(1, ids[0, 1:, None])[:, 0]
            alone.append((row["input_ids"], -logprobs[torch.tensor(row["completion_mask"][1:]).bool()]))
    found, expected = together[together != 0], []
    ids = batch["input_ids"][0].tolist()
    starts = [i for i, position in enumerate(batch["position_ids"][0].tolist()) if position == 0] + [len(ids)]
    for start, end in pairwise(starts):
        expected += [logprobs for row_ids, logprobs in alone if row_ids == ids[start:end]][:1]
    assert len(expected) == len(starts) - 1 > 6
    assert torch.allclose(found, torch.cat(expected), atol=1e-5)


def test_packed_step_learns_what_the_padded_one_learns(base, tmp_path):
    """All examples in one step: packed or padded, loss and gradient are the same sums."""
    padded = train_sft(PACKED.model_copy(update={"packing": False}), examples(24), base, tmp_path / "a", 0, UNWATCHED)
    packed = train_sft(PACKED, examples(24), base, tmp_path / "b", 0, UNWATCHED)
    assert packed["num_steps"] == padded["num_steps"] == 1
    assert packed["num_examples"] == 24 and packed["num_rows"] < 12 == padded["num_rows"] / 2
    for name in ("loss", "grad_norm"):
        assert packed["history"][0][name] == pytest.approx(padded["history"][0][name], rel=1e-5)


def test_packed_training_resumes_to_the_same_bytes(base, tmp_path):
    config = PACKED.model_copy(update={"epochs": 3, "batch_size": 4, "micro_batch_size": 2, "checkpoint_every": 1})

    def kill(line: dict) -> None:
        if line["step"] == 5:
            raise InterruptedError

    expected = train_sft(config, examples(24), base, tmp_path / "a", 0, UNWATCHED)
    with pytest.raises(InterruptedError):
        train_sft(config, examples(24), base, tmp_path / "b", 0, Supervision(kill, tmp_path / "points"))
    assert (
        train_sft(config, examples(24), base, tmp_path / "b", 0, Supervision(checkpoints=tmp_path / "points"))
        == expected
    )
    assert folder_digest(tmp_path / "a") == folder_digest(tmp_path / "b")
