"""Offline self-training, from the command line and against hand-computed targets."""

import json
from collections.abc import Callable
from pathlib import Path

import yaml

from reft_pl.cli import main
from reft_pl.data.codec import Codec
from reft_pl.data.sample_file import Prediction, SampledQuestion, to_line
from reft_pl.data.self_training import SelfTraining
from reft_pl.data.stories.source import StorySource
from reft_pl.data.tokenizer import load_tokenizer
from reft_pl.formats import PythonProgram

Overlay = Callable[..., str]


def wrong_and_right(problem, *bodies):
    texts = [f'def solution():\n    """x"""\n{body}' for body in bodies]
    predictions = [Prediction(texts[0], 1.0, False), *(Prediction(text, problem.answer, True) for text in texts[1:])]
    return SampledQuestion(problem.id, problem.question, problem.answer, tuple(predictions), problem.solution)


def test_offline_takes_the_first_distinct_correct_samples_and_the_annotated_one(tmp_path, micro_model, caplog):
    source = StorySource("train", 3)
    first, second, third = source.load()
    ramble = "    return 2\n\ndef broken(:\n    was never run"
    too_long = "".join(f"    x{i} = 1 + 1\n" for i in range(60)) + "    return 5"
    repeated = ("    return 1", ramble, "    return 2", too_long, "    return 3", "    return 4")
    items = [
        wrong_and_right(first, *repeated),
        SampledQuestion(second.id, second.question, second.answer, (Prediction(second.solution, second.answer, True),)),
    ]
    file = tmp_path / "train.jsonl"
    file.write_text("".join(map(to_line, items)))
    codec = Codec(load_tokenizer(str(micro_model)), PythonProgram(), max_prompt_tokens=190, max_tokens=400)
    problems = SelfTraining(source, str(file), per_question=2).load_for(codec)
    assert [p.id for p in problems] == [first.id, f"{first.id}+1", f"{first.id}+2", second.id, third.id]
    targets = [PythonProgram().target_text(p) for p in problems]
    assert targets[1].endswith('"""\n    return 2')
    assert targets[2].endswith('"""\n    return 3')
    assert "left out 1 correct samples that are too long" in caplog.text


def test_questions_without_a_solution_have_only_sampled_ones(tmp_path, micro_model):
    source = StorySource("train", 2, solutions=False)
    solved, unsolved = source.load()
    file = tmp_path / "train.jsonl"
    file.write_text(
        "".join(
            map(to_line, [wrong_and_right(solved, "    return 1", "    return 2"), wrong_and_right(unsolved, "    return 1")])
        )
    )
    codec = Codec(load_tokenizer(str(micro_model)), PythonProgram(), max_prompt_tokens=190, max_tokens=400)
    (problem,) = SelfTraining(source, str(file)).load_for(codec)
    assert problem.id == f"{solved.id}+1"
    assert problem.solution is not None
    assert "return 2" in problem.solution


def test_offline_from_the_command_line(overlay: Overlay, tmp_path: Path) -> None:
    """Run the config on the warm-up's samples of training questions, some of them marked as correct."""
    sft = overlay("sft", trainer={"max_epochs": 1})
    assert main(["fit", "--config", "configs/sft.yaml", "--config", sft]) == 0
    run = tmp_path / "sft"
    sample = overlay("sft-samples", init_from=run / "hf")
    predict = ["predict", "--config", "configs/sample.yaml", "--run_dir", str(run), "--data.predict", "[train]"]
    config = yaml.safe_load(Path(sample).read_text())
    policy = config["model"]["init_args"]["policy"]
    keys = ("train", "max_tokens", "max_prompt_tokens", "cache_dir")
    small = {"model": {"init_args": {"policy": policy, "n": 2}}, "data": {key: config["data"][key] for key in keys}}
    Path(sample).write_text(yaml.safe_dump(small))
    assert main([*predict, "--config", sample]) == 0
    file = run / "samples" / "train.jsonl"
    rows = [json.loads(line) for line in file.read_text().splitlines()]
    for row in rows[:5]:
        row["predictions"][0] |= {
            "completion": f'def solution():\n    """x"""\n    return {row["answer_value"]}',
            "correctness": True,
        }
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    source = {"annotated": {"class_path": "StorySource", "init_args": {"split": "train", "size": 12}}, "samples": str(file)}
    data = {"train": [{"class_path": "SelfTraining", "init_args": source}]}
    offline = [
        "--config", "configs/sft.yaml", "--config", "configs/offline_self_training.yaml",
        "--config", overlay("offline", trainer={"max_epochs": 1}, data=data),
    ]  # fmt: skip
    assert main(["fit", *offline]) == 0
    assert main(["test", *offline]) == 0
    assert json.loads((tmp_path / "offline" / "results.json").read_text())["fit"]["batches"] == 5, "of 12 + 5 problems by 4"


def test_samples_of_other_questions_are_refused(tmp_path, capsys, overlay):
    problem = StorySource("train", 1).load()[0]
    item = SampledQuestion(problem.id, "another question", 1.0, (Prediction("x", 1.0, True),))
    (tmp_path / "train.jsonl").write_text(to_line(item))
    annotated = {"class_path": "StorySource", "init_args": {"split": "train", "size": 4}}
    source = {"class_path": "SelfTraining", "init_args": {"annotated": annotated, "samples": str(tmp_path / "train.jsonl")}}
    config = overlay("offline", data={"train": [source]})
    assert main(["fit", "--config", "configs/sft.yaml", "--config", config]) == 2
    assert "has another question" in capsys.readouterr().err
