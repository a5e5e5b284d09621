"""The tactic for a call: measured in this process, else loaded from a file, else the analytical default."""

from __future__ import annotations

import sys
from dataclasses import asdict
from typing import NamedTuple

import torch

from ..plan import Tactic, candidates, default_tactic
from ..problem import MoEProblem
from . import flashinfer, state
from .key import Key, key_of
from .state import RunnerFactory, Session, is_current


class Choice(NamedTuple):
    """``generation`` is that of the state it was made from: it stands until ``generation()`` differs."""

    tactic: Tactic
    generation: int


def generation() -> int:
    """A number that changes whenever choices made before may be outdated. Cheap enough for every call."""
    if flashinfer.MODULE in sys.modules:
        state.STATE.follow_flashinfer()
    return state.STATE.generation


def choose(problem: MoEProblem, make_runner: RunnerFactory) -> Choice:
    """The tactic for a call. Inside an ``autotune`` context, a layer shape new to it is measured first.

    ``make_runner(skew)`` is called only then. During a CUDA-graph capture nothing is measured.
    """
    default = default_tactic(problem)
    session = state.STATE.session()
    if problem.device.kind == "cpu":
        current = generation()
        if session is not None:
            state.STATE.report_once("cpu", "autotune: the CPU has one tactic, there is nothing to tune")
        return Choice(default, current)
    state.STATE.load_default_file()
    key = key_of(problem)
    capturing = torch.cuda.is_current_stream_capturing()
    if session is not None and not capturing:
        state.STATE.tune(key, problem, session, make_runner)
    current = generation()
    tactic = lookup(key, problem)
    if tactic is None:
        _report_miss(key, problem, session, capturing)
        return Choice(default, state.STALE if capturing and session is not None else current)
    return Choice(tactic, current)


def lookup(key: Key, problem: MoEProblem) -> Tactic | None:
    """The tactic that measurements recommend; None without a measurement that applies.

    If the default of the bucket was not beaten, it is the default for this number of tokens. A measurement
    of a tactic that is no candidate for this number says nothing.
    """
    known = state.STATE
    found = known.table.find(key, problem.num_tokens) or known.loaded.find(key, problem.num_tokens)
    if found is None or not is_current(problem, *found):
        return None
    measured = found[1]
    if measured.tactic == measured.default:
        return default_tactic(problem)
    return next((t for t in candidates(problem) if asdict(t) == measured.tactic), default_tactic(problem))


def _report_miss(key: Key, problem: MoEProblem, session: Session | None, capturing: bool) -> None:
    if capturing and session is not None:
        state.STATE.report_once(
            (key, "capture"),
            "autotune: %s is not tuned, and cannot be inside a CUDA-graph capture: the default tactic is "
            "captured. Make one call in the context before the capture.",
            key,
        )
    elif state.STATE.known(key):
        state.STATE.report_once(
            (key, "bucket"),
            "autotune: %s is tuned, but not for %d tokens: the default tactic is used",
            key,
            problem.num_tokens,
        )
