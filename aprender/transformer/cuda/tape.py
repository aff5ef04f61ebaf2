"""How stages are called: plainly, or with what their backward passes need kept on a tape."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Protocol

from torch import Tensor

from aprender.errors import AprenderError
from aprender.faults import located
from aprender.transformer.cuda.ops import Saved


class Run(Protocol):
    """Call a stage by name."""

    def __call__(self, name: str, *inputs: Any) -> Any:
        """Return the stage's output."""


class Back(Protocol):
    """Run a stage's backward pass by name."""

    def __call__(self, name: str, d_output: Any) -> tuple[Tensor, ...]:
        """Return the gradients of the stage's floating-point inputs."""


def calling(owner: object, prefix: str = "") -> Run:
    """Call the stages of ``owner``, a model or a block, and save nothing; ``prefix`` stands before its names."""

    def run(name: str, *inputs: Any) -> Any:
        return _told(f"stage {prefix}{name}", getattr(owner, name), *inputs)

    return run


class Tape:
    """One pass with gradients: what each stage saved, until its backward pass has run, and its parameters' gradients.

    ``prefix`` stands before an owner's names: ``layers.3.``. What a stage's GPU fails at says which stage it was.
    """

    def __init__(self) -> None:
        self.gradients: dict[str, Tensor] = {}
        self._saved: dict[str, Saved] = {}

    def forward(self, owner: object, prefix: str = "") -> Run:
        """Call the stages of ``owner`` and save. Raises AprenderError for a stage that has no backward pass."""

        def run(name: str, *inputs: Any) -> Any:
            stage = getattr(owner, name)
            if not (hasattr(stage, "forward") and hasattr(stage, "backward")):
                raise AprenderError(
                    f"stage {prefix}{name} was replaced by one without forward and backward ({stage!r}): "
                    "gradients need a stage that has both"
                )
            output, self._saved[prefix + name] = _told(f"stage {prefix}{name}", stage.forward, *inputs)
            return output

        return run

    def backward(self, owner: object, prefix: str = "") -> Back:
        """Run the backward passes of the stages of ``owner``; what they saved is let go."""

        def back(name: str, d_output: Any) -> tuple[Tensor, ...]:
            stage = getattr(owner, name)
            saved = self._saved.pop(prefix + name)
            inputs, parameters = _told(f"stage {prefix}{name}, backward", stage.backward, saved, d_output)
            self.gradients |= {f"{prefix}{name}.{field}": gradient for field, gradient in parameters.items()}
            return inputs  # type: ignore[no-any-return]

        return back


def _told(where: str, compute: Callable[..., Any], *inputs: Any) -> Any:
    """``compute(*inputs)``; what the device fails at says ``where``."""
    try:
        return compute(*inputs)
    except Exception as error:
        if fault := located(error, where):
            raise fault from error
        raise
