"""Which child the embedded engine starts: settings, models, LoRAs and a job's wishes -> options."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from worker.engines.cores import usable_cores
from worker.engines.llama_child import N_BATCH, Options
from worker.engines.loras import find_loras
from worker.models import Catalog, gguf_file
from worker.settings import Settings


@dataclass(frozen=True, slots=True)
class Load:
    """A model by name, with the names of its LoRAs.

    args: n_ctx, threads and n_gpu_layers in place of the settings'.
    """

    model: str
    args: Mapping[str, int] = field(default_factory=dict)
    loras: tuple[str, ...] = ()


class EmbeddedLaunch:
    """What can be loaded, and how the child is told; raises SettingsError for what can't be so."""

    def __init__(self, settings: Settings, catalog: Catalog) -> None:
        self._settings = settings
        self._catalog = catalog
        self._known_loras = find_loras(settings.lora, settings.loras_dir)
        self._known_loras.check_start(gguf=True)
        mmproj = settings.model_mmproj
        self._mmproj = mmproj and str(gguf_file(mmproj, "MODEL_MMPROJ"))

    @property
    def model_path(self) -> Path:
        """The file of the model that it is started with."""
        return self._catalog.resolve(self._catalog.default)

    def model_names(self) -> list[str]:
        """Return the names of the models that can be loaded."""
        return self._catalog.names()

    def lora_names(self) -> list[str]:
        """Return the names of the LoRAs that can be loaded."""
        return sorted(self._known_loras.known(gguf=True))

    def start_loras(self, name: str) -> tuple[str, ...]:
        """The LoRAs that a model has unless a load says otherwise: those of LORA are MODEL's."""
        return self._known_loras.start if name == self._catalog.default else ()

    def load(
        self,
        name: str | None = None,
        args: Mapping[str, int] | None = None,
        loras: Sequence[str] | None = None,
    ) -> Load:
        """A load with what is not said (None) filled in: MODEL, the settings, the model's LoRAs.

        Raises UnknownRoute for a name of a model or LoRA that there is not.
        """
        name = self._catalog.default if name is None else name
        names = self.start_loras(name) if loras is None else tuple(loras)
        self._catalog.resolve(name)
        self._known_loras.paths(names, gguf=True)
        return Load(name, args or {}, names)

    def options(self, load: Load) -> Options:
        """The child's options."""
        paths = self._known_loras.paths(load.loras, gguf=True)
        return Options(
            model=str(self._catalog.resolve(load.model)),
            name=load.model,
            port=self._settings.engine_port,
            slots=self._settings.engine_slots,
            context=load.args.get("n_ctx", self._settings.engine_context),
            threads=load.args.get("threads") or self._settings.engine_threads or usable_cores(),
            gpu_layers=load.args.get("n_gpu_layers", self._settings.engine_gpu_layers),
            loras=tuple(map(str, paths)),
            mmproj=self._mmproj if load.model == self._catalog.default else "",
        )

    def describe(self, load: Load, *, model: str | None, context: int) -> dict[str, Any]:
        """Tell what is true of the engine under the keys of the blocking API's `shared.args`.

        model, context: what is loaded (None: nothing), and how many tokens a slot has.
        """
        options = self.options(load)
        return {
            "api": True,
            "api_blocking_port": options.port,
            "cpu": options.gpu_layers == 0,
            "listen": False,
            "loader": "llama.cpp",
            "mlock": False,
            "model": model,
            "model_dir": self._model_dir(model or self._catalog.default),
            "n_batch": N_BATCH,
            "n_ctx": context,
            "n_gpu_layers": options.gpu_layers,
            "no_mmap": False,
            "threads": options.threads,
        }

    def _model_dir(self, name: str) -> str:
        """Name the model's folder, by its last part only."""
        folder = self._settings.models_dir or self._catalog.resolve(name).parent
        return f"{folder.name}/"
