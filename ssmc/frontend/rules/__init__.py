"""Rules that translate one ONNX node: op type -> rule, one table made of one file a subject."""

from ssmc.frontend.rules import elementwise, matrix, reduction, shape, standard
from ssmc.frontend.rules.context import Context, Rule

RULES: dict[str, Rule] = {**elementwise.RULES, **matrix.RULES, **reduction.RULES, **shape.RULES, **standard.RULES}

__all__ = ["RULES", "Context", "Rule"]
