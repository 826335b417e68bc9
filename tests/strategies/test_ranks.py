"""Several processes: what one learns, two learn as well, under every strategy; saved, killed, resumed, tested.

Ranks are forks of a process of their own (``forked.py``), but for one test of the command that people give.
"""

from __future__ import annotations

import json
import resource
import subprocess
import sys
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from reft_pl.models.fingerprint import fingerprint
from reft_pl.models.loading import load_policy
from reft_pl.models.settings import PolicySettings
from reft_pl.strategies.sharded_checkpoint import read_weights, stored_client_state

Overlay = Callable[..., str]
STRATEGIES = ("ddp", "zero1", "zero2", "zero3")
LENGTH_REWARD = """
from reft_pl.reward.base import RewardFunction


class LengthReward(RewardFunction):
    def score(self, samples):
        return [len(sample.completion.token_ids) / 100 for sample in samples]
"""


def forked(*arguments: object, folder: Path, fails: bool = False, largest_file: int = resource.RLIM_INFINITY) -> str:
    """Run a scenario; returns what it said. It can write files of at most so many bytes."""
    script = Path(__file__).parent / "forked.py"
    command = [sys.executable, str(script), *map(str, arguments)]
    limit = partial(resource.setrlimit, resource.RLIMIT_FSIZE, (largest_file, resource.RLIM_INFINITY))
    run = partial(subprocess.run, capture_output=True, text=True, timeout=590, check=False)
    done = run(command, cwd=folder, preexec_fn=limit)
    said = done.stdout + done.stderr
    assert bool(done.returncode) == fails, said[-5000:]
    return said


def distances(one: dict[str, Any], other: dict[str, Any]) -> dict[str, float]:
    """Largest relative differences over the steps of two recorded runs (``scenarios.train``).

    Of losses, gradient norms and logged figures; of the change of all weights in each step, and since the start.
    """
    start, other_start = one["steps"][0]["before"], other["steps"][0]["before"]
    assert all(torch.equal(start[name], other_start[name]) for name in start)
    found = {"loss": 0.0, "gradient_norm": 0.0, "change": 0.0, "whole_change": 0.0, "logged": 0.0}
    last, other_last = flat(start), flat(start)
    for a, b in zip(one["steps"], other["steps"], strict=True):
        assert a["result"]["skipped"] == b["result"]["skipped"] == 0
        for name in ("loss", "gradient_norm"):
            found[name] = max(found[name], relative(a["result"][name], b["result"][name]))
        now, other_now = flat(a["weights"]), flat(b["weights"])
        found["change"] = max(found["change"], apart(now - last, other_now - other_last))
        found["whole_change"] = max(found["whole_change"], apart(now - flat(start), other_now - flat(start)))
        last, other_last = now, other_now
    for a, b in zip(one["logged"], other["logged"], strict=True):
        names = {name for name in a if "second" not in name}  # seconds, and what is counted a second
        assert names == {name for name in b if "second" not in name}
        found["logged"] = max(found["logged"], *(relative(a[name], b[name]) for name in names))
    return found


def flat(weights: dict[str, torch.Tensor]) -> torch.Tensor:
    return torch.cat([weights[name].double().flatten() for name in sorted(weights)])


def relative(a: float, b: float) -> float:
    return abs(a - b) / max(abs(a), 1e-2)


def apart(a: torch.Tensor, b: torch.Tensor) -> float:
    return float((a - b).norm() / a.norm())


def load(folder: Path, stage: str, name: str, optimizer: str) -> dict[str, Any]:
    recorded: dict[str, Any] = torch.load(folder / f"{stage}-{name}-{optimizer}.pt", weights_only=True)
    return recorded


