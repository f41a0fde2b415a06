"""Array shapes in annotations, without a dependency at run time.

Annotations such as ``Float[Tensor, "*samples classes"]`` state shapes with jaxtyping's grammar. jaxtyping is a
test dependency: outside the type checker and the tests (which set ``SAFESTEP_CHECK_SHAPES``) the annotation is
the plain array type.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING or os.environ.get("SAFESTEP_CHECK_SHAPES"):
    from jaxtyping import Bool, Float, Int
else:

    class _PlainArray:
        def __class_getitem__(cls, item: tuple[Any, str]) -> Any:
            return item[0]

    Bool = Float = Int = _PlainArray

__all__ = ["Bool", "Float", "Int"]
