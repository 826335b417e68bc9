"""The purpose of every shipped config: the configs that it extends, and the settings that it determines."""

from typing import Any, NamedTuple


class Purpose(NamedTuple):
    """The configs that a config extends, and resulting settings by their command-line keys."""

    after: str
    settings: dict[str, Any]
    verb: str = "fit"


def data_set(name: str, train: str, holdout: int, prompt: int, form: str, test: str = "") -> Purpose:
    settings = {"train.0.path": f"data/{train}", f"test.{name}.path": f"data/{test or f'{name}_test_set.json'}"}
    settings |= {"holdout": holdout, "max_prompt_tokens": prompt, "format": form, "test": [name], "validation": None}
    return Purpose("sft", {f"data.{key}": value for key, value in settings.items()})


def paper(after: str, lr: float, batch: int, epochs: int, **settings: Any) -> Purpose:
    run = {"model.optimizer.lr": lr, "data.batch_size": batch, "trainer.max_epochs": epochs}
    return Purpose(after, run | AS_TRAINED | {f"model.{key}": value for key, value in settings.items()})


BOTH = {"data.test": ["ordinary", "unseen"]}
WORDS, PROGRAMS, OFFICIAL = "NaturalLanguage", "PythonProgram", "gsm8k_official_test.jsonl"
BASE = "data/gsm8k_python paper/base_model"
INSTRUCT = {"model.policy.init_from": "models/smollm2-135m", "model.policy.from_scratch": False}
WARM_UP = {"model.policy.init_from": "runs/smollm2-sft/hf"}
NUMERIC = "mathqa-numeric_test_set.json"
ZERO = {"trainer.strategy": "ZeRO", "trainer.strategy.stage": 2}
AS_TRAINED = {"model.policy.dtype": "bfloat16", "data.add_bos": False}
ROOM = {"data.max_prompt_tokens": 700, "data.max_tokens": 1024}

