"""The baseline loop that a user writes with transformers and torch, with the same dtype and attention.

Sequences are padded to the longest of the batch, logits cover every position, ``generate`` decodes until the last row ends,
and each batch starts new sandbox processes. The algorithm is ReFT, as in ``PPOModule``.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from reft_pl.formats import PythonProgram
from reft_pl.formats.answers import answers_equal, is_answer_to
from reft_pl.rollout.collector import ResponseExecution
from reft_pl.sandbox.cpython import CPythonSandbox
from reft_pl.types import Answer, Problem, TokenBatch


class StraightPolicy(torch.nn.Module):
    """A causal LM with a linear value head on its last hidden state."""

    def __init__(self, lm: Any) -> None:
        super().__init__()
        self.lm = lm
        self.value_head = torch.nn.Linear(lm.config.hidden_size, 1, dtype=torch.float32)
        torch.nn.init.zeros_(self.value_head.weight)
        torch.nn.init.zeros_(self.value_head.bias)

    def forward(self, tokens: TokenBatch, *, values: bool = True) -> tuple[Tensor, Tensor]:
        """Return log-probabilities and values at every position except the last, [B, T - 1]."""
        output = self.lm(
            input_ids=tokens.input_ids,
            attention_mask=tokens.attention_mask.long(),
            output_hidden_states=values,
            use_cache=False,
        )
        logprobs = output.logits[:, :-1].float().log_softmax(-1)
        chosen = logprobs.gather(-1, tokens.input_ids[:, 1:, None]).squeeze(-1)
        if not values:
            return chosen, torch.zeros_like(chosen)
        return chosen, self.value_head(output.hidden_states[-1][:, :-1].float()).squeeze(-1)


def cross_entropy(policy: StraightPolicy, tokens: TokenBatch) -> Tensor:
    """Return the mean over action tokens."""
    logprobs, _ = policy(tokens, values=False)
    mask = tokens.action_mask[:, :-1]
    return -(logprobs * mask).sum() / mask.sum()


def ppo_loss(
    policy: StraightPolicy, tokens: TokenBatch, old: Tensor, old_values: Tensor, advantages: Tensor, returns: Tensor
) -> Tensor:
    """Return PPO-clip plus clipped value loss, averaged over actions, then sequences."""
    logprobs, values = policy(tokens)
    mask = tokens.action_mask[:, :-1].float()

    def mean(x: Tensor) -> Tensor:
        return ((x * mask).sum(1) / mask.sum(1)).mean()

    ratio = ((logprobs - old) * mask).exp()
    policy_loss = torch.maximum(-ratio * advantages, -ratio.clamp(0.8, 1.2) * advantages)
    clipped = old_values + (values - old_values).clamp(-0.2, 0.2)
    value_loss = 0.5 * torch.maximum((values - returns) ** 2, (clipped - returns) ** 2)
    return mean(policy_loss) + 5.0 * mean(value_loss)


def advantages_of(outcome: Tensor, old: Tensor, ref: Tensor, values: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
    """Return whitened GAE advantages (gamma 1, lambda 0.95) over KL-penalised rewards, and returns."""
    rewards = -0.01 * (old - ref) * mask
    last = mask.shape[1] - 1 - mask.flip(1).float().argmax(1)
    rewards[torch.arange(len(mask)), last] += outcome
    advantages, following, next_value = torch.zeros_like(rewards), torch.zeros(len(mask)), torch.zeros(len(mask))
    for t in reversed(range(mask.shape[1])):
        delta = rewards[:, t] + next_value - values[:, t]
        following = (delta + 0.95 * following) * mask[:, t]
        next_value = values[:, t] * mask[:, t]
        advantages[:, t] = following
    returns = advantages + values * mask
    chosen = advantages[mask.bool()]
    return (advantages - chosen.mean()) / (chosen.var() + 1e-8).sqrt() * mask, returns


def generate(
    lm: Any, prompts: list[tuple[int, ...]], eos_id: int | None, pad_id: int, max_tokens: int
) -> list[tuple[int, ...]]:
    """Sample left-padded rows at temperature 1 until every row has ended; return each response with its EOS.

    Without ``eos_id``, all rows run to the limit.
    """
    width = max(map(len, prompts))
    ids = torch.tensor([(pad_id,) * (width - len(p)) + p for p in prompts])
    mask = torch.tensor([[0] * (width - len(p)) + [1] * len(p) for p in prompts])
    lm.eval()
    with torch.no_grad():
        output = lm.generate(
            ids, attention_mask=mask, do_sample=True, top_k=0, top_p=1.0, temperature=1.0, max_new_tokens=max_tokens - width,
            eos_token_id=eos_id, pad_token_id=pad_id,
        )  # fmt: skip
    responses = []
    for row in output[:, width:].tolist():
        end = row.index(eos_id) + 1 if eos_id in row else len(row)
        responses.append(tuple(row[:end]))
    return responses


def run_programs(problems: list[Problem], texts: list[str]) -> list[Answer | None]:
    """Run a batch in new sandbox processes. They are our confined ones: a model's programs never run elsewhere."""
    sandbox = CPythonSandbox()
    try:
        with sandbox.begin() as execution:
            running = ResponseExecution(PythonProgram(), execution)
            for problem, text in zip(problems, texts, strict=True):
                running.submit(problem, text)
            return [result.value for result in running.results()]
    finally:
        sandbox.close()


def is_right(value: Answer | None, gold: Answer | None) -> float:
    """Return the reward: 1, 0.1 or 0."""
    return 1.0 if answers_equal(value, gold) else 0.1 if is_answer_to(value, gold) else 0.0
