"""A trained model's encoder as a Keras layer: texts in, vectors out, to be reused and fine-tuned."""

from __future__ import annotations

import os

import keras
import tensorflow as tf

from zoo.model_directory import load_model
from zoo.models import TaskModel


class TextEncoder(keras.layers.Layer):
    """Texts, string [batch], as vectors [batch, units], by what a model of the zoo has learned.

    What the vector is, each task says: of a classifier what its output layer reads, of a language model the
    last output, of a reader what it makes of a question, of others the mean of all outputs. The weights of
    the encoder are trained along with the model around it, unless `trainable` is set to False.

    Args:
        model: of any task.
    """

    def __init__(self, model: TaskModel, **kwargs):
        super().__init__(**{"name": "text_encoder", **kwargs})
        self.units = model.encoding_size
        self.encoder_layers, self.tables = model.encoder_layers(), model.tables()
        self.encode, self.vector_dtype = model.encode, model.variable_dtype
        self.built = True

    @classmethod
    def from_model_dir(cls, model_dir: str | os.PathLike, **kwargs) -> TextEncoder:
        """The encoder of a directory that zoo-train wrote.

        Raises:
            ModelDirectoryError: a file is missing or damaged.
        """
        return cls(load_model(model_dir), **kwargs)

    def call(self, text, training=False):
        return self.encode(tf.convert_to_tensor(text), training=training)

    def compute_output_spec(self, text, training=False):
        return keras.KerasTensor((text.shape[0], self.units), dtype=self.vector_dtype)
