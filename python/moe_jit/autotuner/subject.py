"""What is tuned: a call whose tactic measurements may choose."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Sequence
from dataclasses import Field, asdict, dataclass
from typing import Any, ClassVar, Generic, Protocol, TypeVar

from .key import Key


class Tactic(Protocol):
    """What is chosen for speed alone: a frozen dataclass of numbers and strings, which a file can hold."""

    __dataclass_fields__: ClassVar[dict[str, Field[Any]]]

    def __hash__(self) -> int: ...


T = TypeVar("T", bound=Tactic)


@dataclass(frozen=True)
class Subject(Generic[T]):
    """A call, as far as tuning needs to know it.

    Attributes:
        key: calls of one key share measurements.
        num_tokens: of this call; what tactics are measured for, in buckets.
        tune_max_num_tokens: the largest bucket.
        device: one subject of a device is measured at a time.
        candidates: for a number of tokens, the default first. What is measured at a bucket must be among the
            candidates of all numbers of the bucket that it suits.
        is_capturing: whether calls are recorded now, so that nothing can be measured.
    """

    key: Key
    num_tokens: int
    tune_max_num_tokens: int
    device: Hashable
    candidates: Callable[[int], Sequence[T]]
    is_capturing: Callable[[], bool]

    @property
    def default(self) -> T:
        return self.candidates(self.num_tokens)[0]

    def find(self, values: dict[str, Any]) -> T | None:
        """The candidate with these values."""
        return next((t for t in self.candidates(self.num_tokens) if asdict(t) == values), None)

    def default_values(self, num_tokens: int) -> dict[str, Any]:
        return asdict(self.candidates(num_tokens)[0])
