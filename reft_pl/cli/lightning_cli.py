"""LightningCLI with run folders: fit, validate, test and predict."""

from __future__ import annotations

import logging
from functools import partial
from pathlib import Path
from typing import Any, cast

import yaml
from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.callbacks import ProgressBar
from lightning.pytorch.cli import LightningArgumentParser, LightningCLI, SaveConfigCallback
from lightning.pytorch.loggers import TensorBoardLogger
from lightning.pytorch.strategies import DDPStrategy, SingleDeviceStrategy
from lightning.pytorch.strategies.launchers import _SubprocessScriptLauncher
from lightning.pytorch.utilities import rank_zero_only

from reft_pl.cli.allocator import GivesFreedMemoryBack
from reft_pl.cli.figures import in_words, with_interval
from reft_pl.cli.parser import FriendlyParser
from reft_pl.cli.resolved_keys import evaluated_folder, resolved_keys
from reft_pl.cli.run_folder import (
    checkpoint_to_resume,
    checkpoint_to_test,
    dtype_of,
    export_to_sample_from,
    require_folder,
    require_paths,
)
from reft_pl.cli.signals import EndsOnSignals, end_started_ranks, take_requeue_signal
from reft_pl.data.datamodule import ReasoningDataModule
from reft_pl.errors import UserError
from reft_pl.evaluation.files import read_results, update_results, write_aside
from reft_pl.evaluation.model_card import write_card
from reft_pl.evaluation.reranked import copy_to_sampled_runs
from reft_pl.interruption import interruption
from reft_pl.models.dtype import fastest_dtype
from reft_pl.models.export import read_description
from reft_pl.modules import RerankerModule, RunModule, SamplingModule, StageModule
from reft_pl.modules.checkpoints import AtomicCheckpointIO, RunCheckpoints
from reft_pl.strategies import ZeRO
from reft_pl.terminal import echo

logger = logging.getLogger(__name__)