PURPOSES = {
    "sft": Purpose("", BOTH | {"model": "SFTModule", "model.policy.from_scratch": True}),
    "ppo": Purpose("", BOTH | {"model": "PPOModule", "model.policy.init_from": "runs/sft/hf", "model.kl.coef": 0.01}),
    "online_self_training": Purpose(
        "", BOTH | {"model": "OnlineSelfTrainingModule", "model.policy.init_from": "runs/sft/hf", "model.inner_epochs": 2}
    ),
    "offline_self_training": Purpose("sft", {"model.policy.from_scratch": True, "data.train.0": "SelfTraining"}),
    "reranker": Purpose("", {"model": "RerankerModule", "data.samples": ["train", "validation", "ordinary", "unseen"]}),
    "sample": Purpose("", BOTH | {"model": "SamplingModule", "model.n": 16, "model.top_k": 50}, "predict"),
    "stories/sft_long": Purpose("sft", {"trainer.max_epochs": 20, "model.schedule.epochs": 20}),
    "stories/ppo_long": Purpose("ppo", {"trainer.max_epochs": 15, "data.train.0.size": 2000}),
    "stories/further": Purpose("ppo", BOTH | {"data.train.1.solutions": False, "data.train.1.start": 2000}),
    "stories/second_warm_up": Purpose(
        "sft",
        {
            "model.policy.from_scratch": True,
            "data.train.0.annotated.solutions": True,
            "data.train.1.annotated.solutions": False,
        },
    ),
    "data/svamp_python": data_set("svamp", "svamp_python_sdp.json", 200, 300, PROGRAMS),
    "data/svamp_nl": data_set("svamp", "svamp_nl.json", 200, 300, WORDS),
    "data/gsm8k_python": data_set("gsm8k", "gsm8k_python_sdp.json", 500, 500, PROGRAMS, OFFICIAL),
    "data/gsm8k_nl": data_set("gsm8k", "gsm8k_official_train.jsonl", 500, 300, WORDS, OFFICIAL),
    "data/gsm8k_chat": data_set("gsm8k", "gsm8k_official_train.jsonl", 500, 300, "Chat", OFFICIAL),
    "data/mathqa_python": data_set("mathqa", "mathqa_python_sdp.json", 500, 500, PROGRAMS),
    "data/mathqa_nl": data_set("mathqa", "mathqa_nl.json", 500, 300, WORDS),
    "data/mathqa_numeric_python": data_set("mathqa_numeric", "mathqa-numeric_python_sdp.json", 500, 500, PROGRAMS, NUMERIC),
    "data/mathqa_numeric_nl": data_set("mathqa_numeric", "mathqa-numeric_nl.json", 500, 300, WORDS, NUMERIC),
    "data/gsm_hard": Purpose(
        "sft data/gsm8k_python", {"data.test": ["gsm_hard"], "data.test.gsm_hard.path": "reasoning-machines/gsm-hard"}
    ),
    "data/asdiv": Purpose("sft data/gsm8k_nl", {"data.test": ["asdiv"], "data.test.asdiv.on_bad_row": "skip"}),
    "data/self_training": Purpose(
        "sft data/gsm8k_python",
        {
            "data.train.0": "SelfTraining",
            "data.train.0.annotated.path": "data/gsm8k_python_sdp.json",
            "data.train.0.samples": "runs/paper-warm-up/samples/train.jsonl",
            "data.train.0.per_question": 10,
        },
    ),
    "models/smollm2_135m": Purpose("sft", INSTRUCT | {"trainer.limit_train_batches": 0.5}),
    "models/smollm2_135m_sft_more": Purpose("sft", WARM_UP | {"trainer.max_epochs": 3}),
    "models/smollm2_135m_ppo": Purpose("ppo", WARM_UP | {"model.advantages": "GAE", "model.advantages.lam": 1.0}),
    "models/smollm2_135m_rloo": Purpose(
        "ppo", WARM_UP | {"model.advantages": "RLOO", "model.aggregation": "sequence", "model.filter_groups": True}
    ),
    "models/smollm2_135m_sample": Purpose("sample", {"model.n": 8, "data.eval_batch_size": 8}, "predict"),
    "models/smollm2_135m_reranker": Purpose("reranker", {"data.samples": ["train", "validation", "svamp"]}),
    "rollout/vllm": Purpose("ppo", {"model.sampler": "VLLMSampler"}),
    "rollout/vllm_server": Purpose("ppo", {"model.sampler": "VLLMServerSampler", "model.sampler.url": "http://127.0.0.1:8642"}),
    "strategy/ddp": Purpose("ppo", {"trainer.strategy": "ddp", "trainer.accelerator": "gpu", "trainer.devices": "auto"}),
    "strategy/zero": Purpose("ppo", ZERO | {"trainer.accelerator": "gpu", "trainer.devices": "auto"}),
    "strategy/two_cpus": Purpose("ppo strategy/zero", ZERO | {"trainer.accelerator": "cpu", "trainer.devices": 2}),
    "gpu/lora_24gb": Purpose("ppo", {"model.policy.lora.r": 64, "model.optimizer.lr": 1e-4, "data.eval_batch_size": 8}),
    "gpu/full_80gb": Purpose("ppo", {"model.optimizer.offload": True, "trainer.devices": 1, "model.policy.lora": None}),
    "gpu/full_8x80gb": Purpose("ppo strategy/zero", ZERO | {"trainer.devices": 8, "model.optimizer.offload": False}),
    "paper/base_model": Purpose("sft", AS_TRAINED | {"model.policy.init_from": "codellama/CodeLlama-7b-hf"}),
    "paper/stages/sft_7b": paper(f"sft {BASE}", 1e-5, 48, 40),
    "paper/stages/sft_small": paper(f"sft {BASE}", 2e-5, 48, 40),
    "paper/stages/sft_small_mathqa": paper(f"sft {BASE} paper/stages/sft_small", 2e-5, 48, 100),
    "paper/stages/reft_7b": paper(f"ppo {BASE}", 3e-7, 32, 300, minibatch_size=32),
    "paper/stages/reft_small": paper(f"ppo {BASE}", 3e-6, 256, 700, value_coef=5.0),
    "paper/stages/reft_codegen": paper(f"ppo {BASE} paper/stages/reft_small", 3e-6, 128, 700, value_coef=0.1),
    "paper/stages/online_7b": paper(f"online_self_training {BASE}", 3e-7, 32, 300, inner_epochs=2),
    "paper/stages/offline_7b": paper(f"sft {BASE} data/self_training paper/stages/sft_7b", 1e-5, 48, 20),
    "paper/stages/reranker_7b": Purpose(
        "reranker", paper("", 1e-6, 24, 3).settings | {"data.samples": ["train", "validation"]}
    ),
    "paper/stages/sample_7b": Purpose(
        f"sample {BASE}", {"model.n": 100, "model.temperature": 1.0, "model.top_k": 50, "data.max_tokens": 1024}, "predict"
    ),
    "paper/stages/evaluate": Purpose("sft", ROOM, "test"),
    "paper/published_policy": Purpose("sft", AS_TRAINED | ROOM | {"data.test.gsm8k.path": "data/gsm8k_test_set.json"}, "test"),
    "paper/published_reranker": Purpose("reranker", AS_TRAINED | ROOM | {"data.samples": []}, "test"),
}

