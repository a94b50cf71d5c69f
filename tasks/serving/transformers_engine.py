"""The transformers engine: the same interface in this process. A row's text follows from its prompt and seed alone,
up to the rounding of sums that a batch's shape changes.
"""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tasks.serving.interface import (
    Choice,
    ChoiceRequest,
    Generation,
    GenerationRequest,
    Sampling,
    ServingConfig,
    ServingError,
)
from tasks.serving.rendering import Rendered, Renderer

if TYPE_CHECKING:
    import torch


class TransformersGenerator:
    """A `TextGenerator` with the weights in this process."""

    def __init__(self, model: Any, renderer: Renderer, batch_size: int) -> None:
        self._model = model
        self._renderer = renderer
        self._batch_size = batch_size

    @classmethod
    def load(cls, folder: Path, config: ServingConfig) -> "TransformersGenerator":
        """The model in `folder`, on a GPU where there is one.

        Raises: ServingError: it cannot be loaded.
        """
        import torch
        from transformers import AutoModelForCausalLM

        on_gpu = torch.cuda.is_available()
        dtype = "float32" if config.dtype == "auto" and not on_gpu else config.dtype
        renderer = Renderer.load(folder, config)
        try:
            model = AutoModelForCausalLM.from_pretrained(folder, dtype=dtype, trust_remote_code=False)
        except (OSError, ValueError) as error:
            raise ServingError(f"no model can be loaded from {folder}: {error}") from error
        return cls(model.to("cuda" if on_gpu else "cpu").eval(), renderer, config.max_concurrency)

    def generate(self, requests: Sequence[GenerationRequest], sampling: Sampling) -> list[Generation]:
        rendered = self._renderer.prompts(requests, sampling.max_tokens)
        done = {i: Generation(None, None, len(r.ids), error=r.error) for i, r in enumerate(rendered) if r.error}
        for rows in self._batches(rendered):
            prompts = [rendered[i].ids for i in rows]
            completions = self._sample(prompts, [requests[i].seed for i in rows], sampling)
            for i, ids in zip(rows, completions, strict=True):
                reason = "stop" if self._renderer.stopped(ids) else "length"
                text = self._renderer.completion(ids)
                done[i] = Generation(text, reason, len(rendered[i].ids), len(ids))
        return [done[i] for i in range(len(requests))]

    def choose(self, requests: Sequence[ChoiceRequest], answers: tuple[str, ...]) -> list[Choice]:
        rendered = self._renderer.choices(requests, answers)
        done = {i: Choice(None, len(r.ids), r.error) for i, r in enumerate(rendered) if r.error}
        for rows in self._batches(rendered):
            logprobs = self.next_logprobs([rendered[i].ids for i in rows])
            for i, row in zip(rows, logprobs, strict=True):
                done[i] = Choice(tuple(row[list(rendered[i].answer_ids)].tolist()), len(rendered[i].ids))
        return [done[i] for i in range(len(requests))]

    def next_logprobs(self, prompts: Sequence[list[int]]) -> "torch.Tensor":
        """Log-probabilities of the token after each prompt, float32, (batch, vocabulary)."""
        import torch

        with torch.inference_mode():
            ids, mask = self._left_padded(prompts)
            logits = self._model(ids, attention_mask=mask, position_ids=_positions(mask), logits_to_keep=1).logits
            return logits[:, -1].float().log_softmax(-1).cpu()

    def alive(self) -> bool:
        return True

    def stop(self) -> None:
        self._model = None

    def _batches(self, rendered: Sequence[Rendered]) -> Iterator[list[int]]:
        """Indices of the rows that can be done, those of like length together."""
        rows = sorted((i for i, r in enumerate(rendered) if not r.error), key=lambda i: len(rendered[i].ids))
        for first in range(0, len(rows), self._batch_size):
            yield rows[first : first + self._batch_size]

    def _sample(self, prompts: Sequence[list[int]], seeds: Sequence[int], sampling: Sampling) -> list[list[int]]:
        """The tokens of each completion, with the one that ended it."""
        import torch

        generators = [torch.Generator().manual_seed(seed) for seed in seeds]
        completions: list[list[int]] = [[] for _ in prompts]
        running = set(range(len(prompts)))
        with torch.inference_mode():
            ids, mask = self._left_padded(prompts)
            positions, cache = _positions(mask), None
            for _ in range(sampling.max_tokens):
                out = self._model(
                    ids, attention_mask=mask, position_ids=positions, past_key_values=cache, use_cache=True,
                    logits_to_keep=1,
                )  # fmt: skip
                tokens = _draw(out.logits[:, -1].float().cpu(), generators, sampling)
                for row in list(running):
                    completions[row].append(int(tokens[row]))
                    if self._renderer.stopped(completions[row]):
                        running.remove(row)
                if not running:
                    break
                ids, cache = tokens[:, None].to(mask.device), out.past_key_values
                positions = positions[:, -1:] + 1
                mask = torch.cat([mask, mask.new_ones(len(prompts), 1)], dim=1)
        return completions

    def _left_padded(self, prompts: Sequence[list[int]]) -> tuple["torch.Tensor", "torch.Tensor"]:
        """Token ids and attention mask, (batch, longest prompt). The id of the padding is never looked at."""
        import torch

        longest = max(map(len, prompts))
        ids = [[0] * (longest - len(prompt)) + prompt for prompt in prompts]
        mask = [[0] * (longest - len(prompt)) + [1] * len(prompt) for prompt in prompts]
        return torch.tensor(ids, device=self._model.device), torch.tensor(mask, device=self._model.device)


def _positions(mask: "torch.Tensor") -> "torch.Tensor":
    """Positions count from the first token that is not padding."""
    return (mask.cumsum(1) - 1).clamp(min=0)


def _draw(logits: "torch.Tensor", generators: Sequence["torch.Generator"], sampling: Sampling) -> "torch.Tensor":
    """One token a row, (batch,): the likeliest at temperature 0, else by one uniform number of the row's own."""
    import torch

    if sampling.temperature == 0:
        return logits.argmax(-1)
    probs, order = (logits.double() / sampling.temperature).softmax(-1).sort(dim=-1, descending=True, stable=True)
    cumulative = probs.cumsum(-1)
    probs[cumulative - probs >= sampling.top_p] = 0  # keeps the token that crosses top_p
    cumulative = probs.cumsum(-1)
    uniform = torch.stack([torch.rand(1, generator=g, dtype=torch.float64) for g in generators])
    drawn = torch.searchsorted(cumulative, uniform * cumulative[:, -1:], right=True)
    return order.gather(-1, drawn.clamp(max=logits.shape[-1] - 1)).squeeze(-1)
