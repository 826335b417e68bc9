"""A vLLM engine in this process, with weights that can be replaced in place."""

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
    "VLLM_ENABLE_V1_MULTIPROCESSING": "0",  # weights are passed by reference, and failures arrive as exceptions
    "VLLM_USE_V2_MODEL_RUNNER": "0",  # WorkerExtension patches the sampler of the V1 model runner
    "VLLM_CPU_OMP_THREADS_BIND": "nobind",  # the trainer shares these threads
    "VLLM_NO_USAGE_STATS": "1",
    "VLLM_LOGGING_LEVEL": "ERROR",
    "PYTHONSAFEPATH": "1",  # vLLM inspects models with `python -m`, which would import from the working folder first
}
"""Default environment variables for vLLM; the user's own values take precedence."""


PREFILL_TOKENS = 2048
"""Prompt tokens per forward pass; a longer prompt is prefilled in a separate pass."""


@dataclass(frozen=True)
class EngineSettings:
    """Resource settings of an engine.

    Args:
        max_rows: Maximum number of sequences decoded in one batch.
        max_model_len: Maximum length of a prompt with its completion, in tokens; the model's positions limit it too.
        cache_gib: Size of the KV cache, in GiB.
        enforce_eager: Do not compile the model; starts faster, samples slower.
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
    """Check that vLLM is installed.

    Raises:
        UserError: It is not.
    """
    if importlib.util.find_spec("vllm") is None:
        raise UserError("vLLM is not installed: pip install 'reft-pl[vllm]', or without a GPU `make vllm`")


class Engine:
    """A vLLM engine for one architecture; its weights are meaningless until ``load``.

    vLLM has process-wide state, so a process has one engine at a time: starting an engine closes the previous one.

    Args:
        config: The model's ``config.json`` as ``transformers`` writes it.
        dtype: Dtype of weights and activations by its torch name, such as ``bfloat16``.
        settings: Resource settings.

    Raises:
        UserError: vLLM is not installed, or cannot run this model on this machine.
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
                    f"vLLM cannot run the model type {config.get('model_type')!r} on this machine ({described(error)})"
                ) from error

        self.closed = False
        Engine._latest = self

    def close(self) -> None:
        """Stop the engine and free its memory."""
        if not self.closed:
            self.closed = True
            Engine._latest = None
            self._engine.engine_core.shutdown()  # garbage collection would do this later, and stop the next engine too
            del self._engine

    def load(self, weights: Iterable[tuple[str, Tensor]]) -> str:
        """Replace all weights, and clear the KV cache.

        Args:
            weights: Tensors by their names in the checkpoint format; tied weights appear once.

        Returns:
            The digest of the engine's new weights, computed by the engine.
        """
        self._clear_cache()
        self._engine.collective_rpc("reft_load_weights", args=(iter(weights),))
        (digest,) = self._engine.collective_rpc("reft_weights_digest")
        return str(digest)

    def stream(self, requests: Sequence[SampleRequest]) -> Generator[Completion, None, None]:
        """Yield every completion of every request as soon as it ends.

        vLLM samples each completion with a separate generator, seeded with the seed of the completion.
        """
        self._clear_cache()  # so that earlier requests do not affect this one, not even by rounding
        # The worker has one temperature and one set of suppressed ids, so requests that share both are sampled together.
        groups: dict[tuple[float, tuple[tuple[int, int], ...]], list[SampleRequest]] = {}
        for request in requests:
            groups.setdefault((request.params.temperature, request.params.suppressed), []).append(request)
        for (temperature, suppressed), group in groups.items():
            self._engine.collective_rpc("reft_set_temperature", args=(temperature or 1.0,))
            self._engine.collective_rpc("reft_suppress", args=(suppressed,))
            yield from self._stream(group)

    def _clear_cache(self) -> None:
        """Clear the KV cache of earlier prompts.

        Raises:
            RuntimeError: A part of it is still in use, or the engine is closed.
        """
        if self.closed:
            raise RuntimeError("the engine is closed, because this process started another one")
        if not self._engine.reset_prefix_cache():
            raise RuntimeError("vLLM did not reset its prefix cache, because a part of it is still in use")

    def _stream(self, requests: Sequence[SampleRequest]) -> Iterator[Completion]:
        pending: dict[str, tuple[SampleRequest, int]] = {}
        for request in requests:
            for index, seed in enumerate(request.seeds):
                name = str(len(pending))
                self._engine.add_request(name, {"prompt_token_ids": list(request.prompt_ids)}, _params(request, seed))
                pending[name] = request, index
        try:
            while self._engine.has_unfinished_requests():
                for output in self._engine.step():
                    request, index = pending.pop(output.request_id)
                    yield _completion(request, index, output.outputs[0])
        finally:
            if pending:  # the consumer closed this generator, or a step failed
                self._engine.abort_request(list(pending))


def _start(folder: str, dtype: str, max_model_len: int, settings: EngineSettings) -> Any:
    """Start the engine for the config in ``folder``, with dummy weights."""
    logging.getLogger("vllm").setLevel(logging.ERROR)
    from vllm import EngineArgs  # noqa: PLC0415 (takes seconds, and most runs do not need it)
    from vllm.v1.engine.llm_engine import LLMEngine  # noqa: PLC0415

    return LLMEngine.from_engine_args(
        EngineArgs(
            model=folder,
            dtype=dtype,  # type: ignore[arg-type, unused-ignore]
            load_format="dummy",
            trust_remote_code=False,  # a config must not run code
            skip_tokenizer_init=True,
            generation_config="vllm",  # ignore the model's sampling defaults
            max_model_len=max_model_len,
            max_num_seqs=settings.max_rows,
            # Prefill whole prompts: a partial one would advance the generator, which cannot be rewound on the CPU.
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
        logprobs=0,  # only that of the sampled token
        ignore_eos=True,  # the model's EOS; the request's stop ids follow
        stop_token_ids=list(request.eos_ids),
        detokenize=False,
        output_kind=RequestOutputKind.FINAL_ONLY,
    )


def _completion(request: SampleRequest, index: int, output: Any) -> Completion:
    tokens = tuple(output.token_ids)
    logprobs = tuple(float(entry[token].logprob) for entry, token in zip(output.logprobs, tokens, strict=True))
    stop = StopReason.EOS if tokens[-1] in request.eos_ids else StopReason.LENGTH
    return Completion(request.id, index, tokens, logprobs, stop)


@contextmanager
def _environment() -> Iterator[None]:
    """Set vLLM's environment variables; afterwards, undo all other changes.

    vLLM preloads libraries through the environment, and the sandbox must not inherit them.
    """
    before = dict(os.environ)
    for name, value in ENVIRONMENT.items():
        os.environ.setdefault(name, value)
    try:
        yield
    finally:
        kept = {name: os.environ[name] for name in os.environ if name.startswith("VLLM_")}  # vLLM reads some of them later
        os.environ.clear()
        os.environ.update(before | kept)
