"""The training stages as LightningModules: orchestration without formulas."""

from reft_pl.modules.hooks import RolloutCallback
from reft_pl.modules.online_self_training import OnlineSelfTrainingModule
from reft_pl.modules.policy_module import PolicyModule
from reft_pl.modules.ppo import PPOModule
from reft_pl.modules.reranker import RerankerModule
from reft_pl.modules.run_module import RunModule
from reft_pl.modules.sampling import SamplingModule
from reft_pl.modules.schedule import Schedule
from reft_pl.modules.sft import SFTModule
from reft_pl.modules.stage_module import StageModule

__all__ = [
    "OnlineSelfTrainingModule",
    "PPOModule",
    "PolicyModule",
    "RerankerModule",
    "RolloutCallback",
    "RunModule",
    "SFTModule",
    "SamplingModule",
    "Schedule",
    "StageModule",
]
