"""Build the micro model: `python -m tasks.micro.pretrain --output tasks/micro/model` (one CPU core).

A byte-level BPE tokenizer and a Llama of 4 layers, trained from nothing on the corpus of this folder. The
weights are written as bfloat16 to stay small, while `config.json` says float32: whoever loads them computes
in float32.
"""

import argparse
import copy
import json
import math
import random
import shutil
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from tasks.micro.corpus import Example
from tasks.micro.figures import report
from tasks.micro.mixture import mixture
from tasks.schema import Frozen, Message

END = "<|end|>"
SPECIAL_TOKENS = ["<|pad|>", "<|user|>", "<|assistant|>", "<|system|>", END]
# the world has fewer words than the vocabulary has room: with these, text from elsewhere takes fewer tokens
COMMON_WORDS = (
    " the of and to in is you that it he was for on are as with his they at be this have from or one had by but"
    " not what all were we when your said there use an each which she do how their if will up other about out"
    " many then them these so some her would make like him into time has look two more write go see number no"
    " way could people my than first been call who now find long down day did get come made may part"
)
# a control token that stands in somebody's text is broken up, so that no content can forge a turn
CHAT_TEMPLATE = (
    "{%- for message in messages -%}"
    "{%- set content = message['content'] | replace('<|', '< |') -%}"
    "{{- '<|' + message['role'] + '|>' -}}"
    "{%- if message['role'] == 'assistant' -%}"
    "{%- generation -%}{{- content + '<|end|>' -}}{%- endgeneration -%}"
    "{%- else -%}{{- content + '<|end|>' -}}{%- endif -%}"
    "{%- endfor -%}"
    "{%- if add_generation_prompt -%}{{- '<|assistant|>' -}}{%- endif -%}"
)


class PretrainConfig(Frozen):
    """Size of the model and length of its training."""

    vocabulary: int = 1024
    hidden_size: int = 128
    intermediate_size: int = 384
    num_layers: int = 4
    num_heads: int = 4
    num_positions: int = 16384
    num_steps: int = 2600
    batch_size: int = 64
    """Chats an optimiser step."""
    learning_rate: float = 2e-3
    """Peak; 50 steps of warm-up, then a cosine down to a twentieth."""
    seed: int = 0
    report_every: int = 1300
    """Steps between skill figures."""
    keep_every: int = 0
    """Steps between checkpoints that are kept beside the output, as `<output>-step-<n>`; 0 keeps none."""


