from __future__ import annotations

import json
import logging

import pytest
import yaml
from jsonargparse import ArgumentParser
from lightning.pytorch import LightningModule, Trainer

from reft_pl.data.datamodule import ReasoningDataModule
from reft_pl.data.sources import AuthorsJson
from reft_pl.errors import UserError
from reft_pl.formats import PythonProgram

CODE = 'def solution():\n    """q"""\n    return {}'


def source(folder, name, questions, *, solutions=True):
    rows = [{"item_id": f"{name}_{i}", "question": q, "answer_value": str(i)} for i, q in enumerate(questions)]
    if solutions:
        rows = [{**row, "answer_cot": CODE.format(row["answer_value"])} for row in rows]
    path = folder / f"{name}.json"
    path.write_text(json.dumps(rows))
    return AuthorsJson(str(path))


@pytest.fixture
def tokenizer_folder(plain_tokenizer, tmp_path):
    plain_tokenizer.save_pretrained(tmp_path / "tokenizer")
    return str(tmp_path / "tokenizer")


@pytest.fixture
def make(tmp_path, tokenizer_folder):
    def build(n=20, **settings):
        fixed = {"format": PythonProgram(), "tokenizer": tokenizer_folder, "cache_dir": str(tmp_path / "cache")}
        if "train" not in settings:
            settings["train"] = [source(tmp_path, "train", [f"How many are {i}?" for i in range(n)])]
        if "test" not in settings:
            settings["test"] = {"main": source(tmp_path, "test", [f"What of {i}?" for i in range(7)], solutions=False)}
        return ReasoningDataModule(**{**fixed, "batch_size": 6, **settings})

    return build


def test_fit_reads_all_sets_and_holds_questions_out(make):
    data = make(holdout=5)
    data.setup("fit")
    assert (len(data.train_problems), len(data.validation_problems), len(data.test_problems["main"])) == (15, 5, 7)
    assert not {p.question for p in data.train_problems} & {p.question for p in data.validation_problems}
    assert sorted(p.id for batch in data.train_dataloader() for p in batch) == sorted(p.id for p in data.train_problems)
    assert [p for batch in data.val_dataloader() for p in batch] == data.validation_problems
    (loader,) = data.test_dataloader()
    assert [p for batch in loader for p in batch] == data.test_problems["main"]
    again = make(holdout=5)
    again.setup("fit")
    assert again.validation_problems == data.validation_problems


def test_test_reads_only_the_test_sets(make, tmp_path):
    data = make(n=3)
    (tmp_path / "train.json").unlink()
    data.setup("test")
    assert len(data.test_problems["main"]) == 7
    assert data.train_problems == []
    assert data.val_dataloader() == []


def test_validate_reads_the_same_hold_out_as_fit(make):
    fit, validate = make(holdout=5), make(holdout=5)
    fit.setup("fit")
    validate.setup("validate")
    assert validate.validation_problems == fit.validation_problems


def test_questions_of_other_sets_are_left_out_of_training(make, tmp_path, caplog):
    validation = [source(tmp_path, "val", ["how many are 1 ?", "New?"])]
    test = {"t": source(tmp_path, "test", ["How many are 2?", "Other?"])}
    data = make(validation=validation, test=test)
    with caplog.at_level(logging.WARNING):
        data.setup("fit")
    assert len(data.train_problems) == 18
    assert "left out 1 of 20 questions that are test questions" in caplog.text
    assert "left out 1 of 19 questions that are validation questions" in caplog.text


@pytest.mark.parametrize("stage", ["fit", "validate"])
def test_test_questions_are_left_out_of_validation(make, tmp_path, caplog, stage):
    validation = [source(tmp_path, "val", ["New?", "how many are 2 ?", "Newer?"])]
    test = {"other": source(tmp_path, "other", ["Other?"]), "t": source(tmp_path, "test", ["How many are 2?"])}
    data = make(validation=validation, test=test)
    with caplog.at_level(logging.WARNING):
        data.setup(stage)
    assert [p.id for p in data.validation_problems] == ["val_0", "val_2"]
    assert [len(problems) for problems in data.test_problems.values()] == [1, 1]
    assert "validation: left out 1 of 3 questions that are test questions" in caplog.text
    with pytest.raises(UserError, match=r"data\.validation contains only test questions"):
        make(validation=[test["t"]], test=test).setup(stage)


def test_examples_are_prepared_and_cached(make, tmp_path):
    data = make()
    data.setup("fit")
    data.prepare_examples()
    files = sorted(p.name for p in (tmp_path / "cache").iterdir())
    assert [name.split("-")[0] for name in files] == ["examples", "longest"]
    again = make()
    again.setup("fit")
    again.codec._encode = None  # nothing is tokenised again
    again.prepare_examples()
    assert again.examples(again.train_problems) == data.examples(data.train_problems)


def test_problems_without_solutions_train_but_make_no_examples(make, tmp_path):
    data = make(train=[source(tmp_path, "bare", ["Q?", "R?"], solutions=False)])
    data.setup("fit")
    assert len(next(iter(data.train_dataloader()))) == 2
    with pytest.raises(UserError, match="bare_0 has no annotated program"):
        data.prepare_examples()


