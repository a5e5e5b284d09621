"""The tactic for a call: measured in this process, else loaded from a file, else the analytical default."""

from __future__ import annotations

import sys
from dataclasses import dataclass, replace
from typing import Generic

import torch

from ..plan import Tactic, candidates, default_tactic
from ..problem import MoEProblem
from . import flashinfer, state
from .key import key_of
from .state import RunnerFactory, Session, is_current
from .subject import Subject, T


@dataclass(frozen=True)
class Choice(Generic[T]):
    """``generation`` is that of the state it was made from: it stands until ``generation()`` differs."""

    tactic: T
    generation: int


def generation() -> int:
    """A number that changes whenever choices made before may be outdated. Cheap enough for every call."""
    if flashinfer.MODULE in sys.modules:
        state.STATE.follow_flashinfer()
    return state.STATE.generation


def choose(problem: MoEProblem, make_runner: RunnerFactory[Tactic]) -> Choice[Tactic]:
    """The tactic for a call of the FP8 layer, see ``tuned``."""
    if problem.device.kind == "cpu":
        current = generation()
        if state.STATE.session() is not None:
            state.STATE.report_once("cpu", "autotune: the CPU has one tactic, there is nothing to tune")
        return Choice(default_tactic(problem), current)
    subject = Subject(
        key=key_of(problem),
        num_tokens=problem.num_tokens,
        tune_max_num_tokens=problem.tune_max_num_tokens,
        device=problem.device.index,
        candidates=lambda num_tokens: candidates(replace(problem, num_tokens=num_tokens)),
        is_capturing=torch.cuda.is_current_stream_capturing,
    )
    return tuned(subject, make_runner)


def tuned(subject: Subject[T], make_runner: RunnerFactory[T]) -> Choice[T]:
    """The tactic for a call. Inside an ``autotune`` context, a layer shape new to it is measured first.

    ``make_runner(skew)`` is called only then. During a graph capture nothing is measured.
    """
    session = state.STATE.session()
    state.STATE.load_default_file()
    capturing = subject.is_capturing()
    if session is not None and not capturing:
        state.STATE.tune(subject, session, make_runner)
    current = generation()
    tactic = lookup(subject)
    if tactic is None:
        _report_miss(subject, session, capturing)
        return Choice(subject.default, state.STALE if capturing and session is not None else current)
    return Choice(tactic, current)


def lookup(subject: Subject[T]) -> T | None:
    """The tactic that measurements recommend; None without a measurement that applies.

    If the default of the bucket was not beaten, it is the default for this number of tokens. A measurement
    of a tactic that is no candidate for this number says nothing.
    """
    known, key = state.STATE, subject.key
    found = known.table.find(key, subject.num_tokens) or known.loaded.find(key, subject.num_tokens)
    if found is None or not is_current(subject, *found):
        return None
    measured = found[1]
    if measured.tactic == measured.default:
        return subject.default
    return subject.find(measured.tactic) or subject.default


def _report_miss(subject: Subject[T], session: Session | None, capturing: bool) -> None:
    key = subject.key
    if capturing and session is not None:
        state.STATE.report_once(
            (key, "capture"),
            "autotune: %s is not tuned, and cannot be inside a graph capture: the default tactic is "
            "captured. Make one call in the context before the capture.",
            key,
        )
    elif state.STATE.known(key):
        state.STATE.report_once(
            (key, "bucket"),
            "autotune: %s is tuned, but not for %d tokens: the default tactic is used",
            key,
            subject.num_tokens,
        )
