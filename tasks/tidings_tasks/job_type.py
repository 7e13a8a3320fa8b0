"""A job type: a function, the model of its input, and how it is queued, timed and repeated."""

from __future__ import annotations

import asyncio
import inspect
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import datetime
from functools import cached_property, update_wrapper
from typing import TYPE_CHECKING, Any, Generic, NamedTuple, TypeVar, cast

from pydantic import BaseModel, ConfigDict, PydanticSchemaGenerationError, TypeAdapter, ValidationError

from tidings.protocol import JobTypeInfo, RetryPolicy
from tidings.protocol.errors import FieldError, InvalidInput, TidingsError

if TYPE_CHECKING:
    from .context import JobContext, SyncJobContext
    from .flows import Step
    from .queue.queues import QueuePolicy
    from .store import Keyspace, Tenant
    from .store.flow_plan import FlowPlan

__all__ = ["InvalidResult", "JobType", "NoInput", "Timing"]

InputT = TypeVar("InputT", bound=BaseModel)
ResultT = TypeVar("ResultT")

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,127}")
_MAX_FIELD_ERRORS = 50
_LONGEST_S = 366 * 86_400
_MOST = 1_000_000


class InvalidResult(TidingsError, ValueError):
    """A job function returned what its return annotation does not allow, or what is no JSON."""

    code, status, title = "invalid_result", 500, "The job's result is not valid"


class NoInput(BaseModel):
    """The input of a job type whose function takes the context alone."""

    model_config = ConfigDict(extra="forbid")


class Timing(NamedTuple):
    """How a job is timed and repeated: its type's word, else its queue's."""

    timeout_s: float
    max_attempts: int
    backoff_s: tuple[float, ...]


