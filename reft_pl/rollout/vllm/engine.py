"""A vLLM engine in this process: token ids in, token ids and log-probabilities out, weights replaced in place."""

from __future__ import annotations

import importlib.util
import json
import logging
import os
from collections.abc import Generator, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, ClassVar

from torch import Tensor

from reft_pl.errors import UserError, described
from reft_pl.types import Completion, SampleRequest, SamplingParams, StopReason

ENVIRONMENT = {
    "VLLM_ENABLE_V1_MULTIPROCESSING": "0",  # weights are handed over by reference, and a fault is an exception here
    "VLLM_USE_V2_MODEL_RUNNER": "0",  # the one whose sampler WorkerExtension knows
    "VLLM_CPU_OMP_THREADS_BIND": "nobind",  # the threads are the trainer's too
    "VLLM_NO_USAGE_STATS": "1",
    "VLLM_LOGGING_LEVEL": "ERROR",
    "PYTHONSAFEPATH": "1",  # `python -m`, by which vLLM inspects models, would import from the working folder first
}
"""What vLLM is told by environment variables; what the user sets stays."""


PREFILL_TOKENS = 2048
"""Prompt tokens that are read in one forward pass; a longer prompt has a pass to itself."""


@dataclass(frozen=True)
class EngineSettings:
    """How an engine uses its machine.

    Args:
        max_rows: Sequences that are decoded side by side.
        max_model_len: Tokens that a prompt and its completion may have together; the model's positions bound it too.
        cache_gib: Memory for keys and values, in GiB.
        enforce_eager: Do not compile the model: starts faster, samples slower.
    """

    max_rows: int = 256
    max_model_len: int = 2048
    cache_gib: float = 2.0
    enforce_eager: bool = False

    def __post_init__(self) -> None:
        if min(self.max_rows, self.max_model_len) < 1 or self.cache_gib <= 0:
            raise UserError(
                f"max_rows, max_model_len and cache_gib of the rollout engine must be positive, got {self.max_rows}, "
                f"{self.max_model_len} and {self.cache_gib}"
            )


def require_vllm() -> None:
    """Check that vLLM is there.

    Raises:
        UserError: it is not.
    """
    if importlib.util.find_spec("vllm") is None:
        raise UserError("vLLM is not installed: pip install 'reft-pl[vllm]', or without a GPU `make vllm`")


class Engine:
    """Runs one architecture; has no weights worth using until ``load``.

    vLLM's state belongs to the process, so there is one engine at a time: a new one closes the former.

    Args:
        config: The model's ``config.json`` as ``transformers`` writes it.
        dtype: Number format of weights and activations, as torch names it without ``torch.``.
        settings: How the engine uses its machine.

    Raises:
        UserError: vLLM is not installed, or cannot run this model here.
    """

    _latest: ClassVar[Engine | None] = None

    def __init__(self, config: Mapping[str, Any], dtype: str, settings: EngineSettings) -> None:
        require_vllm()
        if Engine._latest is not None:
            Engine._latest.close()
        positions = config.get("max_position_embeddings")
        self.max_model_len = min(settings.max_model_len, positions or settings.max_model_len)
        with _environment(), TemporaryDirectory() as folder:
            (Path(folder) / "config.json").write_text(json.dumps(dict(config)), encoding="utf-8")
            try:
                self._engine = _start(folder, dtype, self.max_model_len, settings)
            except Exception as error:
                raise UserError(
                    f"vLLM cannot run models of the kind {config.get('model_type')!r} here ({described(error)})"
                ) from error

        self.closed = False
        Engine._latest = self

    def close(self) -> None:
        """Stop the engine and give its memory back."""
        if not self.closed:
            self.closed = True
            Engine._latest = None
            self._engine.engine_core.shutdown()  # left to the garbage collector, it would stop a later engine as well
            del self._engine

    def load(self, weights: Iterable[tuple[str, Tensor]]) -> str:
        """Replace all weights, and forget what was computed with the former ones.

        Args:
            weights: By the names of the checkpoint format; a weight that is shared by two names, once.

        Returns:
            The digest of the weights that the engine has now, read from the engine.
        """
        self._forget()
        self._engine.collective_rpc("reft_load_weights", args=(iter(weights),))
        (digest,) = self._engine.collective_rpc("reft_weights_digest")
        return str(digest)

    def stream(self, requests: Sequence[SampleRequest]) -> Generator[Completion, None, None]:
        """Yield every completion of every request as soon as it has ended.

        vLLM draws with generators of its own, one a completion, seeded with the request's seed.
        """
        self._forget()  # what was sampled before shall not show, not even in the rounding
        # The worker holds one temperature and one set of suppressed ids, so requests that share both are sampled together.
        groups: dict[tuple[float, tuple[tuple[int, int], ...]], list[SampleRequest]] = {}
        for request in requests:
            groups.setdefault((request.params.temperature, request.params.suppressed), []).append(request)
        for (temperature, suppressed), group in groups.items():
            self._engine.collective_rpc("reft_set_temperature", args=(temperature or 1.0,))
            self._engine.collective_rpc("reft_suppress", args=(suppressed,))
            yield from self._stream(group)

    def _forget(self) -> None:
        """Drop keys and values of former prompts.

        Raises:
            RuntimeError: some are still in use, or the engine is closed.
        """
        if self.closed:
            raise RuntimeError("the engine is closed: another one took its place in this process")
        if not self._engine.reset_prefix_cache():
            raise RuntimeError("vLLM kept keys and values of former prompts")

    def _stream(self, requests: Sequence[SampleRequest]) -> Iterator[Completion]:
        asked: dict[str, tuple[SampleRequest, int]] = {}
        for request in requests:
            for index, seed in enumerate(request.seeds):
                name = str(len(asked))
                self._engine.add_request(name, {"prompt_token_ids": list(request.prompt_ids)}, _params(request, seed))
                asked[name] = request, index
        try:
            while self._engine.has_unfinished_requests():
                for output in self._engine.step():
                    request, index = asked.pop(output.request_id)
                    yield _completion(request, index, output.outputs[0])
        finally:
            if asked:  # whoever reads this stream has left it, or a step failed
                self._engine.abort_request(list(asked))