@pytest.mark.slow
@pytest.mark.parametrize(
    ("stage", "optimizer"), [("sft", "sgd"), ("reranker", "sgd"), ("ppo", "adam"), ("grpo", "adam"), ("online", "adam")]
)
def test_two_ranks_learn_what_one_does(stage: str, optimizer: str, micro_model: Path, tmp_path: Path) -> None:
    """The same samples, losses, gradients and changes of weights, with several micro-batches a step, clipped.

    SGD shows the gradient itself. Ranks have responses of different lengths, other numbers of micro-batches, and some none.
    """
    cases = [f"{stage}:{optimizer}:{name}" for name in ("one", *STRATEGIES)]
    forked("equality", micro_model, tmp_path, *cases, folder=tmp_path)
    one = load(tmp_path, stage, "one", optimizer)
    assert max(one["micro_batches"][0]) > 1
    assert len(one["samples"]) == (0 if stage in ("sft", "reranker") else 2)
    assert all(step["result"]["gradient_norm"] > 0.3 for step in one["steps"])
    for name in STRATEGIES:
        other = load(tmp_path, stage, name, optimizer)
        assert other["micro_batches"][0] != other["micro_batches"][1], "ranks differ in their numbers of micro-batches"
        assert other["samples"] == one["samples"]
        apart = distances(one, other)
        print(stage, name, apart)
        assert max(apart.values()) < 1e-5, (name, apart)


@pytest.mark.slow
def test_a_bad_loss_on_one_rank_stops_the_step_on_all(micro_model: Path, tmp_path: Path) -> None:
    names = ("ddp", "zero1", "zero2", "zero3")
    forked("not_finite", micro_model, tmp_path, *names, folder=tmp_path)
    for name in names:
        ranks = [torch.load(tmp_path / f"{name}-{rank}.pt", weights_only=True) for rank in (0, 1)]
        for found in ranks:
            assert [step["result"]["skipped"] for step in found["steps"]] == [0, 1, 0]
            assert found["global_step"] == 2
            good, bad, again = (step["weights"] for step in found["steps"])
            assert all(torch.equal(good[n], bad[n]) for n in good)
            assert all(torch.isfinite(again[n]).all() for n in again)
            assert any(not torch.equal(bad[n], again[n]) for n in again)
        mine, theirs = (found["steps"][2]["weights"] for found in ranks)
        assert all(torch.equal(mine[n], theirs[n]) for n in mine)


@pytest.fixture
def arguments(overlay: Overlay, micro_model: Path, tmp_path: Path) -> Callable[..., list[str]]:
    """Arguments of a small PPO run from scratch under a strategy; ``zero3`` keeps nothing whole."""
    (tmp_path / "length.py").write_text(LENGTH_REWARD)
    init_args = {
        "policy": {"init_from": str(micro_model), "from_scratch": True},
        "reward": {"class_path": "length.LengthReward"},
        "minibatch_size": 3,
        "micro_batch_tokens": 420,
    }
    small = overlay("ppo", model={"init_args": init_args}, trainer={"num_sanity_val_steps": 0})

    plain_sft = overlay("sft", trainer={"num_sanity_val_steps": 0})

    def make(verb: str, strategy: str, run: str, *further: str, stage: str = "ppo", plain: bool = False) -> list[str]:
        config = plain_sft if plain else small
        words = [verb, "--config", f"configs/{stage}.yaml", "--config", config, "--run_dir", str(tmp_path / run)]
        if strategy != "one":
            words += ["--config", f"configs/strategy/{strategy}_cpu.yaml"]
        if strategy == "zero3":
            words += ["--trainer.strategy.init_args.persistent_elements", "0"]
        return [*words, *further]

    return make


def weights(run: Path) -> dict[str, torch.Tensor]:
    value_head = run / "hf" / "value_head.safetensors"
    return load_file(run / "hf" / "model.safetensors") | (load_file(value_head) if value_head.exists() else {})


def same(a: Path, b: Path) -> None:
    """What resumes, what is exported and every sample are equal bit for bit."""
    for of in (weights, resumable):
        mine, theirs = of(a), of(b)
        assert set(mine) == set(theirs)
        assert all(torch.equal(mine[name], theirs[name]) for name in mine)
    assert (a / "rollouts.jsonl").exists() == (b / "rollouts.jsonl").exists()
    if (a / "rollouts.jsonl").exists():
        assert (a / "rollouts.jsonl").read_bytes() == (b / "rollouts.jsonl").read_bytes()