def build_tokenizer(config: PretrainConfig) -> Any:
    """Byte-level BPE over all 256 bytes: any text goes through it and comes back unchanged."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
    from transformers import PreTrainedTokenizerFast

    bpe = Tokenizer(models.BPE())
    bpe.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    bpe.decoder = decoders.ByteLevel()
    examples = mixture(config.seed)
    texts = [m.content for _ in range(6000) for m in next(examples).messages]
    trainer = trainers.BpeTrainer(
        vocab_size=config.vocabulary,
        special_tokens=SPECIAL_TOKENS,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    bpe.train_from_iterator([*texts, *[COMMON_WORDS] * 100], trainer)
    return PreTrainedTokenizerFast(
        tokenizer_object=bpe,
        pad_token="<|pad|>",
        eos_token=END,
        padding_side="left",
        clean_up_tokenization_spaces=False,
        model_max_length=config.num_positions,
        chat_template=CHAT_TEMPLATE,
    )


def build_model(config: PretrainConfig, tokenizer: Any) -> Any:
    """A Llama with random weights; embeddings untied and heads of 32, as vLLM on a CPU wants them."""
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM

    torch.manual_seed(config.seed)
    shape = LlamaConfig(
        vocab_size=config.vocabulary,
        hidden_size=config.hidden_size,
        intermediate_size=config.intermediate_size,
        num_hidden_layers=config.num_layers,
        num_attention_heads=config.num_heads,
        num_key_value_heads=config.num_heads,
        max_position_embeddings=config.num_positions,
        pad_token_id=tokenizer.pad_token_id,
        eos_token_id=tokenizer.eos_token_id,
        bos_token_id=None,
        tie_word_embeddings=False,
    )
    return LlamaForCausalLM(shape)


def encode(tokenizer: Any, example: Example) -> tuple[list[int], list[int]]:
    """Token ids of the chat, and labels: -100 where there is nothing to learn."""
    turns = [_encode_turn(tokenizer, message) for message in example.messages]
    learnt = [i for i, m in enumerate(example.messages) if m.role == "assistant"][-example.num_targets :]
    ids = [token for turn in turns for token in turn]
    labels: list[int] = []
    for i, turn in enumerate(turns):
        # the role token is given, never predicted
        labels += [-100, *turn[1:]] if i in learnt else [-100] * len(turn)
    return ids, labels


def batches(tokenizer: Any, config: PretrainConfig) -> Iterator[list[tuple[list[int], list[int]]]]:
    """Batches of chats of like length: eight are drawn, sorted together and shuffled, to spare padding."""
    examples, rng = mixture(config.seed + 1), random.Random(config.seed)
    size = config.batch_size
    while True:
        drawn = sorted((encode(tokenizer, next(examples)) for _ in range(8 * size)), key=lambda e: len(e[0]))
        group = [drawn[i : i + size] for i in range(0, len(drawn), size)]
        rng.shuffle(group)
        yield from group


def loss_of(model: Any, batch: list[tuple[list[int], list[int]]]) -> Any:
    """Mean cross-entropy over the tokens to learn; a token weighs less the more there are in its chat.

    Otherwise the one letter of a judgement would drown in long revisions. Logits are computed only where needed.
    """
    import torch
    from torch.nn.functional import cross_entropy
    from torch.nn.utils.rnn import pad_sequence

    ids = pad_sequence([torch.tensor(i) for i, _ in batch], batch_first=True, padding_value=0)
    labels = pad_sequence([torch.tensor(x) for _, x in batch], batch_first=True, padding_value=-100)[:, 1:]
    # padding is on the right, so the causal mask alone hides it
    hidden = model.model(input_ids=ids, use_cache=False).last_hidden_state[:, :-1]
    learnt = labels != -100
    weights = (learnt / learnt.sum(1, keepdim=True).sqrt())[learnt]
    losses = cross_entropy(model.lm_head(hidden[learnt]), labels[learnt], reduction="none")
    return (losses * weights).sum() / weights.sum()


def train(model: Any, tokenizer: Any, config: PretrainConfig, output: Path) -> None:
    """AdamW over the corpus; saves the model and prints its skills at intervals and at the end."""
    import torch

    optimizer = torch.optim.AdamW(model.parameters(), lr=0.0, betas=(0.9, 0.95), weight_decay=0.01)
    stream, losses, seconds = batches(tokenizer, config), [], 0.0
    for step in range(1, config.num_steps + 1):
        began = time.monotonic()
        losses.append(_update(model, optimizer, next(stream), config.learning_rate * _schedule(step, config)))
        seconds += time.monotonic() - began
        if step % 50 == 0:
            print(f"step {step} {seconds:.0f} s loss {sum(losses[-50:]) / 50:.4f}", flush=True)
        if config.keep_every and step % config.keep_every == 0:
            save(model, tokenizer, output.with_name(f"{output.name}-step-{step}"))
        if step % config.report_every == 0 and step < config.num_steps:
            save(model, tokenizer, output)
            report(output, num=60)
    save(model, tokenizer, output)
    report(output, num=400)


def _update(model: Any, optimizer: Any, batch: list[tuple[list[int], list[int]]], rate: float) -> float:
    import torch

    for group in optimizer.param_groups:
        group["lr"] = rate
    with torch.autocast("cpu", dtype=torch.bfloat16):  # a third less time where the CPU multiplies in bfloat16
        loss = loss_of(model.train(), batch)
    loss.backward()
    torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
    optimizer.step()
    optimizer.zero_grad()
    return float(loss.detach())


def _schedule(step: int, config: PretrainConfig) -> float:
    return min(1.0, step / 50) * (0.05 + 0.95 * 0.5 * (1 + math.cos(math.pi * step / config.num_steps)))


def save(model: Any, tokenizer: Any, output: Path) -> None:
    """Write a model folder: safetensors in bfloat16, configuration in float32, tokenizer."""
    import torch

    fresh = output.with_name(output.name + ".partial")
    shutil.rmtree(fresh, ignore_errors=True)
    copy.deepcopy(model).to(torch.bfloat16).save_pretrained(fresh)
    tokenizer.save_pretrained(fresh)
    config = json.loads((fresh / "config.json").read_text())
    (fresh / "config.json").write_text(json.dumps(config | {"dtype": "float32"}, indent=2) + "\n")
    for file in fresh.iterdir():
        file.chmod(0o644)
    shutil.rmtree(output, ignore_errors=True)
    fresh.rename(output)


def _encode_turn(tokenizer: Any, message: Message) -> list[int]:
    role = tokenizer.convert_tokens_to_ids(f"<|{message.role}|>")
    return [role, *tokenizer.encode(message.content, add_special_tokens=False), tokenizer.eos_token_id]


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--output", type=Path, required=True, help="folder of the model, replaced")
    parser.add_argument("--steps", type=int, default=PretrainConfig().num_steps)
    parser.add_argument("--report-every", type=int, default=PretrainConfig().report_every)
    parser.add_argument("--keep-every", type=int, default=0, help="keep checkpoints beside the output")
    parser.add_argument("--seed", type=int, default=PretrainConfig().seed)
    arguments = parser.parse_args()
    if arguments.output.exists() and not (arguments.output / "config.json").is_file():
        parser.error(
            f"--output {arguments.output} exists and is no model folder; it would be replaced, so name another"
        )
    config = PretrainConfig(
        num_steps=arguments.steps,
        report_every=arguments.report_every,
        keep_every=arguments.keep_every,
        seed=arguments.seed,
    )
    tokenizer = build_tokenizer(config)
    model = build_model(config, tokenizer)
    print(f"{model.num_parameters()} parameters, vocabulary {len(tokenizer)}, steps {config.num_steps}")
    train(model, tokenizer, config, arguments.output)


if __name__ == "__main__":
    main()