class JobType(Generic[InputT, ResultT]):
    """A registered job type. Made by ``@job``, which says what the options mean; calling it calls the function.

    Args:
        namespace: where annotations that are written as strings are looked up, besides the function's module.

    Raises:
        TypeError: the function does not have the form ``(ctx)`` or ``(ctx, input: Model)``.
        ValueError: a name or a number is out of range.
    """

    def __init__(
        self,
        name: str,
        fn: Callable[..., Any],
        *,
        queue: str,
        timeout_s: float | None = None,
        max_attempts: int | None = None,
        backoff_s: Sequence[float] | None = None,
        process: bool = False,
        concurrency_limit: int = 1,
        dependency: str | None = None,
        expires_s: float | None = None,
        description: str | None = None,
        namespace: Mapping[str, Any] | None = None,
    ) -> None:
        _check_names({"job type": name, "queue": queue, "dependency": dependency})
        _check_numbers(name, timeout_s, max_attempts, backoff_s, concurrency_limit, expires_s)
        self.name = name
        self.fn = fn
        self.queue = queue
        self.timeout_s = None if timeout_s is None else float(timeout_s)
        self.max_attempts = max_attempts
        self.backoff_s = None if backoff_s is None else tuple(float(delay) for delay in backoff_s)
        self.process = process
        self.concurrency_limit = concurrency_limit
        self.dependency = dependency
        self.expires_s = expires_s
        self.description = (inspect.getdoc(fn) or "") if description is None else description
        self.is_async = inspect.iscoroutinefunction(fn)
        if process and self.is_async:
            raise TypeError(f"{name}: process=True is for plain functions; drop it, or the function's async")
        self.takes_input, model, self._result_hint = _read_signature(fn, namespace or {})
        self.input_model = cast("type[InputT]", model)
        update_wrapper(self, fn)

    runs_in_store = False
    """Whether no worker takes such jobs."""

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """Call the function itself; nothing is queued."""
        return self.fn(*args, **kwargs)

    def __repr__(self) -> str:
        return f"JobType({self.name!r}, queue={self.queue!r})"

    def run(self, ctx: JobContext | SyncJobContext, data: InputT) -> Any:
        """Call the function with a validated input; an async one gives its coroutine."""
        return self.fn(ctx, data) if self.takes_input else self.fn(ctx)

    def validate_input(self, data: Any) -> InputT:
        """Return the input as the function gets it. Unknown fields are errors, unless a model sets ``extra`` itself.

        Args:
            data: untrusted; decoded JSON or an instance of the model.

        Raises:
            InvalidInput: with an entry for each field, named like ``input.steps``.
        """
        if isinstance(data, self.input_model):
            return data
        if isinstance(data, BaseModel):
            raise _invalid([FieldError(
                field="input", code="model_type",
                message=f"must be a {self.input_model.__name__} or a dict, not a {type(data).__name__}",
            )])  # fmt: skip
        try:
            return self.input_model.model_validate(data, extra="forbid" if self._forbids_extra else None)
        except ValidationError as error:
            raise _invalid(_field_errors(error)) from error

    def dump_input(self, data: InputT | Mapping[str, Any]) -> Any:
        """Validate an input and return it as JSON-ready data, as the store keeps it: a dict stays as it was given.

        Raises:
            InvalidInput: see ``validate_input``.
        """
        self.validate_input(data)
        if isinstance(data, BaseModel):
            return data.model_dump(mode="json", by_alias=True, round_trip=True)
        return data

    def dump_result(self, value: Any) -> bytes:
        """Encode what the function returned, by its return annotation where it has one.

        Raises:
            InvalidResult: it does not fit the annotation, or is no JSON.
        """
        adapter = self._result_adapter
        try:
            return adapter.dump_json(adapter.validate_python(value))
        except ValidationError as error:
            found = "; ".join(f"{e.field}: {e.message}" for e in _field_errors(error, root="result"))
            raise InvalidResult(f"the result does not fit the return annotation: {found}") from error
        except ValueError as error:  # PydanticSerializationError
            raise InvalidResult(f"the result is no JSON: {error}") from error

    def step(self, input: InputT | Mapping[str, Any] | None = None, **options: Any) -> Step:
        """Make a step of this type for a flow; ``tidings_tasks.flows.Step`` says what the options are."""
        from .flows import Step

        return Step(self.name, input, **options)

    def plan(self, input: Any, tenant: Tenant, keyspace: Keyspace, **options: Any) -> FlowPlan | None:
        """Return the steps that a job of this input is made of, for flows alone; ``FlowJobType`` says more."""
        return None

    def timing(self, policy: QueuePolicy) -> Timing:
        """Return how a job of this type is timed and repeated in a queue with this policy."""
        return Timing(
            policy.timeout_s if self.timeout_s is None else self.timeout_s,
            policy.max_attempts if self.max_attempts is None else self.max_attempts,
            policy.backoff_s if self.backoff_s is None else self.backoff_s,
        )

    def info(self, policies: Mapping[str, QueuePolicy] | None = None) -> JobTypeInfo:
        """Describe the type as ``GET /api/job-types`` does, timed as in its own queue.

        Args:
            policies: of the queues; None: the built-in ones.
        """
        from .queue.queues import BUILT_IN_POLICIES, policy_of

        timing = self.timing(policy_of(BUILT_IN_POLICIES if policies is None else policies, self.queue))
        schema = self.input_model.model_json_schema()
        if self._forbids_extra:
            schema["additionalProperties"] = False
        return JobTypeInfo(
            type=self.name,
            description=self.description,
            queue=self.queue,
            timeout_s=timing.timeout_s,
            retry=RetryPolicy(max_attempts=timing.max_attempts, backoff_s=list(timing.backoff_s)),
            input_schema=schema,
        )

    def submit(
        self,
        input: InputT | Mapping[str, Any] | None = None,
        *,
        owner: str = "system",
        org: str | None = None,
        queue: str | None = None,
        priority: int | None = None,
        run_at: datetime | None = None,
        delay_s: float | None = None,
        tags: Sequence[str] = (),
        metadata: Mapping[str, Any] | None = None,
        idempotency_key: str = "",
        concurrency_key: str = "",
        dedup_key: str = "",
        dedup_ttl_s: float | None = None,
        debounce: bool = False,
        expires_at: datetime | None = None,
        expires_in_s: float | None = None,
    ) -> str:
        """Put a job into its queue and return its id. Blocks on the store; in a coroutine use ``submit_async``.

        Args:
            owner: whose the job is, with ``org``; ``system`` is seen by admins only.
            priority: 1 (first) to 9; None: the queue's own.
            run_at: not before this moment (with a time zone). ``delay_s``: not before so many seconds.
            idempotency_key: a repeat with the same key, owner and content within 24 h returns the first job.
            concurrency_key: of the tenant's jobs with this key, ``concurrency_limit`` of the type run at once.
            dedup_key: while an open job of the owner has this key, or for ``dedup_ttl_s``, its id is returned instead.
                With ``debounce``, which needs a due time, this job takes the place of one that is still scheduled.
            expires_at: not begun by then, the job fails as ``expired``; ``expires_in_s``: so many seconds from now.

        Raises:
            InvalidInput: the input or an argument is not valid.
            IdempotencyConflict: the key was used with another content.
            QueueFull: the queue has no room.
            StoreUnavailable: the store cannot be reached; repeating with an idempotency key is safe.
            SettingsError: no store is configured, see ``tidings_tasks.connect``.
        """
        from .connection import default_submitter

        return default_submitter().submit(
            self, input, owner=owner, org=org, queue=queue, priority=priority, run_at=run_at,
            delay_s=delay_s, tags=tags, metadata=metadata, idempotency_key=idempotency_key,
            concurrency_key=concurrency_key, dedup_key=dedup_key, dedup_ttl_s=dedup_ttl_s, debounce=debounce,
            expires_at=expires_at, expires_in_s=expires_in_s,
        )  # fmt: skip

    async def submit_async(self, input: InputT | Mapping[str, Any] | None = None, **options: Any) -> str:
        """Do what ``submit`` does, with its arguments, without blocking the event loop."""
        return await asyncio.to_thread(self.submit, input, **options)

    def submit_many(
        self,
        inputs: Iterable[InputT | Mapping[str, Any]],
        *,
        owner: str = "system",
        org: str | None = None,
        **options: Any,
    ) -> list[str]:
        """Put up to 1,000 jobs into their queue, all or none, and return their ids in order.

        Takes the arguments of ``submit`` but ``idempotency_key``; they hold for every job. Raises what ``submit`` does.
        """
        from .connection import default_submitter

        return default_submitter().submit_many(self, list(inputs), owner=owner, org=org, **options)

    async def submit_many_async(
        self, inputs: Iterable[InputT | Mapping[str, Any]], **options: Any
    ) -> list[str]:
        """Do what ``submit_many`` does, without blocking the event loop."""
        return await asyncio.to_thread(self.submit_many, list(inputs), **options)

    @cached_property
    def _forbids_extra(self) -> bool:
        # A run-time ``extra`` goes for nested models too, so it would override one that allows more.
        return not _sets_extra(self.input_model.__pydantic_core_schema__)

    @cached_property
    def _result_adapter(self) -> TypeAdapter[Any]:
        return TypeAdapter(self._result_hint)