def resumable(run: Path) -> dict[str, torch.Tensor]:
    """Every tensor of ``last.ckpt``: weights, float32 copies and averages of the optimizer, of all ranks."""
    last = run / "checkpoints" / "last.ckpt"
    files = sorted(last.rglob("*.pt")) if last.is_dir() else [last]
    found = last_weights(run) if last.is_dir() else {}
    for file in files:
        found |= tensors(torch.load(file, map_location="cpu", weights_only=False), file.name)
    # Put together above: apart, they are filled up with whatever stood in memory.
    found = {name: tensor for name, tensor in found.items() if "/fp32_flat_groups/" not in name}
    assert any("exp_avg_sq" in name for name in found)
    return found


def last_weights(run: Path) -> dict[str, torch.Tensor]:
    last = run / "checkpoints" / "last.ckpt"
    stored = read_weights(last) if last.is_dir() else torch.load(last, map_location="cpu", weights_only=False)
    found: dict[str, torch.Tensor] = stored["state_dict"]
    return found


def tensors(value: object, key: str) -> dict[str, torch.Tensor]:
    if isinstance(value, dict):
        return {k: v for name, child in value.items() for k, v in tensors(child, f"{key}/{name}").items()}
    if isinstance(value, (list, tuple)):
        return {k: v for i, child in enumerate(value) for k, v in tensors(child, f"{key}/{i}").items()}
    return {key: value} if isinstance(value, torch.Tensor) else {}


