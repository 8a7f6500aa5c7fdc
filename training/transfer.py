"""Starting from what another model has learned: its vocabulary, and weights of the same names."""

from __future__ import annotations

from serving.program import UserError
from zoo.models import TaskModel


def start_from(model: TaskModel, source: TaskModel, name: str) -> list[str]:
    """Give a model the weights of a trained one that have the same path in it; their paths.

    Those of the output, the first of its `layer_groups`, are its own where they are of another shape.

    Raises:
        UserError: another weight is of another shape there, or there is none of the same path.
    """
    trained = {variable.path: variable for variable in source.variables}
    output = {variable.path for variable in model.layer_groups()[0]}
    taken = []
    for variable in model.trainable_variables:
        if variable.path not in trained:
            continue
        here, there = tuple(variable.shape), tuple(trained[variable.path].shape)
        if here == there:
            variable.assign(trained[variable.path])
            taken.append(variable.path)
        elif variable.path not in output:
            raise UserError(
                f"--initialize_from={name}: its {variable.path} has the shape {there}, here it is {here}; "
                "cell, units, embedding_size and layers have to be the same"
            )
    if not taken:
        raise UserError(f"--initialize_from={name}: no weight there has the name of one here")
    return taken