def _check_names(names: Mapping[str, object]) -> None:
    for what, text in names.items():
        if text is None and what == "dependency":
            continue
        if not isinstance(text, str) or _NAME.fullmatch(text) is None:
            raise ValueError(f"a {what}'s name is made of letters, digits, '.', '_' and '-', not {text!r}")


def _check_numbers(
    name: str,
    timeout_s: float | None,
    max_attempts: int | None,
    backoff_s: Sequence[float] | None,
    concurrency_limit: int,
    expires_s: float | None,
) -> None:
    for what, seconds in (("timeout_s", timeout_s), ("expires_s", expires_s)):
        if seconds is not None and not 0 < seconds <= _LONGEST_S:
            raise ValueError(f"{name}: {what} must be above 0 and at most a year, in seconds")
    if backoff_s is not None and not (
        1 <= len(backoff_s) <= 100 and all(0 <= delay <= _LONGEST_S for delay in backoff_s)
    ):
        raise ValueError(f"{name}: backoff_s must have 1 to 100 delays of at least 0 seconds")
    for what, count in (("max_attempts", max_attempts), ("concurrency_limit", concurrency_limit)):
        if count is not None and not (type(count) is int and 1 <= count <= _MOST):
            raise ValueError(f"{name}: {what} must be a whole number from 1 to {_MOST:,}, not {count!r}")


