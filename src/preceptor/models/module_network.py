"""Network from outside timm, in the interface of timm's networks."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import ExitStack
from typing import Any

from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel

from preceptor.errors import InputError
from preceptor.models.spec import ModuleParts


class ModuleNetwork(nn.Module):
    """Any classifier, in the interface of timm's networks.

    The features are taken inside the forward pass, by a hook on one of the modules.

    Args:
        module: Classifier of images (B, C, H, W).
        parts: Head and features.
        logits: Function that returns the (B, C) logits for the output of `module`; None =
            `logits_in`.
    """

    def __init__(
        self,
        module: nn.Module,
        parts: ModuleParts,
        logits: Callable[[Any], Tensor] | None = None,
    ) -> None:
        super().__init__()
        self.module, self.parts = module, parts
        self.output_fmt = parts.layout.upper()  # as timm's networks name it
        self.num_prefix_tokens = parts.prefix
        self.tap: Callable[[Tensor], Tensor] | None = None
        self.plain_attention = False
        self._logits = logits_in if logits is None else logits
        self._running: ExitStack | None = None
        self._hook()

    def forward_features(self, images: Tensor) -> Tensor:
        """Logits (B, C); `tap` is called with the features, and its result replaces them."""
        if self.module.get_submodule(self.parts.features) is not self._hooked[0]:
            self._hook()  # the module was replaced, as by a synchronized batch norm
        with ExitStack() as stack:
            self._running = stack
            try:
                return self._logits(self.module(images.clone() if self.parts.in_place else images))
            finally:
                self._running = None

    def forward_head(self, logits: Tensor) -> Tensor:
        """The logits."""
        return logits

    def forward(self, images: Tensor) -> Tensor:
        """Logits (B, C)."""
        return self.forward_features(images)

    def get_classifier(self) -> nn.Module | None:
        """The linear classifier, if there is one."""
        return self.module.get_submodule(self.parts.head) if self.parts.head else None

    def remove_hook(self) -> None:
        """Leave `module` as it was."""
        self._handle.remove()

    def _hook(self) -> None:
        part = self.module.get_submodule(self.parts.features)
        self._handle = part.register_forward_hook(self._replace)
        self._hooked = (part,)  # in a tuple: not a submodule a second time

    def _replace(self, _: nn.Module, __: Any, output: Any) -> Any:
        if self._running is None or self.tap is None:  # the module is used without this network
            return None
        if self.plain_attention:  # fused attention has no second derivative
            self._running.enter_context(sdpa_kernel(SDPBackend.MATH))
        if type(output) is tuple:
            return (self.tap(output[0]), *output[1:])
        return self.tap(output)


def logits_in(output: object) -> Tensor:
    """Logits in the output of a classifier: a tensor, or `logits` of an output with names.

    Raises:
        InputError: The output is something else.
    """
    if isinstance(output, Tensor):
        return output
    found = output.get("logits") if isinstance(output, Mapping) else None
    found = getattr(output, "logits", None) if found is None else found
    if isinstance(found, Tensor):
        return found
    if isinstance(output, (tuple, list)) and len(output) == 1 and isinstance(output[0], Tensor):
        return output[0]
    raise InputError(
        f"the network returns {_described(output)}; say which of it are the logits: "
        "logits=lambda output: …"
    )


def _described(output: object) -> str:
    if isinstance(output, Mapping):
        return f"a dictionary with {', '.join(map(str, output)) or 'nothing'}"
    if isinstance(output, (tuple, list)):
        kinds = ", ".join(
            f"a tensor {tuple(one.shape)}" if isinstance(one, Tensor) else type(one).__name__
            for one in output
        )
        return f"a {type(output).__name__} of {kinds or 'nothing'}"
    return f"a {type(output).__name__}"
