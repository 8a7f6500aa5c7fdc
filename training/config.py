"""One training run's configuration: a frozen dataclass, every field of it a flag (training.config_flags)."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import keras

from serving.program import UserError
from training.layer_options import check_options
from training.presets import PRESETS
from training.task_defaults import MODEL_DEFAULTS, TASK_DEFAULTS
from zoo.attention import ATTENTIONS
from zoo.cells import CELLS
from zoo.heads import HEADS
from zoo.models import KINDS, TASKS
from zoo.models.stack_options import INPUT_LAYERS
from zoo.ngram import MAX_ORDER
from zoo.pooling import POOLINGS
from zoo.skips import SKIPS
from zoo.snm.skipgrams import MAX_SKIPS
from zoo.text import TOKENIZERS


def _field(
    default: Any,
    help_text: str,
    choices: Any = None,
    at_least: float | None = None,
    below: float | None = None,
) -> Any:
    metadata = {"help": help_text, "choices": choices, "at_least": at_least, "below": below}
    return dataclasses.field(default=default, metadata=metadata)


OPTIMIZERS = ("sgd", "sgdw", "momentum", "adagrad", "adam", "adamw")


@dataclass(frozen=True)
class Config:
    """Everything that decides what a training run does."""

    task: str = _field("language_model", "What is learned.", tuple(TASKS))
    model: str = _field(
        "recurrent",
        "What predicts: a recurrent network; counts of n-grams (Kneser-Ney smoothing); or snm, a sparse "
        "non-negative matrix, counts of n- and skip-grams, adjusted with --epochs and --learning_rate.",
        tuple(KINDS),
    )
    output_dir: str = _field("", "Model directory; the same command with the same directory resumes.")

    dataset: str = _field("python_docs", "A data set of the zoo, or FORMAT:PATH, such as text:FILE.")
    data_dir: str = _field("~/.cache/rnn-zoo", "Folder that public data sets are fetched to.")
    train_path: str = _field("", "Training split, with --dataset=FORMAT; a file, a folder or a glob.")
    validation_path: str = _field("", "Validation split, with --dataset=FORMAT.")
    test_path: str = _field("", "Test split, with --dataset=FORMAT.")
    validation_fraction: float = _field(0.1, "Share of the data set for validation, where it has no splits.")
    test_fraction: float = _field(0.0, "Share of the data set for testing, where it has no splits.")
    text_mode: str = _field(
        "stream", "A text is one continuous stream, or each of its lines an example.", ("stream", "lines")
    )

    leading_space: bool = _field(
        False,
        "Read each line as if a space were before it: its first word is then, with --tokenizer=whitespace, "
        "the same token as elsewhere.",
    )

    text_column: str = _field("text", "Column of a table with the texts: its name, or number where none has.")
    label_column: str = _field("label", "Column of a table with the labels, likewise.")
    translation_column: str = _field("translation", "Column of a table with the translations, likewise.")
    context_column: str = _field("context", "Column of a table with the texts that questions are about.")
    question_column: str = _field("question", "Column of a table with the questions.")
    answer_column: str = _field("answer", "Column of a table with the answers, which are in the contexts.")
    token_column: str = _field("", "Number of a conll file's column with the tokens; empty: the first.")
    tag_column: str = _field(
        "", "Number of a conll file's column with the tags, empty: the last; of conllu the name, empty: upos."
    )

    tokenizer: str = _field("characters", "What a token is.", tuple(TOKENIZERS))
    vocabulary_size: int = _field(0, "Tokens in the vocabulary at most; 0: all that occur.", at_least=0)

    cell: str = _field("lstm", "The recurrence.", tuple(CELLS))
    cell_options: str = _field("", "Further options of the cell, such as activation=tanh or forget_bias=0.")
    units: int = _field(256, "Size of each layer's hidden state.", at_least=1)
    last_units: int = _field(
        0, "Size of the last layer's hidden state in a language model; 0: as --units.", at_least=0
    )
    layers: int = _field(1, "Recurrent layers, one upon the other.", at_least=1)
    skip: str = _field("none", "Connections around each layer.", tuple(SKIPS))
    bidirectional: bool = _field(False, "Each layer reads in both directions of time.")
    pooling: str = _field(
        "maximum",
        "What a classifier makes of all steps' outputs: its view of the text.",
        tuple(POOLINGS),
    )
    embedding_size: int = _field(0, "Size of the input embedding; 0: as --units.", at_least=0)
    attention: str = _field(
        "multiplicative", "How a translation's steps look at the text.", ("none", *ATTENTIONS)
    )
    shared_vocabulary: bool = _field(False, "Texts and translations have one vocabulary in common.")
    length_penalty: float = _field(
        1.0, "Beam search divides log probabilities by the length to about this power.", at_least=0
    )
    character_units: int = _field(
        0, "Size of each direction of a tagger's RNN over the characters of a word; 0: none.", at_least=0
    )
    crf: bool = _field(True, "A tagger judges all tags of a sequence together, not each by itself.")
    input_layer: str = _field(
        "embedding",
        "What makes a vector of a word in a language model: an embedding, or a convolutional network over "
        "its bytes.",
        tuple(INPUT_LAYERS),
    )
    input_options: str = _field(
        "", "Further options of the input layer, such as filters=32/64/128,highways=2 of character_cnn."
    )
    output_layer: str = _field("full", "The output layer of a language model.", tuple(HEADS))
    output_options: str = _field(
        "", "Further options of the output layer, such as cutoffs=2000/10000 of an adaptive one."
    )
    tie_embeddings: bool = _field(False, "Use the input embedding as the output layer's weights, too.")
    dropout: float = _field(
        0.0, "Share of values dropped between layers, none through time.", at_least=0, below=1
    )
    input_dropout: float = _field(
        -1.0, "Share of the embeddings' values dropped; -1: as --dropout.", at_least=-1, below=1
    )
    output_dropout: float = _field(
        -1.0, "Share of the last layer's output values dropped; -1: as --dropout.", at_least=-1, below=1
    )
    locked_dropout: bool = _field(False, "These three drop the same values at all steps of a sequence.")
    embedding_dropout: float = _field(
        0.0,
        "Share of the words whose embeddings are dropped, the same ones in a whole batch.",
        at_least=0,
        below=1,
    )
    recurrent_dropout: float = _field(
        0.0, "Share dropped of what the recurrent kernels read, the same at all steps.", at_least=0, below=1
    )
    zoneout: float = _field(0.0, "Share of the states' values that stay as they were.", at_least=0, below=1)
    weight_drop: float = _field(
        0.0, "Share of the recurrent kernels' weights dropped, the same at all steps.", at_least=0, below=1
    )
    activation_regularization: float = _field(
        0.0, "Added to the loss, times the mean square of the last layer's output after dropout.", at_least=0
    )
    temporal_activation_regularization: float = _field(
        0.0, "Added to the loss, times the mean square of its change from step to step.", at_least=0
    )
    class_weights: str = _field(
        "none",
        "A classifier's errors count alike, or balanced: the more the rarer the class was in training.",
        ("none", "balanced"),
    )
    label_separator: str = _field(
        "", "Between the labels of a text, where it may have several; empty: it has one."
    )
    label_smoothing: float = _field(
        0.0, "Share of a label's probability that all labels have alike.", at_least=0, below=1
    )
    initializer_scale: float = _field(
        0.0, "Start all weights uniform in [-X, X]; 0: as each layer does by itself.", at_least=0
    )
    kernel_initializer: str = _field(
        "", "Keras initializer of the cells' input kernels, such as he_normal; empty: the cell's own."
    )
    recurrent_initializer: str = _field(
        "", "Keras initializer of each gate's recurrent kernel, such as identity; empty: the cell's own."
    )
    bias_initializer: str = _field("", "Keras initializer of the cells' biases; empty: the cell's own.")
    precision: str = _field(
        "float32", "Keras dtype policy of the model.", ("float32", "mixed_bfloat16", "float64")
    )
    recompute_every: int = _field(
        0, "Keep every n-th state only, and compute the others twice, for long sequences; 0: all.", at_least=0
    )

    order: int = _field(
        5, "Length of the longest n-grams, of --model=ngram and snm.", at_least=1, below=MAX_ORDER + 1
    )
    prune: str = _field(
        "", "Counts up to which n-grams are left out, by order, such as 0,0,1; empty: none is left out."
    )
    discount_fallback: str = _field(
        "",
        "Discounts of counts 1, 2 and more, such as 0.5,1,1.5, for orders whose n-grams give none; empty: "
        "that is an error.",
    )
    closed_vocabulary: bool = _field(
        False, "Of --model=ngram and snm: words not in training are impossible, not rare."
    )
    across_lines: bool = _field(False, "N-grams of a continuous text reach across the ends of its lines.")

    skip_words: int = _field(
        0,
        "Of --model=snm: words in the history of a skip-gram at most, remote and adjacent ones; 0: there are "
        "n-grams alone.",
        at_least=0,
        below=MAX_ORDER + 1,
    )
    skips: int = _field(
        1,
        "Words skipped at most, in skip-grams that tell apart how many.",
        at_least=0,
        below=MAX_SKIPS + 1,
    )
    tied_skips: int = _field(
        0,
        "Words skipped at most, beyond those, in skip-grams of a single remote word that do not; they have a "
        "word less.",
        at_least=0,
        below=MAX_SKIPS + 1,
    )

    initialize_from: str = _field(
        "",
        "Model directory whose vocabulary and weights a new model starts from, as a classifier can from a "
        "language model's.",
    )
    gradual_unfreezing: bool = _field(
        False, "Train the output alone in the first epoch, and a layer more from each epoch on."
    )

    batch_size: int = _field(32, "Sequences a step.", at_least=1)
    batch_tokens: int = _field(
        0,
        "Tokens a step of separate examples, padding included: the longer they are the fewer; 0: as many "
        "examples as --batch_size says, of any length.",
        at_least=0,
    )
    sequence_length: int = _field(
        64, "Steps of truncated back-propagation through time, in continuous text.", at_least=1
    )
    random_sequence_length: bool = _field(
        False,
        "Draw each step's length: about --sequence_length, or at times half of it; the learning rate is in "
        "proportion to it.",
    )
    state_reset: float = _field(
        0.02,
        "Chance that a sequence of a step starts from the zero state and not from the carried one, as "
        "texts do when the model is used.",
        at_least=0,
    )
    evaluation_batch_size: int = _field(
        1, "Lanes that a continuous text is read in at evaluation; each starts without context.", at_least=1
    )

    optimizer: str = _field("adam", "Update rule.", OPTIMIZERS)
    learning_rate: float = _field(2e-3, "Learning rate, before the schedule.", at_least=0)
    momentum: float = _field(0.9, "Momentum, of --optimizer=momentum.", at_least=0)
    beta_1: float = _field(
        0.9, "Decay of the gradient's running mean, of adam and adamw.", at_least=0, below=1
    )
    beta_2: float = _field(0.999, "Decay of its running square, of adam and adamw.", at_least=0, below=1)
    initial_accumulator: float = _field(
        0.1, "Where the sums of squares of --optimizer=adagrad start.", at_least=0
    )
    weight_decay: float = _field(1e-4, "Decoupled weight decay, of sgdw and adamw.", at_least=0)
    clipnorm: float = _field(0.0, "Largest norm of each weight's gradient; 0: none.", at_least=0)
    global_clipnorm: float = _field(5.0, "Largest norm of the whole gradient; 0: none.", at_least=0)
    loss_reduction: str = _field(
        "token_mean",
        "Loss: nats averaged over tokens, or summed over time and averaged over sequences.",
        ("token_mean", "sequence_sum"),
    )
    schedule: str = _field(
        "cosine",
        "Learning rate over time: constant; cosine, to zero at the end; plateau, multiplied by "
        "--decay_factor at each evaluation that is not the best so far; decay, multiplied by it each epoch "
        "after --decay_after.",
        ("constant", "cosine", "plateau", "decay"),
    )
    warmup_steps: int = _field(0, "Steps in which the learning rate rises from zero.", at_least=0)
    decay_factor: float = _field(0.5, "See --schedule.", at_least=0)
    decay_after: int = _field(4, "Epochs before the decay; see --schedule.", at_least=0)

    average_weights_after: int = _field(
        0,
        "Evaluate the mean of the weights since the first evaluation that was worse than the best of those "
        "so many before it and earlier (NT-ASGD, with --optimizer=sgd); 0: never.",
        at_least=0,
    )

    epochs: int = _field(10, "Passes over the training data.", at_least=1)
    max_steps: int = _field(0, "Steps at most, instead of --epochs; 0: no such limit.", at_least=0)
    evaluate_every: int = _field(0, "Steps between evaluations; 0: after each epoch.", at_least=0)
    checkpoint_every: int = _field(500, "Steps between checkpoints.", at_least=1)
    early_stopping: int = _field(
        0, "Stop after this many evaluations in a row without a new best; 0: never.", at_least=0
    )
    max_bad_steps: int = _field(
        5, "Stop after this many steps in a row whose loss or gradient is not finite.", at_least=1
    )
    strategy: str = _field(
        "one_device", "tf.distribute strategy.", ("one_device", "mirrored", "multi_worker")
    )
    seed: int = _field(1, "Of weights, dropout, shuffling and random splits.", at_least=0)

    def __post_init__(self):
        for field in dataclasses.fields(self):
            _check(field, getattr(self, field.name))
        for name in ("kernel_initializer", "recurrent_initializer", "bias_initializer"):
            _check_initializer(name, getattr(self, name))
        check_options("cell_options", self.cell_options, CELLS[self.cell])
        check_options("input_options", self.input_options, INPUT_LAYERS[self.input_layer])
        check_options("output_options", self.output_options, HEADS[self.output_layer])
        self._check_ngrams()

    def _check_ngrams(self):
        parse_numbers("prune", self.prune, int)
        if len(parse_numbers("discount_fallback", self.discount_fallback, float)) not in (0, 3):
            raise UserError(f"--discount_fallback={self.discount_fallback}: expected three numbers")
        if self.skip_words > self.order:
            raise UserError(f"--skip_words={self.skip_words}: must be at most --order={self.order}")
        if self.model != "recurrent" and self.task != "language_model":
            raise UserError(
                f"--model={self.model}: there is none of --task={self.task}, but of language_model"
            )
        if self.model != "recurrent" and self.initialize_from:
            raise UserError("--initialize_from: n-grams are counted anew, and start from no other model")


# Fields that a resumed run may change: how long it goes on, and where things lie.
RESUMABLE = frozenset({"output_dir", "data_dir", "epochs", "max_steps", "checkpoint_every", "early_stopping"})


def _check(field: dataclasses.Field, value: Any) -> None:
    choices, at_least, below = (field.metadata[name] for name in ("choices", "at_least", "below"))
    if choices and value not in choices:
        raise UserError(f"--{field.name}={value}: must be one of {', '.join(choices)}")
    if at_least is not None and not value >= at_least:
        raise UserError(f"--{field.name}={value}: must be at least {at_least}")
    if below is not None and not value < below:
        raise UserError(f"--{field.name}={value}: must be below {below}")


def _check_initializer(name: str, value: str) -> None:
    try:
        keras.initializers.get(value or None)
    except ValueError:
        raise UserError(f"--{name}={value}: no Keras initializer has this name") from None


def parse_numbers(name: str, text: str, kind: Callable[[str], Any]) -> list[Any]:
    """ "0,0,1" -> [0, 0, 1]."""
    try:
        return [kind(word) for word in text.split(",")] if text else []
    except ValueError:
        raise UserError(f"--{name}={text}: expected numbers with commas between them") from None


def make_config(preset: str | None, given: Mapping[str, Any]) -> Config:
    """Defaults, overruled in this order: by the task's, the kind of model's, the preset, what is given."""
    if preset is not None and preset not in PRESETS:
        raise UserError(f"--preset={preset}: must be one of {', '.join(PRESETS)}")
    chosen = {**(PRESETS[preset] if preset else {}), **given}
    defaults = {
        **TASK_DEFAULTS.get(chosen.get("task", Config.task), {}),
        **MODEL_DEFAULTS.get(chosen.get("model", Config.model), {}),
    }
    return Config(**{**defaults, **chosen})
