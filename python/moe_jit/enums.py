"""Identifiers shared by the Python API, the native modules and the tests.

The numbers are those of the documented FlashInfer contract for
``trtllm_fp8_per_tensor_scale_moe`` (the docstring of FlashInfer 0.6.13). Later FlashInfer releases
renumbered two of them; ``parse`` says how such a number is treated here.
"""

from __future__ import annotations

from enum import IntEnum


def _parse_id(value: object, name: str) -> int:
    if isinstance(value, bool) or not isinstance(value, int):
        raise TypeError(f"{name} must be an int, got {type(value).__name__}")
    return int(value)


class RoutingMethodType(IntEnum):
    """How experts are chosen and weighted; x is the logit, s = sigmoid(x), b the bias, f the scaling factor.

    Every stored weight is rounded to bfloat16 once; sums run over the selected experts.
    """

    Default = 0
    """Key and weight: softmax over all experts."""
    Renormalize = 1
    """Key x; weight: softmax over the selected x."""
    DeepSeekV3 = 2
    """Key s + b, limited to the best topk_group groups when n_group > 1; weight s * f / (sum s + 1e-20)."""
    Llama4 = 3
    """top_k = 1, key x; weight sigmoid(x)."""
    RenormalizeNaive = 4
    """Same as Renormalize: "softmax, top-k, renormalise" is exactly a softmax over the selected x."""
    TopK = 5
    """Key x; weight x."""
    SigmoidRenorm = 6
    """Key s; weight s / max(sum s, 1e-20), or s when norm_topk_prob is false."""
    MiniMax2 = 7
    """DeepSeekV3 without groups."""
    Sigmoid = 8
    """Key s; weight s."""
    Unspecified = 9
    """Never valid. FlashInfer 0.6.18 and later give 9 to TopKSigmoid, which is 10 here."""
    TopKSigmoid = 10
    """Key x; weight s. An extension to the documented list."""

    @classmethod
    def parse(cls, value: int) -> RoutingMethodType:
        """Return the method for ``value``.

        Raises TypeError when ``value`` is not an int, ValueError when no routing method has that number.
        """
        number = _parse_id(value, "routing_method_type")
        if number == cls.Unspecified:
            raise ValueError(
                "routing_method_type 9 = Unspecified here; newer FlashInfer (0.6.18 and later) uses 9 for "
                "TopKSigmoid - pass 10 for TopKSigmoid"
            )
        try:
            return cls(number)
        except ValueError:
            known = ", ".join(f"{m.value} ({m.name})" for m in cls if m is not cls.Unspecified)
            raise ValueError(f"routing_method_type must be one of {known}; got {number}") from None

    @property
    def uses_bias(self) -> bool:
        """Whether routing_bias takes part in the selection."""
        return self in (RoutingMethodType.DeepSeekV3, RoutingMethodType.MiniMax2)


class ActivationType(IntEnum):
    """Function between the two matrix products; z is the scaled accumulator, phi the exact normal CDF."""

    Gelu = 0
    """z * phi(z)."""
    Swiglu = 3
    """up * gate * sigmoid(gate)."""
    Geglu = 4
    """up * gate * phi(gate)."""
    Relu2 = 6
    """max(0, z) ** 2."""
    Identity = 7
    """z. FlashInfer 0.6.14 and later number it 9, which ``parse`` accepts."""

    @classmethod
    def parse(cls, value: int) -> ActivationType:
        """Return the activation for ``value``; 9 means Identity as in newer FlashInfer.

        Raises TypeError when ``value`` is not an int, ValueError when no activation has that number.
        """
        number = _parse_id(value, "activation_type")
        if number == 9:
            return cls.Identity
        try:
            return cls(number)
        except ValueError:
            known = ", ".join(f"{a.value} ({a.name})" for a in cls)
            raise ValueError(
                f"activation_type must be one of {known} or 9 (Identity in newer FlashInfer); got {number}"
            ) from None

    @property
    def is_gated(self) -> bool:
        """Whether gemm1 has 2 * intermediate_size rows: a linear (up) half and a gate half."""
        return self in (ActivationType.Swiglu, ActivationType.Geglu)


class WeightLayout(IntEnum):
    """Order of the rows of gemm1_weights and gemm2_weights; columns are always plain row-major.

    For gemm2_weights, and for gemm1_weights of an activation that is not gated, the two plain layouts
    are the same.
    """

    Shuffled = 0
    """FlashInfer's order: up and gate rows interleaved, then each block of 32 rows shuffled."""
    W3W1 = 1
    """Plain [up; gate]."""
    W1W3 = 2
    """Plain [gate; up], the order of gate_up_proj in checkpoints."""

    @classmethod
    def parse(
        cls, value: str | WeightLayout, argument: str = "weight_layout", *, plain: bool = False
    ) -> WeightLayout:
        """Return the layout for its public name: "shuffled", "w3_w1" or "w1_w3" (or the enum itself).

        Raises TypeError when ``value`` is neither, ValueError when the name is unknown or, if ``plain``, when
        it is that of the shuffled layout. The message names ``argument``.
        """
        if not isinstance(value, (str, cls)):
            raise TypeError(f"{argument} must be a str, got {type(value).__name__}")
        allowed = [layout for layout in cls if not plain or layout is not cls.Shuffled]
        for layout in allowed:
            if value is layout or value == layout.public_name:
                return layout
        known = ", ".join(repr(layout.public_name) for layout in allowed)
        raise ValueError(f"{argument} must be one of {known}; got {cls.name_of(value)!r}")

    @property
    def public_name(self) -> str:
        """The name used by the weight_layout argument."""
        return {0: "shuffled", 1: "w3_w1", 2: "w1_w3"}[self.value]

    @classmethod
    def name_of(cls, value: str | WeightLayout) -> str:
        """The public name of either form of the weight_layout argument."""
        return value.public_name if isinstance(value, cls) else str(value)