def _start(folder: str, dtype: str, max_model_len: int, settings: EngineSettings) -> Any:
    """Build the engine for the model whose config stands in ``folder``, with weights that mean nothing."""
    logging.getLogger("vllm").setLevel(logging.ERROR)
    from vllm import EngineArgs  # noqa: PLC0415 (takes seconds, and most runs do without)
    from vllm.v1.engine.llm_engine import LLMEngine  # noqa: PLC0415

    return LLMEngine.from_engine_args(
        EngineArgs(
            model=folder,
            dtype=dtype,  # type: ignore[arg-type, unused-ignore]
            load_format="dummy",
            trust_remote_code=False,  # a config must not bring code
            skip_tokenizer_init=True,
            generation_config="vllm",  # no defaults but ours
            max_model_len=max_model_len,
            max_num_seqs=settings.max_rows,
            # Prompts are read whole: a generator would have to take back what half a prompt drew (on the CPU it cannot).
            enable_chunked_prefill=False,
            max_num_batched_tokens=max(max_model_len, PREFILL_TOKENS, settings.max_rows),
            kv_cache_memory_bytes=int(settings.cache_gib * 2**30),
            enforce_eager=settings.enforce_eager,
            worker_extension_cls="reft_pl.rollout.vllm.worker.WorkerExtension",
            disable_log_stats=True,
        )
    )


def _params(request: SampleRequest, seed: int) -> Any:
    from vllm import SamplingParams as VLLMParams  # noqa: PLC0415
    from vllm.sampling_params import RequestOutputKind  # noqa: PLC0415

    params: SamplingParams = request.params
    return VLLMParams(
        max_tokens=params.max_new_tokens,
        temperature=params.temperature,
        top_k=params.top_k,
        top_p=params.top_p,
        seed=seed % 2**63,
        logprobs=0,  # of the chosen token alone
        ignore_eos=True,  # the model's own: ours are the next
        stop_token_ids=list(request.eos_ids),
        detokenize=False,
        output_kind=RequestOutputKind.FINAL_ONLY,
    )


def _completion(request: SampleRequest, index: int, output: Any) -> Completion:
    tokens = tuple(output.token_ids)
    logprobs = tuple(float(said[token].logprob) for said, token in zip(output.logprobs, tokens, strict=True))
    stop = StopReason.EOS if tokens[-1] in request.eos_ids else StopReason.LENGTH
    return Completion(request.id, index, tokens, logprobs, stop)


@contextmanager
def _environment() -> Iterator[None]:
    """Settings for vLLM, and afterwards what was there before: it preloads libraries, which the sandbox must not get."""
    before = dict(os.environ)
    for name, value in ENVIRONMENT.items():
        os.environ.setdefault(name, value)
    try:
        yield
    finally:
        kept = {name: os.environ[name] for name in os.environ if name.startswith("VLLM_")}  # it reads some of them later
        os.environ.clear()
        os.environ.update(before | kept)