GROUPS = {"samples_per_problem": 4, "reward.partial": 0.0}
CLIP = {"policy_loss": "PPOClip", "policy_loss.low": 0.8, "policy_loss.high": 1.2}
NO_KL = {"kl.coef": 0.0}
ALGORITHMS: dict[str, dict[str, Any]] = {
    "grpo": GROUPS | CLIP | {"advantages": "GRPO", "advantages.normalise": True, "aggregation": "sequence"}
    | {"kl.coef": 0.01, "kl.estimator": "k3", "kl.place": "loss"},
    "dr_grpo": GROUPS | CLIP | NO_KL | {"advantages": "GRPO", "advantages.normalise": False, "aggregation": "constant"},
    "rloo": GROUPS | CLIP | {"advantages": "RLOO", "aggregation": "sequence_sum", "kl.coef": 0.01, "kl.place": "reward"},
    "maxrl": GROUPS | CLIP | NO_KL | {"advantages": "MaxRL", "aggregation": "sequence_sum"},
    "reinforce": CLIP | {"advantages": "Reinforce", "advantages.whiten": True, "advantages.baseline": "rollout"}
    | {"aggregation": "token", "kl.coef": 0.01, "kl.place": "reward", "samples_per_problem": 1, "reward.partial": 0.1},
    "reinforce_baseline": GROUPS | CLIP | {"advantages": "Reinforce", "advantages.whiten": True, "advantages.baseline": "group"}
    | {"aggregation": "token", "kl.coef": 0.01, "kl.estimator": "k2", "kl.place": "loss"},
    "dapo": GROUPS | CLIP | NO_KL | {"advantages": "GRPO", "policy_loss.high": 1.28, "aggregation": "token"}
    | {"filter_groups": True, "max_resamples": 10, "overlong_buffer": 0.2},
    "gspo": GROUPS | NO_KL | {"advantages": "GRPO", "policy_loss": "SequenceClip", "policy_loss.low": 0.99}
    | {"policy_loss.high": 1.0133, "aggregation": "sequence"},
    "prefix_curriculum": CLIP | {"advantages": "GAE", "prefix_curriculum": 0.8, "samples_per_problem": 1},
    "distillation": CLIP | {"advantages": "Distillation", "advantages.reward_weight": 0.0, "aggregation": "token"}
    | {"kl.coef": 1.0, "kl.estimator": "k1", "kl.place": "reward"},
    "annotated": CLIP | {"advantages": "GAE", "aggregation": "sequence", "samples_per_problem": 1, "kl.coef": 0.01}
    | {"demonstrations.coef": 1.0, "demonstrations.schedule": "constant"}
    | {"demonstrations.batch_size": 64, "minibatch_size": 64},
}  # fmt: skip
