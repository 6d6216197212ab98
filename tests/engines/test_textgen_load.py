"""A load's args as the classic's clients send them, on today's textgen."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from tests.upstream import LOAD_ARGS
from worker.engines.current_launch import Launch
from worker.engines.textgen_load import check, load_args, without_the_classics
from worker.engines.webui import Argument, Checkout, Generation
from worker.errors import InvalidJob


def test_what_upstreams_example_sends_is_kept_where_it_means_something() -> None:
    kept, ignored = without_the_classics(LOAD_ARGS)

    check(kept)
    assert {"bf16", "load_in_8bit", "threads", "no_mmap", "mlock", "n_gpu_layers", "n_ctx"} == set(
        kept
    )
    assert sorted(set(LOAD_ARGS) - set(kept)) == ignored


@pytest.mark.parametrize("loader", ["llama.cpp", "Transformers", "ExLlamav3", ["a"], 1, None])
def test_a_loader_that_textgen_has_or_nobody_knows_is_left(loader: Any) -> None:
    assert ({"loader": loader}, []) == without_the_classics({"loader": loader})


def test_what_the_classic_does_not_know_either_is_still_refused() -> None:
    kept, ignored = without_the_classics({"api_key": "x", "wbits": 4})

    assert ["wbits"] == ignored
    with pytest.raises(InvalidJob, match="args can't set api_key"):
        check(kept)


def make_launch(slots: int) -> Launch:
    checkout = Checkout(Path("/srv"), Generation.CURRENT, {})
    return Launch(
        python=Path("python"),
        checkout=checkout,
        user_data=Path("/srv"),
        model_dir=Path("/srv"),
        model="m.gguf",
        loader="llama.cpp",
        slots=slots,
        arguments=[Argument("--ctx-size", ("8192",))],
        extensions=[],
    )


@pytest.mark.parametrize(
    ("args", "context"),
    [
        ({}, 8192),
        ({"n_ctx": 1024}, 4096),
        ({"max_seq_len": 512}, 2048),
        ({"n_ctx": 0}, 8192),
        ({"ctx_size": 1024}, 1024),
    ],
)
def test_the_classics_n_ctx_is_the_context_of_one_slot(args: dict[str, int], context: int) -> None:
    sent = load_args(args, make_launch(4), "llama.cpp", allow_any=False)

    assert context == sent["ctx_size"]
