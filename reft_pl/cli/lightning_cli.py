"""The Lightning verbs: fit, validate, test, predict."""

from __future__ import annotations

import logging
import sys
import traceback
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any, cast

import yaml
from lightning.fabric.utilities.exceptions import MisconfigurationException
from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.callbacks import ProgressBar
from lightning.pytorch.cli import LightningArgumentParser, LightningCLI, SaveConfigCallback
from lightning.pytorch.loggers import TensorBoardLogger
from lightning.pytorch.strategies import DDPStrategy, SingleDeviceStrategy
from lightning.pytorch.strategies.launchers import _SubprocessScriptLauncher
from lightning.pytorch.utilities import rank_zero_only
from torch._dynamo.exc import TorchDynamoException

from reft_pl.cli.allocator import GivesFreedMemoryBack, keep_freed_memory
from reft_pl.cli.parser import FriendlyParser, resolve_configs
from reft_pl.cli.quiet import quieten
from reft_pl.cli.run_folder import (
    checkpoint_to_resume,
    checkpoint_to_test,
    export_to_sample_from,
    number_format_of,
    require_folder,
    require_paths,
    results_folder,
)
from reft_pl.cli.signals import EndsOnSignals, end_started_ranks
from reft_pl.data.datamodule import ReasoningDataModule
from reft_pl.errors import UserError, first_line
from reft_pl.evaluation.files import read_results, update_results, write_aside
from reft_pl.evaluation.model_card import write_card
from reft_pl.evaluation.reranked import tell_sampled_runs
from reft_pl.interruption import Interrupted, interruption
from reft_pl.models.dtype import fast_format
from reft_pl.models.export import read_description
from reft_pl.modules import RerankerModule, RunModule, SamplingModule, StageModule
from reft_pl.modules.checkpoints import AtomicCheckpointIO, RunCheckpoints
from reft_pl.strategies import ZeRO
from reft_pl.terminal import echo

logger = logging.getLogger(__name__)