def test_some_problems_without_solutions_make_no_examples(make, tmp_path, caplog):
    def mixed():
        return [source(tmp_path, "bare", ["Q?", "R?"], solutions=False), source(tmp_path, "full", ["S?", "T " * 20 + "?"])]

    data = make(train=mixed())
    data.setup("fit")
    data.prepare_examples(every=False)
    assert [p.id for p in data.train_problems] == ["bare_0", "bare_1", "full_0", "full_1"]
    long = len(data.examples(data.train_problems[3:])[0].ids)
    data = make(train=mixed(), max_prompt_tokens=long - 2, max_tokens=long - 1)
    data.setup("fit")
    with pytest.raises(UserError, match="full_1 makes"):
        data.prepare_examples(every=False)
    data = make(train=mixed(), max_prompt_tokens=long - 2, max_tokens=long - 1, on_too_long="drop")
    data.setup("fit")
    data.prepare_examples(every=False)
    assert [p.id for p in data.train_problems] == ["bare_0", "bare_1", "full_0"]
    assert "left out 1 of 4 questions with solutions that are too long" in caplog.text


def test_long_questions_raise_or_are_counted(make, tmp_path, caplog):
    train = [source(tmp_path, "train", ["Short?", "Long " * 200 + "?"])]
    with pytest.raises(UserError, match=r"the question train_1 takes \d+ tokens, more than max_prompt_tokens=300"):
        make(train=train).setup("fit")
    data = make(train=train, on_too_long="drop")
    data.setup("fit")
    assert [p.id for p in data.train_problems] == ["train_0"]
    assert "train: left out 1 of 2 questions longer than 300 tokens" in caplog.text


def test_a_prompt_that_just_fits_is_kept(make, tmp_path):
    train = [source(tmp_path, "train", ["How many are there?"])]
    codec = make(train=train).codec
    problems = train[0].load()
    length = len(codec.prompt_ids(problems[0]))
    assert codec.longest_prompts(problems)[0] > length  # the newline after the docstring may merge with the text after it
    data = make(train=train, max_prompt_tokens=length, max_tokens=300)
    data.setup("fit")
    assert len(data.train_problems) == 1


def test_long_test_questions_do_not_prevent_training(make, tmp_path):
    data = make(test={"t": source(tmp_path, "test", ["Short?", "Long " * 200 + "?"])})
    data.setup("fit")
    assert len(data.test_problems["t"]) == 2  # the long question is kept, to exclude it from training
    with pytest.raises(UserError, match=r"the question test_1 takes \d+ tokens, more than max_prompt_tokens=300"):
        data.setup("test")


def test_long_solutions_raise_or_are_counted(make, tmp_path, caplog):
    path = tmp_path / "long.json"
    rows = [
        {"item_id": f"x_{i}", "question": f"Q{i}?", "answer_value": "1", "answer_cot": CODE.format("1" * digits)}
        for i, digits in enumerate([3, 900])
    ]
    path.write_text(json.dumps(rows))
    data = make(train=[AuthorsJson(str(path))])
    data.setup("fit")
    with pytest.raises(UserError, match="x_1 makes"):
        data.prepare_examples()
    data = make(train=[AuthorsJson(str(path))], on_too_long="drop")
    data.setup("fit")
    data.prepare_examples()
    assert [p.id for p in data.train_problems] == ["x_0"]
    assert "left out 1 of 2 questions with solutions that are too long" in caplog.text


def test_ids_stay_unique_over_sources(make, tmp_path):
    one, two = source(tmp_path, "a", ["Q?"]), source(tmp_path, "b", ["R?"])
    two.path.write_text(two.path.read_text().replace("b_0", "a_0"))
    with pytest.raises(UserError, match="has the id 'a_0', which an earlier source has too"):
        make(train=[one, two]).setup("fit")


def test_contradictory_settings_are_refused(make, tmp_path):
    with pytest.raises(UserError, match="exclude each other"):
        make(validation=[source(tmp_path, "v", ["Q?"])], holdout=3)
    with pytest.raises(UserError, match="must be positive"):
        make(batch_size=0)
    data = make(train=[source(tmp_path, "train", ["What of 1?"])])
    with pytest.raises(UserError, match="no training problems are left"):
        data.setup("fit")


def test_a_missing_tokenizer_is_named(make, tmp_path):
    with pytest.raises(UserError, match="there is no model folder"):
        make(tokenizer=str(tmp_path / "nowhere")).setup("test")
    (tmp_path / "empty").mkdir()
    with pytest.raises(UserError, match="no tokenizer could be loaded"):
        make(tokenizer=str(tmp_path / "empty")).setup("test")


def test_batches_reach_a_trainer_untouched(make):
    class Probe(LightningModule):
        seen: list[str]

        def test_step(self, batch, batch_idx, dataloader_idx=0):
            self.seen = getattr(self, "seen", []) + [p.id for p in batch]

    module, data = Probe(), make(eval_batch_size=3)
    trainer = Trainer(accelerator="cpu", devices=1, logger=False, enable_progress_bar=False, enable_checkpointing=False)
    trainer.test(module, datamodule=data, verbose=False)
    assert module.seen == [f"test_{i}" for i in range(7)]


def test_a_config_names_sources_and_forms_by_class(tmp_path, tokenizer_folder):
    train, test = source(tmp_path, "train", ["Q?"]), source(tmp_path, "test", ["R?"])
    config = {
        "train": [{"class_path": "AuthorsJson", "init_args": {"path": str(train.path), "solutions": False}}],
        "test": {
            "one": {"class_path": "AuthorsJson", "init_args": {"path": str(test.path)}},
            "two": {
                "class_path": "HFDatasetSource",
                "init_args": {"path": str(test.path), "answer": "answer_value"},
            },
        },
        "format": {"class_path": "Chat", "init_args": {"answer_pattern": "####"}},
        "tokenizer": tokenizer_folder,
    }
    parser = ArgumentParser(exit_on_error=False)
    parser.add_class_arguments(ReasoningDataModule, "data")
    data = parser.instantiate_classes(parser.parse_string(yaml.safe_dump({"data": config}))).data
    assert isinstance(data, ReasoningDataModule)
    with pytest.raises(UserError, match="no chat template"):
        data.setup("fit")