def lines(path: Path) -> list[dict[str, object]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def joined(*commands: Sequence[str]) -> list[str]:
    return [word for command in commands for word in (*command, "--")][:-1]


@pytest.mark.slow
@pytest.mark.parametrize("strategy", ["ddp", "zero2", "zero3"])
def test_two_ranks_fit_save_resume_and_test(
    strategy: str, arguments: Callable[..., list[str]], tmp_path: Path, micro_model: Path
) -> None:
    """A run that stopped and went on ends as one that did not; what is left of it is whole, and says everything once."""
    said = forked(
        "commands", 2,
        *joined(
            arguments("fit", strategy, "whole"),
            arguments("fit", strategy, "halves", "--trainer.max_epochs", "1"),
            arguments("fit", strategy, "halves"),
            arguments("test", strategy, "halves"),
        ),
        folder=tmp_path,
    )  # fmt: skip
    whole, halves = tmp_path / "whole", tmp_path / "halves"
    assert said.count("resuming from") == said.count("ordinary: Top-1") == 1, "once, not once a rank"
    same(whole, halves)
    rows = lines(halves / "rollouts.jsonl")
    assert len(rows) == 2 * 12
    for epoch in (0, 1):  # no question is lost or met twice
        assert len({row["id"] for row in rows if int(str(row["step"])) // 3 == epoch}) == 12
    results = json.loads((halves / "results.json").read_text())
    assert results["fit"]["optimizer_steps"] == 2 * 3 * 2
    for name in ("ordinary", "unseen"):
        predictions = lines(halves / "predictions" / f"{name}.jsonl")
        assert results["test"][name]["n"] == len(predictions) == len({row["item_id"] for row in predictions}) == 4
    checkpoint = torch.load(halves / "checkpoints" / "best.ckpt", weights_only=True, map_location="cpu")
    assert not any("reference" in name or "sampler" in name for name in checkpoint["state_dict"])
    # The model gets nothing right, so that its first validation is the best, and its last weights are others.
    assert results["fit"]["best"]["batch"] == 3 < results["fit"]["batches"] == 6
    own, last = weights(halves), last_weights(halves)
    assert own
    for name, weight in own.items():
        full = f"policy.{name}" if name.startswith("value_head") else f"policy.lm.{name}"
        assert torch.equal(checkpoint["state_dict"][full], weight)
        assert name == "value_head.bias" or not torch.equal(last[full], weight)
    # One process tests the same weights, and finds the same.
    before = {name: lines(halves / "predictions" / f"{name}.jsonl") for name in ("ordinary", "unseen")}
    forked("commands", 1, *arguments("test", "one", "halves"), folder=tmp_path)
    assert before == {name: lines(halves / "predictions" / f"{name}.jsonl") for name in before}
    if strategy != "ddp":
        parts = sorted(path.name for path in (halves / "checkpoints" / "last.ckpt" / "checkpoint").iterdir())
        assert len([name for name in parts if name.endswith("optim_states.pt")]) == 2
        for path in (halves / "checkpoints" / "last.ckpt" / "checkpoint").glob("*model_states.pt"):
            stored = torch.load(path, map_location="cpu", weights_only=False)
            assert not any("reference" in name or "sampler" in name for name in stored["module"])


@pytest.mark.slow
@pytest.mark.parametrize("strategy", ["zero2", "zero3"])
def test_killed_while_a_checkpoint_is_written_the_last_good_one_stands(
    strategy: str, arguments: Callable[..., list[str]], tmp_path: Path
) -> None:
    forked("killed_while_saving", *arguments("fit", strategy, "killed"), folder=tmp_path, fails=True)
    last = tmp_path / "killed" / "checkpoints" / "last.ckpt"
    assert len(list((last / "checkpoint").glob("*optim_states.pt"))) == 2
    assert (last.parent / ".last.ckpt.new").exists(), "it was killed in the middle"
    both = joined(arguments("fit", strategy, "killed"), arguments("fit", strategy, "whole"))
    assert "resuming from" in forked("commands", 2, *both, folder=tmp_path)
    same(tmp_path / "whole", tmp_path / "killed")
    assert sorted(path.name for path in last.parent.iterdir()) == ["best.ckpt", "last.ckpt"]


@pytest.mark.slow
def test_the_schedule_and_the_averages_go_on_too(arguments: Callable[..., list[str]], tmp_path: Path) -> None:
    """SFT under a learning rate that moves at every step, in bfloat16, whose float32 copies DeepSpeed has."""
    further = ["--model.policy.dtype", "bfloat16", "--model.schedule.kind", "linear", "--model.schedule.epochs", "3"]
    commands = []
    for strategy in ("ddp", "zero1", "zero2", "zero3"):
        for run, epochs in ((f"{strategy}-whole", 2), (f"{strategy}-halves", 1), (f"{strategy}-halves", 2)):
            commands.append(
                arguments("fit", strategy, run, *further, "--trainer.max_epochs", str(epochs), stage="sft", plain=True)
            )
    forked("commands", 2, *joined(*commands), folder=tmp_path)
    for strategy in ("ddp", "zero1", "zero2", "zero3"):
        same(tmp_path / f"{strategy}-whole", tmp_path / f"{strategy}-halves")
        assert all(weight.dtype == torch.bfloat16 for weight in weights(tmp_path / f"{strategy}-whole").values())


@pytest.mark.slow
@pytest.mark.parametrize(
    ("optimizer", "before", "ranks", "after"),
    [
        ("adam", "zero1", 1, "zero1"),
        ("adam", "zero2", 1, "zero2"),
        ("adam", "zero3", 1, "zero3"),
        ("sgd", "zero2", 1, "zero2"),
        ("sgd", "zero2", 2, "zero3"),
        ("sgd", "ddp", 2, "zero2"),
        ("sgd", "zero3", 1, "one"),
        ("sgd", "zero2", 2, "ddp"),
    ],
)
def test_a_run_moves_to_other_ranks_and_strategies(
    optimizer: str, before: str, ranks: int, after: str, arguments: Callable[..., list[str]], tmp_path: Path
) -> None:
    """It ends as one that never stopped, but for rounding. SGD has no averages to lose where the optimizer begins anew."""
    further = ["--data.validation", "null"]  # without validation the last weights are exported
    if optimizer == "sgd":
        further += ["--model.optimizer", "torch.optim.SGD", "--model.optimizer.lr", "0.3"]
    one_epoch = arguments("fit", before, "moved", *further, "--trainer.max_epochs", "1")
    forked("commands", 2, *joined(arguments("fit", before, "whole", *further), one_epoch), folder=tmp_path)
    start = flat(weights(tmp_path / "moved"))
    moves = arguments("fit", after, "moved", *further, "--trainer.devices", str(ranks))
    said = forked("commands", ranks, *moves, folder=tmp_path)
    assert said.count("averages begin anew") == (optimizer == "sgd")
    if (optimizer, ranks, after) == ("sgd", 1, "zero2"):
        assert "of which DeepSpeed makes no universal checkpoint (" in said, "why, too"
    whole, moved = tmp_path / "whole", tmp_path / "moved"
    samples = [sorted(map(str, lines(run / "rollouts.jsonl"))) for run in (whole, moved)]
    assert samples[0] == samples[1]
    assert apart(flat(weights(whole)) - start, flat(weights(moved)) - start) < 1e-4
    assert sorted(path.name for path in (moved / "checkpoints").iterdir()) == ["best.ckpt", "last.ckpt"]


@pytest.fixture
def adapters(micro_model: Path, tmp_path: Path) -> list[str]:
    """Settings of adapters beside stored weights, whose LM head is tied to the embeddings."""
    load_policy(PolicySettings(str(micro_model), from_scratch=True, dtype="float32")).lm.save_pretrained(tmp_path / "base")
    for name in ("tokenizer.json", "tokenizer_config.json"):
        (tmp_path / "base" / name).write_text((micro_model / name).read_text())
    base = ["--model.policy.init_from", str(tmp_path / "base"), "--model.policy.from_scratch", "false"]
    return [*base, "--model.policy.lora.r", "4"]


def holds_adapters_alone(checkpoint: Path) -> None:
    """Neither weights of the base nor the names of any, in any part."""
    files = sorted(checkpoint.rglob("*model_states.pt")) if checkpoint.is_dir() else [checkpoint]
    for file in files:
        stored = torch.load(file, weights_only=False, map_location="cpu")
        names = set(stored["module"] if checkpoint.is_dir() else stored["state_dict"])
        assert names
        assert all("lora" in name or "value_head" in name for name in names), "the base is what init_from holds"
        assert not stored.get("frozen_param_fragments")


@pytest.mark.slow
@pytest.mark.parametrize("strategy", ["zero2", "zero3"])
def test_adapters_are_trained_saved_resumed_and_tested(
    strategy: str, adapters: list[str], arguments: Callable[..., list[str]], tmp_path: Path
) -> None:
    commands = []
    for verb, run, epochs in (("fit", "whole", 2), ("fit", "halves", 1), ("fit", "halves", 2), ("test", "halves", 2)):
        commands.append(arguments(verb, strategy, run, *adapters, "--trainer.max_epochs", str(epochs)))
    forked("commands", 2, *joined(*commands), folder=tmp_path)
    same(tmp_path / "whole", tmp_path / "halves")
    for name in ("best", "last"):
        holds_adapters_alone(tmp_path / "halves" / "checkpoints" / f"{name}.ckpt")


@pytest.mark.slow
@pytest.mark.parametrize(("ranks", "after"), [(2, "zero2"), (1, "zero3"), (1, "one")])
def test_adapters_move_to_other_ranks_and_strategies(
    ranks: int, after: str, adapters: list[str], arguments: Callable[..., list[str]], tmp_path: Path
) -> None:
    """ReFT's reference is their base: the same one, whoever shares its weights out."""
    further = [*adapters, "--model.optimizer", "torch.optim.SGD", "--model.optimizer.lr", "0.3", "--data.validation", "null"]
    if ranks == 1 and after == "zero3":  # by a universal checkpoint, which takes Adam's averages along
        further = [*adapters, "--data.validation", "null"]
    first = arguments("fit", "zero3", "moved", *further, "--trainer.max_epochs", "1")
    forked("commands", 2, *joined(arguments("fit", "zero3", "whole", *further), first), folder=tmp_path)
    last = tmp_path / "moved" / "checkpoints" / "last.ckpt"
    stored = stored_client_state(last)
    base = load_policy(PolicySettings(str(tmp_path / "base"), dtype="float32"))
    assert stored["reft_reference"] == stored["reft_base"] == fingerprint(base)
    start = flat(weights(tmp_path / "moved"))
    forked("commands", ranks, *arguments("fit", after, "moved", *further, "--trainer.devices", str(ranks)), folder=tmp_path)
    holds_adapters_alone(last)
    changes = [flat(weights(tmp_path / run)) - start for run in ("whole", "moved")]
    assert apart(*changes) < 1e-4


@pytest.mark.slow
def test_where_no_copy_can_be_written_the_run_stops_and_goes_on_later(
    arguments: Callable[..., list[str]], tmp_path: Path
) -> None:
    """As on a full disk: the averages are not lost over it."""
    forked("commands", 2, *arguments("fit", "zero2", "run", "--trainer.max_epochs", "1"), folder=tmp_path)
    go_on = arguments("fit", "zero2", "run", "--trainer.devices", "1")
    said = forked("commands", 1, *go_on, folder=tmp_path, fails=True, largest_file=40_000)
    assert "make room in" in said
    assert "Traceback" not in said
    checkpoints = tmp_path / "run" / "checkpoints"
    assert sorted(path.name for path in checkpoints.iterdir()) == ["best.ckpt", "last.ckpt"]
    assert "averages begin anew" not in forked("commands", 1, *go_on, folder=tmp_path)


@pytest.mark.slow
def test_a_folder_of_parts_is_tested_by_anything(arguments: Callable[..., list[str]], tmp_path: Path) -> None:
    forked("commands", 2, *arguments("fit", "zero3", "run", "--trainer.max_epochs", "1"), folder=tmp_path)
    forked("commands", 1, *arguments("test", "one", "run", "--ckpt_path", "last"), folder=tmp_path)
    best, last = (json.loads((tmp_path / "run" / path).read_text()) for path in ("hf/reft.json", "tests/last/results.json"))
    assert last["test"]["ordinary"]["weights"] == best["weights"], "one epoch, one validation: the last is the best"


@pytest.mark.slow
@pytest.mark.parametrize("strategy", ["ddp", "zero3"])
def test_two_ranks_validate_and_share_sampling(strategy: str, arguments: Callable[..., list[str]], tmp_path: Path) -> None:
    run = ["--run_dir", str(tmp_path / "run")]
    exports = ("--trainer.callbacks+", "reft_pl_callbacks.ExportHF")
    fit = arguments("fit", strategy, "run", "--trainer.max_epochs", "1", *exports, stage="sft", plain=True)
    validate = arguments("validate", strategy, "run", stage="sft", plain=True)
    predict = ["predict", "--config", "configs/sample.yaml", "--config", f"configs/strategy/{strategy}_cpu.yaml", *run]
    predict += ["--data.max_tokens", "200", "--data.max_prompt_tokens", "190", "--data.test.ordinary.size", "7"]
    predict += ["--model.n", "2", "--data.eval_batch_size", "2", "--data.predict", "[ordinary]"]
    said = forked("commands", 2, *joined(fit, validate, predict), folder=tmp_path)
    assert said.count("ordinary: 2 samples of 7 questions") == 1
    assert len(lines(tmp_path / "run" / "samples" / "ordinary.jsonl")) == 7
    results = json.loads((tmp_path / "run" / "results.json").read_text())
    assert results["validation"]["val/top1"] == results["fit"]["best"]["val/top1"]
    assert results["samples"]["ordinary"]["questions"] == 7
    on_the_way, at_last = (load_file(tmp_path / "run" / name / "model.safetensors") for name in ("hf-step-3", "hf"))
    assert all(torch.equal(on_the_way[name], at_last[name]) for name in at_last), "one validation: it is the best"


@pytest.mark.slow
def test_the_command_starts_its_ranks_itself(arguments: Callable[..., list[str]], tmp_path: Path) -> None:
    """``reft-pl fit`` with two devices: Lightning starts the second process by the same command line."""
    command = [str(Path(sys.executable).parent / "reft-pl"), *arguments("fit", "ddp", "run", "--trainer.max_epochs", "1")]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=590, check=False)
    assert done.returncode == 0, done.stderr[-3000:]
    assert done.stdout.count("best model in") == 1
    assert len(lines(tmp_path / "run" / "rollouts.jsonl")) == 12