class SaveRunConfig(SaveConfigCallback):
    """Writes the whole config of a ``fit`` to ``<run_dir>/config.yaml``."""

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Save, on the first rank, before anything is trained."""
        if stage == "fit" and trainer.is_global_zero:
            text = self.parser.dump(self.config, skip_none=False, skip_link_targets=False)
            write_aside(Path(trainer.default_root_dir) / "config.yaml", text)


class ReftCLI(LightningCLI):
    """LightningCLI with run folders: a fit resumes what was interrupted, a test finds what was trained."""

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
        """Lightning's parser of a verb; evaluations print their figures themselves."""
        parser = super()._prepare_subcommand_parser(klass, subcommand, **kwargs)
        if subcommand in ("validate", "test"):
            parser.set_defaults({"verbose": False})
        if subcommand == "predict":
            parser.set_defaults({"return_predictions": False})  # they are in files
        return parser

    def add_arguments_to_parser(self, parser: LightningArgumentParser) -> None:
        """The run folder, and the settings that several parts share."""
        parser.add_argument(
            "--run_dir", type=str, default="runs/run", help="Folder of this run: everything it leaves is there."
        )
        parser.add_lightning_class_args(RunCheckpoints, "checkpoints")
        parser.link_arguments("run_dir", "trainer.default_root_dir")
        parser.link_arguments("seed_everything", "model.init_args.seed")
        parser.link_arguments("seed_everything", "data.seed")
        parser.link_arguments("model.init_args.policy.init_from", "data.tokenizer")
        parser.link_arguments("model.init_args.policy.trust_remote_code", "data.trust_remote_code")

    def _parse_ckpt_path(self) -> None:
        """Leave the config alone: Lightning would merge a checkpoint's hyper-parameters, class included, over it."""

    @property
    def settings(self) -> Any:
        """The parsed settings of the verb."""
        return self.config[str(self.subcommand)]

    def before_instantiate_classes(self) -> None:
        """Find the checkpoint that this run starts from, before any work."""
        settings, run_dir = self.settings, Path(self.settings.run_dir)
        require_paths(settings.run_dir, settings.ckpt_path)
        require_folder(run_dir)
        self._choose_number_format(run_dir)
        if self.subcommand == "fit":
            dumped = yaml.safe_load(self._parser("fit").dump(settings, skip_none=False, skip_link_targets=False))
            checkpoint = checkpoint_to_resume(run_dir, dumped, settings.ckpt_path)
            if checkpoint:
                say(f"resuming from {checkpoint}")
        else:
            checkpoint = self._checkpoint_to_evaluate(run_dir)
            settings.trainer.default_root_dir = str(results_folder(run_dir, settings.ckpt_path))
            if self.subcommand == "test" and not (settings.data.test or settings.data.samples):
                raise UserError("there is nothing to test on: give data.test at least one source")
            # A run's own export has the architecture and the tokenizer of its checkpoints, whatever became of init_from.
            source = run_dir / "hf" if checkpoint or settings.ckpt_path is None else settings.ckpt_path
            policy = settings.model.init_args.policy
            if checkpoint is None:
                policy.lora = None  # adapters that the model has are in the folder
            # A checkpoint of adapters wants the base that they were trained on, which a merged export is not.
            if checkpoint is None or (policy.lora is None and (run_dir / "hf").is_dir()):
                policy.init_from = settings.data.tokenizer = str(source)
                policy.from_scratch = False
            say(f"{self.subcommand}: weights of {checkpoint or source}")
        settings.ckpt_path = str(checkpoint) if checkpoint else None

    def _choose_number_format(self, run_dir: Path) -> None:
        """Put in the place of ``auto`` what the run has, so that its weights stay what they are, else what is fast here."""
        policy = self.settings.model.init_args.policy
        if policy.dtype == "auto":
            begun = self.subcommand != "fit" or (run_dir / "checkpoints" / "last.ckpt").exists()
            own = number_format_of(run_dir) if begun and self.settings.ckpt_path in (None, "best", "last") else None
            policy.dtype = own or fast_format()
            say(f"policy.dtype auto: {policy.dtype}, {'as this run has it' if own else 'which is fastest here'}")
        if policy.dtype == "bfloat16" and fast_format() == "float32":
            say("policy.dtype is bfloat16, for which this machine has no instructions: float32 is many times as fast here")

    def _checkpoint_to_evaluate(self, run_dir: Path) -> Path | None:
        """The checkpoint to load, or None where weights come from a model folder or hub id."""
        if self.subcommand != "predict":
            return checkpoint_to_test(run_dir, self.settings.ckpt_path)
        export_to_sample_from(run_dir, self.settings.ckpt_path)
        return None

    def instantiate_trainer(self, **kwargs: Any) -> Trainer:
        """The Trainer with TensorBoard events in the run folder and checkpoints that are whole or absent."""
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
                f"trainer.precision={made.precision} would override the model's own: leave it out and set model.policy.dtype "
                f"to bfloat16 or float32"
            )
        refuse_strategy(made)
        made.callbacks[:0] = [EndsOnSignals(), GivesFreedMemoryBack()]  # type: ignore[attr-defined]
        interruption.at_once = partial(end_started_ranks, made)
        return made

    def _event_files(self, folder: str) -> TensorBoardLogger:
        """TensorBoard's files of a fit; one that begins anew takes the place of what a run without a checkpoint left there."""
        return TensorBoardLogger(folder, name="", version="", purge_step=None if self.settings.ckpt_path else 0)

    def before_fit(self) -> None:
        """Refuse to train what only samples."""
        if not isinstance(self.model, StageModule):
            raise UserError(f"{type(self.model).__name__} is not trained: give `reft-pl fit` the config of a stage")

    def before_predict(self) -> None:
        """Refuse a stage; say where a model folder is used otherwise than it was trained."""
        if not isinstance(self.model, SamplingModule):
            raise UserError("only SamplingModule samples to files: give `reft-pl predict` configs/sample.yaml and overlays")
        self.before_test()

    def before_test(self) -> None:
        """Say where a model folder is tested otherwise than it was trained."""
        source = self.settings.model.init_args.policy.init_from
        here = self.datamodule.codec.description()
        for key, there in read_description(Path(source)).items():
            if key in here and here[key] != there:
                logger.warning("%s was trained with %s=%s and is used here with %s", source, key, there, here[key])

    def after_validate(self) -> None:
        """Keep the figure, and say it."""
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
        """Say what was measured, and where it stands."""
        if not self.trainer.is_global_zero:
            return
        folder = Path(str(self.trainer.default_root_dir))
        write_card(folder)
        if isinstance(self.model, RerankerModule):
            tell_sampled_runs(folder, self.datamodule.test_names)
        section, kept = ("rerank", "scores") if isinstance(self.model, RerankerModule) else ("test", "predictions")
        tested = read_results(folder)[section]
        for name in self.datamodule.test_names:  # the file may hold figures of other sets, from other configs
            echo(f"{name}: {_in_words(tested[name])}")
        echo(f"written to {folder / 'results.json'} and {folder / kept}")

    def after_predict(self) -> None:
        """Say what the samples come to, or what is still missing."""
        if not self.trainer.is_global_zero:
            return
        folder = Path(str(self.trainer.default_root_dir))
        write_card(folder)
        model = cast("SamplingModule", self.model)
        for store in model.stores:
            name = store.path.stem
            figures = model.summaries.get(name)
            if figures is None:  # another process may have finished the file since: it is the one to say so
                echo(f"{name}: not all questions are sampled yet; another process is at them, or give this command again")
                continue
            n = figures["n"]
            voting, bound = (_with_interval(figures[f"{kind}@{n}"]) for kind in ("voting", "pass"))
            echo(f"{name}: {n} samples of {figures['questions']} questions, voting@{n} {voting}, upper bound {bound}")
            echo(f"written to {store.path}")

    def after_fit(self) -> None:
        """Say where the model is."""
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
    """Print a line, once however many ranks there are."""
    echo(text)