class SaveRunConfig(SaveConfigCallback):
    """Write the full config of a ``fit`` to ``<run_dir>/config.yaml``."""

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Save on the first rank, before training starts."""
        if stage == "fit" and trainer.is_global_zero:
            text = self.parser.dump(self.config, skip_none=False, skip_link_targets=False)
            write_aside(Path(trainer.default_root_dir) / "config.yaml", text)


class ReftCLI(LightningCLI):
    """LightningCLI with run folders: a fit resumes an interrupted run, a test finds the trained weights."""

    def __init__(self, args: list[str]) -> None:
        super().__init__(
            LightningModule,
            ReasoningDataModule,
            subclass_mode_model=True,
            save_config_callback=SaveRunConfig,
            seed_everything_default=1,
            trainer_defaults={
                "devices": 1,
                "num_sanity_val_steps": 0,
                "use_distributed_sampler": False,
                "enable_model_summary": False,
            },
            parser_class=FriendlyParser,
            auto_configure_optimizers=False,
            load_from_checkpoint_support=False,
            args=args,
        )

    def _prepare_subcommand_parser(self, klass: type, subcommand: str, **kwargs: Any) -> LightningArgumentParser:
        """Return Lightning's parser of a verb, without its tables: evaluations print their figures themselves."""
        parser = super()._prepare_subcommand_parser(klass, subcommand, **kwargs)
        if subcommand in ("validate", "test"):
            parser.set_defaults({"verbose": False})
        if subcommand == "predict":
            parser.set_defaults({"return_predictions": False})  # they are in files
        return parser

    def add_arguments_to_parser(self, parser: LightningArgumentParser) -> None:
        """Add the run folder, and link settings that several parts share."""
        parser.add_argument("--run_dir", type=str, default="runs/run", help="Folder for everything that this run writes.")
        parser.add_lightning_class_args(RunCheckpoints, "checkpoints")
        parser.link_arguments("run_dir", "trainer.default_root_dir")
        parser.link_arguments("seed_everything", "model.init_args.seed")
        parser.link_arguments("seed_everything", "data.seed")
        parser.link_arguments("model.init_args.policy.init_from", "data.tokenizer")
        parser.link_arguments("model.init_args.policy.trust_remote_code", "data.trust_remote_code")

    def _parse_ckpt_path(self) -> None:
        """Leave the config alone: Lightning would override it with the checkpoint's hyper-parameters and class."""

    @property
    def settings(self) -> Any:
        """Return the parsed settings of the verb."""
        return self.config[str(self.subcommand)]

    def before_instantiate_classes(self) -> None:
        """Find the checkpoint to start from, and resolve the keys that depend on it, before any work."""
        settings, run_dir = self.settings, Path(self.settings.run_dir)
        require_paths(settings.run_dir, settings.ckpt_path)
        require_folder(run_dir)
        self._choose_dtype(run_dir)
        if self.subcommand == "fit":
            dumped = yaml.safe_load(self._parser("fit").dump(settings, skip_none=False, skip_link_targets=False))
            checkpoint = checkpoint_to_resume(run_dir, dumped, settings.ckpt_path)
            if checkpoint:
                say(f"resuming from {checkpoint}")
        else:
            checkpoint = self._checkpoint_to_evaluate(run_dir)
            if self.subcommand == "test" and not (settings.data.test or settings.data.samples):
                raise UserError("there is nothing to test on: give data.test at least one source")
            say(f"{self.subcommand}: weights of {checkpoint or evaluated_folder(settings, checkpoint)}")
        for key, value in resolved_keys(str(self.subcommand), settings, checkpoint, (run_dir / "hf").is_dir()).items():
            settings[key] = value

    def _choose_dtype(self, run_dir: Path) -> None:
        """Replace ``auto`` by the run's own dtype, so that its weights keep it, else by the fastest dtype here."""
        policy = self.settings.model.init_args.policy
        if policy.dtype == "auto":
            begun = self.subcommand != "fit" or (run_dir / "checkpoints" / "last.ckpt").exists()
            own = dtype_of(run_dir) if begun and self.settings.ckpt_path in (None, "best", "last") else None
            policy.dtype = own or fastest_dtype()
            say(f"policy.dtype auto: {policy.dtype}, {'as this run has it' if own else 'the fastest here'}")
        if policy.dtype == "bfloat16" and fastest_dtype() == "float32":
            say("policy.dtype is bfloat16, which this CPU does not support natively: float32 is many times as fast here")

    def _checkpoint_to_evaluate(self, run_dir: Path) -> Path | None:
        """Return the checkpoint to load, or None if weights come from a model folder or hub id."""
        if self.subcommand != "predict":
            return checkpoint_to_test(run_dir, self.settings.ckpt_path)
        export_to_sample_from(run_dir, self.settings.ckpt_path)
        return None

    def instantiate_trainer(self, **kwargs: Any) -> Trainer:
        """Create the Trainer with TensorBoard events in the run folder and atomic checkpoints."""
        trainer = self._get(self.config_init, "trainer")
        if trainer.check_val_every_n_epoch is not None and trainer.check_val_every_n_epoch < 1:
            raise UserError(
                f"trainer.check_val_every_n_epoch is {trainer.check_val_every_n_epoch}, but must be at least 1: to train "
                f"without validation, set data.validation to null"
            )
        if trainer.enable_progress_bar is False:  # Lightning refuses the flag beside a bar in the config
            trainer.callbacks = [c for c in trainer.callbacks or [] if not isinstance(c, ProgressBar)]
        given = trainer.plugins or []
        plugins = [*(given if isinstance(given, list) else [given]), AtomicCheckpointIO()]
        logger = trainer.logger
        if logger is None:
            logger = self._event_files(trainer.default_root_dir) if self.subcommand == "fit" else False
        made = super().instantiate_trainer(plugins=plugins, logger=logger, **kwargs)
        if made.precision != "32-true":
            raise UserError(
                f"trainer.precision={made.precision} would override the model's dtype: leave it out and set model.policy.dtype "
                f"to bfloat16 or float32"
            )
        refuse_strategy(made)
        made.callbacks[:0] = [EndsOnSignals(), GivesFreedMemoryBack()]  # type: ignore[attr-defined]
        interruption.at_once = partial(end_started_ranks, made)
        take_requeue_signal(made)
        return made

    def _event_files(self, folder: str) -> TensorBoardLogger:
        """Return the TensorBoard logger of a fit; a new run replaces the events of a run that left no checkpoint."""
        return TensorBoardLogger(folder, name="", version="", purge_step=None if self.settings.ckpt_path else 0)

    def before_fit(self) -> None:
        """Reject modules that only sample."""
        if not isinstance(self.model, StageModule):
            raise UserError(f"{type(self.model).__name__} is not trained: give `reft-pl fit` the config of a stage")

    def before_predict(self) -> None:
        """Reject a training stage; warn if the model was trained with other data settings."""
        if not isinstance(self.model, SamplingModule):
            raise UserError("only SamplingModule samples to files: give `reft-pl predict` configs/sample.yaml and overlays")
        self.before_test()

    def before_test(self) -> None:
        """Warn if the model was trained with other data settings."""
        source = self.settings.model.init_args.policy.init_from
        here = self.datamodule.codec.description()
        for key, there in read_description(Path(source)).items():
            if key in here and here[key] != there:
                logger.warning("%s was trained with %s=%s and is used here with %s", source, key, there, here[key])

    def after_validate(self) -> None:
        """Save the figures and print them."""
        folder = Path(str(self.trainer.default_root_dir))
        figures = {name: float(value) for name, value in self.trainer.callback_metrics.items()}
        if not figures:
            raise UserError("there is nothing to validate on: set data.validation or data.holdout")
        weights = cast("RunModule", self.model).weights
        if not self.trainer.is_global_zero:
            return
        update_results(folder, "validation", {**figures, "weights": weights})
        write_card(folder)
        echo(f"{figures}; written to {folder / 'results.json'}")

    def after_test(self) -> None:
        """Print the figures and where they are stored."""
        if not self.trainer.is_global_zero:
            return
        folder = Path(str(self.trainer.default_root_dir))
        write_card(folder)
        if isinstance(self.model, RerankerModule):
            copy_to_sampled_runs(folder, self.datamodule.test_names)
        section, kept = ("rerank", "scores") if isinstance(self.model, RerankerModule) else ("test", "predictions")
        tested = read_results(folder)[section]
        for name in self.datamodule.test_names:  # the file may hold figures of other sets, from other configs
            echo(f"{name}: {in_words(tested[name])}")
        echo(f"written to {folder / 'results.json'} and {folder / kept}")

    def after_predict(self) -> None:
        """Print the voting and pass figures, or report that samples are missing."""
        if not self.trainer.is_global_zero:
            return
        folder = Path(str(self.trainer.default_root_dir))
        write_card(folder)
        model = cast("SamplingModule", self.model)
        for store in model.stores:
            name = store.path.stem
            figures = model.summaries.get(name)
            if figures is None:  # if another process finished the file, that process reports it
                echo(f"{name}: not all questions are sampled yet; wait for the other processes, or run this command again")
                continue
            n = figures["n"]
            voting, bound = (with_interval(figures[f"{kind}@{n}"]) for kind in ("voting", "pass"))
            echo(f"{name}: {n} samples of {figures['questions']} questions, voting@{n} {voting}, upper bound {bound}")
            echo(f"written to {store.path}")

    def after_fit(self) -> None:
        """Print where the model is."""
        if not self.trainer.is_global_zero:
            return
        folder = Path(str(self.trainer.default_root_dir))
        if (folder / "hf").exists():
            echo(f"best model in {folder / 'hf'}; figures in {folder / 'results.json'}; curves: tensorboard --logdir {folder}")
        elif self.trainer.global_step == 0 and not self.trainer.fast_dev_run:  # type: ignore[attr-defined]
            raise UserError(
                "no batch was trained: check trainer.max_epochs, trainer.max_steps, trainer.max_time and "
                "trainer.limit_train_batches"
            )


@rank_zero_only
def say(text: str) -> None:
    """Print a line on the first rank only."""
    echo(text)


def refuse_strategy(trainer: Trainer) -> None:
    """Reject strategies that the modules do not support.

    Raises:
        UserError: The strategy is neither one device nor DDP nor ZeRO, or it forks this process.
    """
    strategy, launcher = trainer.strategy, trainer.strategy.launcher
    known = isinstance(strategy, SingleDeviceStrategy) or type(strategy) in (DDPStrategy, ZeRO)
    if not known or not (launcher is None or isinstance(launcher, _SubprocessScriptLauncher)):
        raise UserError(
            f"trainer.strategy is {type(trainer.strategy).__name__}, which the modules do not support: use one of "
            f"configs/strategy/ddp.yaml and zero.yaml"
        )
