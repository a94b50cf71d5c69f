"""A generator for tests: no model, answers from a function."""

from collections.abc import Callable, Sequence

from tasks.serving.interface import Choice, ChoiceRequest, Generation, GenerationRequest, Sampling

Reply = Callable[[GenerationRequest], str | Generation]
Weigh = Callable[[ChoiceRequest], Sequence[float] | Choice]


class FakeGenerator:
    """Answers from functions, or always the same; `requests` and `choices` keep what it was asked.

    `reply` gives the text of a request, or a whole `Generation` for one that fails. `weigh` gives the
    log-probabilities of a choice; without it, the answers are equally likely.
    """

    def __init__(self, reply: Reply | str = "a completion", weigh: Weigh | None = None) -> None:
        self._reply = reply
        self._weigh = weigh
        self.requests: list[GenerationRequest] = []
        self.choices: list[ChoiceRequest] = []
        self.num_calls = 0

    def generate(self, requests: Sequence[GenerationRequest], sampling: Sampling) -> list[Generation]:
        self.num_calls += 1
        self.requests += requests
        return [self._answer(request) for request in requests]

    def choose(self, requests: Sequence[ChoiceRequest], answers: tuple[str, ...]) -> list[Choice]:
        self.num_calls += 1
        self.choices += requests
        weighed = [self._weigh(request) if self._weigh else [-1.0] * len(answers) for request in requests]
        return [each if isinstance(each, Choice) else Choice(tuple(each), 1) for each in weighed]

    def _answer(self, request: GenerationRequest) -> Generation:
        reply = self._reply if isinstance(self._reply, str) else self._reply(request)
        if isinstance(reply, Generation):
            return reply
        return Generation(reply, "stop", num_prompt_tokens=1, num_tokens=len(reply.split()))
