"""One generation of the blocking API on a backend: fit the prompt, generate, keep to the stops."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from contextlib import aclosing
from dataclasses import dataclass

from worker.contract.chat_prompt import trim_stop
from worker.contract.parameters import Parameters
from worker.engines.backend import Backend, Completion
from worker.errors import EngineBroken, InvalidJob, TooLarge
from worker.output import MAX_OUTPUT_BYTES
from worker.progress import Progress
from worker.slots import Stop

OnText = Callable[[str], Awaitable[None]]

# No tokenizer makes more tokens than bytes, but for a few of its own around the text.
_OWN_TOKENS = 8


@dataclass(frozen=True, slots=True)
class Room:
    """How many tokens a prompt may have (`prompt`) within the whole (`total`)."""

    total: int
    prompt: int


def room(parameters: Parameters, context_length: int) -> Room:
    """The room for a prompt: what is truncated to, less what is to be generated.

    The blocking API's default of 2048 tokens shrinks to a smaller context; what a caller asks for
    is kept. Raises InvalidJob when nothing is left for the prompt.
    """
    total = parameters.truncation_length
    if "truncation_length" not in parameters.given:
        total = min(total, context_length)
    prompt = total - max(1, parameters.max_new_tokens)
    if prompt < 1:
        raise InvalidJob(
            f"max_new_tokens ({parameters.max_new_tokens}) leaves no room for a prompt in "
            f"truncation_length ({total}); lower the one or raise the other"
        )
    return Room(total, prompt)


async def fit_prompt(
    backend: Backend, prompt: str, parameters: Parameters, stop: Sequence[str]
) -> Completion:
    """Cut a prompt on its left to the room there is, as the blocking API does.

    Raises InvalidJob, with both lengths, for one that the caller wants longer than the context.
    """
    space = room(parameters, backend.context_length)
    most = min(space.prompt, backend.context_length - 1)
    short = len(prompt.encode("utf-8", "surrogatepass")) + _OWN_TOKENS <= most
    if short and parameters.add_bos_token and not parameters.auto_max_new_tokens:
        return Completion(prompt, parameters.max_new_tokens, parameters, stop)
    tokens = await backend.tokenize(prompt, add_bos=parameters.add_bos_token)
    tokens = tokens[-space.prompt :]
    if len(tokens) >= backend.context_length:
        raise InvalidJob(
            f"the prompt has {len(tokens)} tokens and the context holds "
            f"{backend.context_length}; shorten the prompt or lower truncation_length"
        )
    max_tokens = parameters.max_new_tokens
    if parameters.auto_max_new_tokens:
        max_tokens = space.total - len(tokens)
    return Completion(tokens, max_tokens, parameters, stop)


async def generate(
    backend: Backend,
    completion: Completion,
    *,
    stop: Stop,
    progress: Progress,
    on_text: OnText | None,
) -> str:
    """Generate and return the text, without a stopping string or the beginning of one.

    on_text: gets the text so far whenever there is more of it.
    """
    text = kept = ""
    try:
        async with aclosing(backend.complete(completion, stop)) as pieces:
            async for piece in pieces:
                progress.token()
                progress.tokens(piece.completion_tokens)
                text += piece.text
                if len(text) > MAX_OUTPUT_BYTES:
                    raise TooLarge(f"the answer is over {MAX_OUTPUT_BYTES} bytes; ask for less")
                kept, ended = _without_stop(text, completion.stop, len(piece.text))
                if on_text is not None and piece.text:
                    await on_text(kept)
                if ended:
                    break
    except EngineBroken as error:
        error.detail = error.detail or {"partial": kept}
        raise
    return kept


def _without_stop(text: str, stop: Sequence[str], new: int) -> tuple[str, bool]:
    """Trim the end of a text, and say whether it has come to a stopping string.

    Only the last `new` characters, and as much before them as a stopping string can reach, have
    not been looked at before.
    """
    if not stop:
        return text, False
    reach = new + max(len(string) for string in stop)
    trimmed, ended = trim_stop(text[-reach:], stop)
    return text[:-reach] + trimmed, ended
