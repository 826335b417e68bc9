"""The fixed phrases of a model card."""

PAPER = "https://arxiv.org/abs/2401.08967"

BIBTEX = """@misc{luong2024reft,
  title         = {{ReFT}: Reasoning with Reinforced Fine-Tuning},
  author        = {Luong, Trung Quoc and Zhang, Xinbo and Jie, Zhanming and Sun, Peng and Jin, Xiaoran and Li, Hang},
  year          = {2024},
  eprint        = {2401.08967},
  archivePrefix = {arXiv}
}"""

STAGES = {
    "sft": "fine-tuned on annotated solutions (SFT: the warm-up of ReFT, and what it is compared with)",
    "offline_self_training": (
        "fine-tuned on annotated solutions and right ones that a policy sampled for the training questions (offline "
        "self-training)"
    ),
    "ppo": (
        "trained with ReFT: it wrote its own solutions to the training questions, these were executed, and PPO reinforced "
        "those whose answer is right, with a KL penalty that holds it near the model it started from"
    ),
    "online_self_training": (
        "trained by online self-training: it wrote its own solutions to the training questions, these were executed, and it "
        "was fine-tuned on the right ones together with the annotated ones"
    ),
    "reranker": "trained to tell right solutions from wrong ones: a classifier whose class 1 is a right solution",
}
"""What was done, after "A language model that started from X, ": by stage, and for SFT on data of offline self-training."""

FORMS = {
    "PythonProgram": (
        "The last two lines open the solution, a Python program whose `solution()` returns the answer. The program ends at "
        "its first blank line."
    ),
    "NaturalLanguage": "The solution is written in words, and its answer is what follows `Therefore, the answer is:`.",
    "Chat": "The question stands in the tokenizer's chat template.",
}

MEANINGS = {
    "Top-1": "Top-1: the greedy solution",
    "Voting": "Voting@k: the most common answer of k samples",
    "Rerank": "Rerank@k: the one of k samples that the reranker scores highest",
    "Weighted": "Weighted@k: the answer of k samples with the largest sum of the reranker's scores",
    "Pass": "Pass@k: at least one of k samples is right, the upper bound of any choice among them",
}
"""The columns of the table, in their order."""

INTENDED_USE = "Answering questions of the kind that it was trained on, and research on teaching language models to reason."
RERANKERS_USE = "Choosing among sampled solutions to questions of the kind that it was trained on."

LIMITS = (
    "- Its answers may be wrong; what stands above is all that was measured: nothing about other kinds of questions, other "
    "languages, safety or bias."
)
PROGRAMS_ARE_UNTRUSTED = "- It writes programs that nobody has looked at: run them in a sandbox, as reft-pl does."
