"""Reasoning with reinforced fine-tuning, on Lightning.

The names of ``__all__`` are imported when they are first used, because importing Lightning and transformers takes seconds.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from reft_pl.data.datamodule import ReasoningDataModule as ReasoningDataModule
    from reft_pl.data.hf_dataset import HFDatasetSource as HFDatasetSource
    from reft_pl.data.self_training import SelfTraining as SelfTraining
    from reft_pl.data.sources import AuthorsJson as AuthorsJson
    from reft_pl.data.sources import Gsm8kOfficial as Gsm8kOfficial
    from reft_pl.data.sources import ProblemSource as ProblemSource
    from reft_pl.data.stories.source import StorySource as StorySource
    from reft_pl.errors import UserError as UserError
    from reft_pl.formats import Chat as Chat
    from reft_pl.formats import CoTFormat as CoTFormat
    from reft_pl.formats import NaturalLanguage as NaturalLanguage
    from reft_pl.formats import PythonProgram as PythonProgram
    from reft_pl.models.optim import MasterAdamW as MasterAdamW
    from reft_pl.models.settings import LoRASettings as LoRASettings
    from reft_pl.models.settings import PolicySettings as PolicySettings
    from reft_pl.modules.checkpoints import RunCheckpoints as RunCheckpoints
    from reft_pl.modules.hooks import RolloutCallback as RolloutCallback
    from reft_pl.modules.online_self_training import OnlineSelfTrainingModule as OnlineSelfTrainingModule
    from reft_pl.modules.ppo import PPOModule as PPOModule
    from reft_pl.modules.reranker import RerankerModule as RerankerModule
    from reft_pl.modules.sampling import SamplingModule as SamplingModule
    from reft_pl.modules.schedule import Schedule as Schedule
    from reft_pl.modules.sft import SFTModule as SFTModule
    from reft_pl.reward.answer import AnswerReward as AnswerReward
    from reft_pl.reward.base import RewardFunction as RewardFunction
    from reft_pl.reward.base import WeightedReward as WeightedReward
    from reft_pl.rl.estimators import GAE as GAE
    from reft_pl.rl.estimators import GRPO as GRPO
    from reft_pl.rl.estimators import RLOO as RLOO
    from reft_pl.rl.estimators import AdvantageEstimator as AdvantageEstimator
    from reft_pl.rl.estimators import Distillation as Distillation
    from reft_pl.rl.estimators import MaxRL as MaxRL
    from reft_pl.rl.estimators import Reinforce as Reinforce
    from reft_pl.rl.kl import KLPenalty as KLPenalty
    from reft_pl.rl.policy_losses import PolicyLoss as PolicyLoss
    from reft_pl.rl.policy_losses import PPOClip as PPOClip
    from reft_pl.rl.policy_losses import SequenceClip as SequenceClip
    from reft_pl.rollout.base import Sampler as Sampler
    from reft_pl.rollout.inprocess import InProcessSampler as InProcessSampler
    from reft_pl.rollout.vllm import VLLMSampler as VLLMSampler
    from reft_pl.rollout.vllm import VLLMServerSampler as VLLMServerSampler
    from reft_pl.sandbox.base import Sandbox as Sandbox
    from reft_pl.sandbox.cpython import CPythonSandbox as CPythonSandbox
    from reft_pl.sandbox.cpython import PlainSandbox as PlainSandbox
    from reft_pl.strategies.zero import ZeRO as ZeRO

_PUBLIC = {
    "reft_pl.data.datamodule": ("ReasoningDataModule",),
    "reft_pl.data.hf_dataset": ("HFDatasetSource",),
    "reft_pl.data.self_training": ("SelfTraining",),
    "reft_pl.data.sources": ("AuthorsJson", "Gsm8kOfficial", "ProblemSource"),
    "reft_pl.data.stories.source": ("StorySource",),
    "reft_pl.errors": ("UserError",),
    "reft_pl.formats": ("Chat", "CoTFormat", "NaturalLanguage", "PythonProgram"),
    "reft_pl.models.optim": ("MasterAdamW",),
    "reft_pl.models.settings": ("LoRASettings", "PolicySettings"),
    "reft_pl.modules.checkpoints": ("RunCheckpoints",),
    "reft_pl.modules.hooks": ("RolloutCallback",),
    "reft_pl.modules.online_self_training": ("OnlineSelfTrainingModule",),
    "reft_pl.modules.ppo": ("PPOModule",),
    "reft_pl.modules.reranker": ("RerankerModule",),
    "reft_pl.modules.sampling": ("SamplingModule",),
    "reft_pl.modules.schedule": ("Schedule",),
    "reft_pl.modules.sft": ("SFTModule",),
    "reft_pl.reward.answer": ("AnswerReward",),
    "reft_pl.reward.base": ("RewardFunction", "WeightedReward"),
    "reft_pl.rl.estimators": ("AdvantageEstimator", "Distillation", "GAE", "GRPO", "MaxRL", "RLOO", "Reinforce"),
    "reft_pl.rl.kl": ("KLPenalty",),
    "reft_pl.rl.policy_losses": ("PPOClip", "PolicyLoss", "SequenceClip"),
    "reft_pl.rollout.base": ("Sampler",),
    "reft_pl.rollout.inprocess": ("InProcessSampler",),
    "reft_pl.rollout.vllm": ("VLLMSampler", "VLLMServerSampler"),
    "reft_pl.sandbox.base": ("Sandbox",),
    "reft_pl.sandbox.cpython": ("CPythonSandbox", "PlainSandbox"),
    "reft_pl.strategies.zero": ("ZeRO",),
}
"""Public names by the module that defines them; the block above has the same ones, for type checkers."""

_MODULE_OF = {name: module for module, names in _PUBLIC.items() for name in names}

__all__ = sorted(_MODULE_OF)  # noqa: PLE0605 (a list of strings, which ruff cannot see)


def __getattr__(name: str) -> Any:
    """Import a public name when it is first used (PEP 562)."""
    if name not in _MODULE_OF:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(import_module(_MODULE_OF[name]), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *_MODULE_OF})