def _read_signature(
    fn: Callable[..., Any], namespace: Mapping[str, Any]
) -> tuple[bool, type[BaseModel], Any]:
    """Find out whether the function takes an input, its model, and its result's type (``Any`` without one)."""
    where = f"{fn.__module__}.{fn.__qualname__}"
    signature = inspect.signature(fn)
    required = [
        parameter
        for parameter in signature.parameters.values()
        if parameter.default is parameter.empty
        and parameter.kind not in (parameter.VAR_POSITIONAL, parameter.VAR_KEYWORD)
    ]
    if not 1 <= len(required) <= 2 or any(p.kind is p.KEYWORD_ONLY for p in required):
        raise TypeError(f"{where}: a job function has the form (ctx, input: Model) or (ctx)")

    def resolve(hint: Any, what: str) -> Any:
        if not isinstance(hint, str):
            return hint
        try:
            # The author's own annotation, read as typing.get_type_hints does; the context's is left alone,
            # since its module may be imported for type checkers only.
            return eval(hint, {**getattr(fn, "__globals__", {}), **namespace})  # noqa: S307
        except NameError as error:
            raise TypeError(
                f"{where}: the annotation of {what}, {hint!r}, cannot be resolved ({error}); "
                "what it names must be imported when the module runs, not for type checkers only"
            ) from error

    model: Any = NoInput
    if len(required) == 2:
        model = resolve(required[1].annotation, "the input")
        if not (isinstance(model, type) and issubclass(model, BaseModel)):
            raise TypeError(f"{where}: the input must be annotated with a pydantic model")
    hint = signature.return_annotation
    result = Any if hint is signature.empty else resolve(hint, "the result")
    try:
        TypeAdapter(result)
    except PydanticSchemaGenerationError as error:
        raise TypeError(
            f"{where}: the return annotation is nothing pydantic can serialise: {error}"
        ) from error
    return len(required) == 2, model, result


def _sets_extra(schema: Any) -> bool:
    if isinstance(schema, Mapping):
        found = schema.get("cls")
        if (
            schema.get("type") == "model"
            and isinstance(found, type)
            and issubclass(found, BaseModel)
            and "extra" in found.model_config
        ):
            return True
        return any(_sets_extra(value) for value in schema.values())
    if isinstance(schema, list | tuple):
        return any(_sets_extra(value) for value in schema)
    return False


def _field_errors(error: ValidationError, root: str = "input") -> list[FieldError]:
    return [
        FieldError(
            field=".".join([root, *map(str, entry["loc"])]),
            code=entry["type"],
            message=entry["msg"].removeprefix("Value error, "),
        )
        for entry in error.errors(include_url=False, include_input=False, include_context=False)[
            :_MAX_FIELD_ERRORS
        ]
    ]


def _invalid(errors: list[FieldError]) -> InvalidInput:
    first = errors[0]
    more = f" (and {len(errors) - 1} more)" if len(errors) > 1 else ""
    return InvalidInput(f"{first.field}: {first.message}{more}", errors=errors)