def refuse_strategy(trainer: Trainer) -> None:
    """Refuse what trains in a way that modules here do not know.

    Raises:
        UserError: neither one device nor DDP nor ZeRO, or one that forks this process.
    """
    strategy, launcher = trainer.strategy, trainer.strategy.launcher
    known = isinstance(strategy, SingleDeviceStrategy) or type(strategy) in (DDPStrategy, ZeRO)
    if not known or not (launcher is None or isinstance(launcher, _SubprocessScriptLauncher)):
        raise UserError(
            f"trainer.strategy is {type(trainer.strategy).__name__}, under which modules here do not train: take one of "
            f"configs/strategy/ddp.yaml and zero.yaml"
        )


def _in_words(figures: Mapping[str, Any]) -> str:
    """The figures of a test set in one line."""
    if "top1" in figures:
        return f"Top-1 {_with_interval((figures['top1'], *figures['interval95']))} of {figures['n']} questions"
    n = figures["n"]
    kinds = {"rerank": "rerank", "weighted vote": "weighted", "vote": "voting", "upper bound": "pass"}
    text = ", ".join(f"{label} {_with_interval(figures[f'{kind}@{n}'])}" for label, kind in kinds.items())
    return f"{n} samples of {figures['questions']} questions, {text}"


def _with_interval(figure: Sequence[float]) -> str:
    """A share with its 95% interval, from (share, low, high)."""
    share, low, high = figure
    return f"{share:.1%} (95%: {low:.1%} to {high:.1%})"


def user_error_behind(error: BaseException) -> UserError | None:
    """The user's mistake that a constructor found, which jsonargparse wraps into an error of its own."""
    cause: BaseException | None = error
    while cause is not None and not isinstance(cause, UserError):
        cause = cause.__cause__ or cause.__context__
    return cause


def _refusal_of_lightning(error: BaseException) -> UserError | None:
    """What the Trainer refuses by itself, such as an accelerator that is not there, as one sentence."""
    frames = list(traceback.walk_tb(error.__traceback__))
    module = str(frames[-1][0].f_globals.get("__name__", ""))
    return UserError(" ".join(str(error).split())) if module.startswith("lightning.") else None


def run_verb(verb: str, args: list[str]) -> int:
    """Run a Lightning verb with a command line."""
    quieten()
    keep_freed_memory()
    argv, sys.argv = sys.argv, [sys.argv[0], verb, *args]  # with which Lightning starts the other ranks of this machine
    try:
        ReftCLI([verb, *resolve_configs(args)])
    except SystemExit as stop:
        return int(stop.code or 0)
    except Interrupted as stop:
        stop.reported = getattr(rank_zero_only, "rank", 0) == 0
        if interruption.at_once is not None:
            interruption.at_once()
        raise
    except MisconfigurationException as error:
        text = " ".join(str(error).split())
        if "No supported gpu backend" in text:
            text = (
                "trainer.accelerator is gpu, and there is no GPU here: say --trainer.accelerator cpu, or take one for CPU "
                "processes (configs/strategy/two_cpus.yaml)"
            )
        raise UserError(text) from error
    except PermissionError as error:
        raise UserError(
            f"{error.filename or 'a file'} may not be read or written ({error.strerror or error}): give it other rights, or "
            f"name another folder"
        ) from error
    except TorchDynamoException as error:
        raise UserError(f"layers cannot be compiled here ({first_line(error)}): set model.policy.compile to false") from error
    except (ValueError, TypeError, RuntimeError) as error:
        raise user_error_behind(error) or (_refusal_of_lightning(error) or error) from None
    finally:
        sys.argv = argv
    return 0
