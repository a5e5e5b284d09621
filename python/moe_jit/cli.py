"""The ``moe-jit`` command: demo, warmup, cache and doctor."""

from __future__ import annotations

import os
import platform
import shutil
from collections.abc import Callable
from datetime import datetime

import typer
from rich.console import Console
from rich.table import Column, Table
from rich.text import Text

from . import backends, jit, plan
from .enums import RoutingMethodType
from .jit import resources, toolchain
from .jit.spec import HOPPER
from .jit.target import SUPPORTED_GPUS, target_of_capability
from .problem import Device, MoEProblem

app = typer.Typer(help="JIT-compiled mixture-of-experts kernels.", no_args_is_help=True, add_completion=False)
cache = typer.Typer(help="The cache of compiled modules.", no_args_is_help=True)
app.add_typer(cache, name="cache")

_console = Console()


def _size(count: float) -> str:
    return f"{count / 1e6:.2f} MB"


@cache.command("list")
def list_modules() -> None:
    """List the compiled modules, prebuilt ones first."""
    table = Table("module", "target", "size", "built", "compile time", "where", box=None)
    for origin, store in _stores():
        for entry in store.entries("modules"):
            facts = entry.manifest
            created = datetime.fromtimestamp(facts["created"]).strftime("%Y-%m-%d %H:%M")
            seconds = f"{facts['build_seconds']:.1f} s"
            table.add_row(facts["name"], facts["target"], _size(facts["size"]), created, seconds, origin)
    _console.print(table)


@cache.command()
def size() -> None:
    """Print what each directory holds."""
    for origin, store in _stores():
        counts = [f"{sum(1 for _ in store.entries(kind))} {kind}" for kind in ("modules", "objects")]
        _console.print(
            f"{origin}: {_size(store.size())} in {store.root} ({', '.join(counts)})", soft_wrap=True
        )


@cache.command()
def clear() -> None:
    """Remove every compiled module and object of the user's cache; prebuilt directories stay."""
    store = jit.user_store()
    freed = store.size()
    store.clear()
    _console.print(f"removed {_size(freed)} from {store.root}", soft_wrap=True)


def _stores() -> list[tuple[str, jit.Store]]:
    return [*(("prebuilt", store) for store in jit.prebuilt_stores()), ("cache", jit.user_store())]


@app.command()
def doctor() -> None:
    """Report GPU, driver, compilers, headers and cache, and what a first call would compile."""
    table = Table.grid("", Column(overflow="fold"), padding=(0, 2))
    for name, probe in _PROBES.items():
        try:
            text = Text(probe())
        except (toolchain.ToolchainError, OSError) as error:
            text = Text(str(error), style="red")
        table.add_row(Text(name, style="bold"), text)
    for spec in _first_specs():
        table.add_row(Text(spec.name, style="bold"), _state_text(jit.describe(spec)))
    _console.print(table)


def _gpu() -> str:
    import torch

    if not torch.cuda.is_available():
        return "none that torch can use: calls run on the CPU"
    lines = []
    for index in range(torch.cuda.device_count()):
        facts = torch.cuda.get_device_properties(index)
        known = target_of_capability((facts.major, facts.minor)) is not None
        fit = "supported" if known else f"not supported ({SUPPORTED_GPUS} is)"
        lines.append(f"{facts.name}, compute capability {facts.major}.{facts.minor}: {fit}")
    return "\n".join(lines)


def _driver() -> str:
    if not shutil.which("nvidia-smi"):
        return "nvidia-smi is not in PATH"
    return toolchain.output_of(["nvidia-smi", "--query-gpu=driver_version", "--format=csv,noheader"]).split(
        "\n"
    )[0]


def _python() -> str:
    import torch

    return f"{platform.python_version()}, torch {torch.__version__}, tvm-ffi {toolchain.tvm_ffi_version()}"


def _compiler_text(compiler: toolchain.Compiler) -> str:
    return f"{'.'.join(map(str, compiler.version))} ({compiler.path})"


def _cutlass() -> str:
    found = toolchain.find_cutlass()
    return f"{found.version} ({found.include})"


def _bisheng() -> str:
    if not os.environ.get("ASCEND_HOME_PATH", "").strip():
        return "ASCEND_HOME_PATH is not set: no modules for NPUs"
    return _compiler_text(toolchain.find_bisheng())


def _cache() -> str:
    store = jit.user_store()
    access = "writable" if store.is_writable() else "not writable: modules are compiled again in each process"
    modules = sum(1 for _ in store.entries("modules"))
    lines = [f"{store.root}: {modules} modules, {_size(store.size())}, {access}"]
    return "\n".join(lines + [f"prebuilt: {prebuilt.root}" for prebuilt in jit.prebuilt_stores()])


def _limits() -> str:
    memory = resources.available_memory() / resources.GIB
    return f"{resources.available_cores()} cores, {memory:.1f} GiB of free memory"


_PROBES: dict[str, Callable[[], str]] = {
    "GPU": _gpu,
    "driver": _driver,
    "Python": _python,
    "C++ compiler": lambda: _compiler_text(toolchain.find_host_compiler()),
    "nvcc": lambda: _compiler_text(toolchain.find_nvcc()),
    "CUTLASS": _cutlass,
    "bisheng": _bisheng,
    "cache": _cache,
    "limits": _limits,
}


def _state_text(state: jit.ModuleState) -> Text:
    if state.problem:
        return Text(state.problem, style="red")
    if state.origin == "to build":
        missing = ", ".join(state.missing_units) or "only the link is left"
        return Text(f"to be compiled for {state.spec.target}: {missing}")
    return Text(f"ready ({state.origin}: {state.path})")


def _first_specs() -> list[jit.ModuleSpec]:
    """The modules of a typical decode call (the shape of DeepSeek-V3) on each backend."""
    problem = MoEProblem(
        num_tokens=16,
        hidden_size=7168,
        intermediate_size=2048,
        num_experts=256,
        num_local_experts=256,
        top_k=8,
        n_group=8,
        topk_group=4,
        routing_method=RoutingMethodType.DeepSeekV3,
        device=Device("cuda", target=HOPPER),
    )
    return [plan.plan(problem).module, backends.CPU_MODULE]


def main() -> None:
    """Entry point of the ``moe-jit`` program."""
    from .demo import demo
    from .warmup import command

    app.command()(demo)
    app.command("warmup")(command.command)
    app()
