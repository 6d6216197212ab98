from __future__ import annotations

import pytest

from worker.model_errors import ModelUnavailable
from worker.model_files import Listed, choose


def chosen(names: list[str], pattern: str | None = None, *, projector: bool = False) -> list[str]:
    """The names that are chosen from a listing."""
    files = [Listed(name, 1) for name in names]
    return [file.path for file in choose(files, pattern, projector=projector).files]


GGUFS = [
    "README.md",
    "imatrix.gguf",
    "m-F16.gguf",
    "m-IQ4_XS.gguf",
    "m-Q4_K.gguf",
    "m-Q4_K_M.gguf",
    "mmproj-m-F16.gguf",
    "UD/m-UD-Q4_K_XL-00001-of-00002.gguf",
    "UD/m-UD-Q4_K_XL-00002-of-00002.gguf",
]


@pytest.mark.parametrize(
    ("pattern", "names"),
    [
        (None, ["m-Q4_K_M.gguf"]),
        ("Q4_K_M", ["m-Q4_K_M.gguf"]),
        ("q4_k", ["m-Q4_K.gguf"]),
        ("F16", ["m-F16.gguf"]),
        ("m-F16.gguf", ["m-F16.gguf"]),
        ("*iq4*", ["m-IQ4_XS.gguf"]),
        ("Q4_K_XL", GGUFS[-2:]),
        ("UD-Q4_K_XL", GGUFS[-2:]),
        ("UD/m-UD-Q4_K_XL-00001-of-00002.gguf", GGUFS[-2:]),
    ],
)
def test_exactly_one_quantisation_is_chosen(pattern: str | None, names: list[str]) -> None:
    assert names == chosen(GGUFS, pattern)


def test_the_only_model_needs_no_pattern() -> None:
    assert ["a-Q2_K.gguf"] == chosen(["a-Q2_K.gguf", "mmproj-F16.gguf"])


def test_a_projector_is_chosen_among_projectors() -> None:
    assert ["mmproj-m-F16.gguf"] == chosen(GGUFS, "F16", projector=True)


@pytest.mark.parametrize(
    ("names", "pattern", "text"),
    [
        (
            ["a-Q2_K.gguf", "a-Q3_K.gguf"],
            None,
            "the repository has no model; there is: a-Q2_K.gguf, a-Q3_K.gguf",
        ),
        (
            ["a-Q4_K_M.gguf", "b-Q4_K_M.gguf"],
            None,
            "more than one model of the repository fits; name one after a colon; "
            "there is: a-Q4_K_M.gguf, b-Q4_K_M.gguf",
        ),
        (
            [f"a-{n}.gguf" for n in range(10)],
            "Q9",
            "the repository has no model that matches 'Q9'; there is: "
            "a-0.gguf, a-1.gguf, a-2.gguf, a-3.gguf, a-4.gguf, a-5.gguf, a-6.gguf, a-7.gguf "
            "and 2 more",
        ),
        (["a.bin"], None, "the repository has no .gguf or .safetensors file; there is: a.bin"),
        ([], None, "the repository has no .gguf or .safetensors file; it is empty"),
        (
            ["model.safetensors"],
            "Q4_K_M",
            "the repository has no .gguf model, so 'Q4_K_M' fits nothing; leave it out",
        ),
        (
            ["model-00001-of-00002.safetensors", "model.safetensors.index.json"],
            None,
            "the weights are not complete: model-00002-of-00002.safetensors is missing",
        ),
        (
            ["original/model.safetensors"],
            None,
            "the repository has no weights at its top; there is: original/model.safetensors",
        ),
    ],
)
def test_what_does_not_fit_is_told(names: list[str], pattern: str | None, text: str) -> None:
    with pytest.raises(ModelUnavailable) as caught:
        chosen(names, pattern)

    assert text == str(caught.value)


def test_sharded_weights_come_with_index_and_tokenizer_and_last() -> None:
    names = [
        ".gitattributes",
        "config.json",
        "consolidated.safetensors",
        "modeling.py",
        "model-00001-of-00002.safetensors",
        "model-00002-of-00002.safetensors",
        "model.safetensors.index.json",
        "original/model.safetensors",
        "pytorch_model-00001-of-00002.bin",
        "tokenizer.model",
    ]

    assert [
        "config.json",
        "model.safetensors.index.json",
        "tokenizer.model",
        "model-00001-of-00002.safetensors",
        "model-00002-of-00002.safetensors",
    ] == chosen(names)


def test_one_file_of_weights_is_preferred_to_others_beside_it() -> None:
    assert ["model.safetensors"] == chosen(["model.fp16.safetensors", "model.safetensors"])


@pytest.mark.parametrize("path", ["../a.gguf", "/a.gguf", "x/../../a.gguf", "x\\a.gguf"])
def test_a_path_out_of_the_folder_is_never_chosen(path: str) -> None:
    assert ["b.gguf"] == chosen([path, "b.gguf"])
