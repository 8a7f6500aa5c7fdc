"""Merity et al. 2018, "An Analysis of Neural Language Modeling at Multiple Scales", characters of PTB.

    zoo-train --preset=char_ptb --dataset=text --train_path=train.txt --validation_path=valid.txt \\
        --test_path=test.txt --output_dir=OUT
    zoo-evaluate --model_dir=OUT --split=test --evaluation_batch_size=1

arXiv:1803.08240, with the settings of the authors' code: an AWD-LSTM with embeddings of 200 tied to the
output layer, layers of 1000, 1000 and 200 units, half of the recurrent weights dropped, locked dropout of
0.1 on embeddings and output and 0.25 between layers, 128 sequences of about 150 characters, Adam with
learning rate 2e-3 and weight decay 1.2e-6, 500 epochs.

The files are those of the character-level corpus (Mikolov et al. 2012), in which a space is "_" and
characters are apart, without the spaces between these: `tr -d " "`.

Published: 1.175 bits per character on the test split.

Differs from the paper: the rate falls evenly to a tenth from the 301st to the 400th epoch, where it is
divided by ten after the 300th and the 400th there; the weight decay is decoupled from Adam's.

Measured: on two cores two steps, of the characters of WikiText-2: 10 s for 10,752 characters, 3.1 GB. No
figure was reached: it has not been trained to the end.
"""

CONFIG = {
    "task": "language_model",
    "tokenizer": "characters",
    "cell": "lstm",
    "cell_options": "forget_bias=0",
    "units": 1000,
    "last_units": 200,
    "layers": 3,
    "embedding_size": 200,
    "tie_embeddings": True,
    "dropout": 0.25,
    "input_dropout": 0.1,
    "output_dropout": 0.1,
    "locked_dropout": True,
    "weight_drop": 0.5,
    "recurrent_initializer": "glorot_uniform",
    "batch_size": 128,
    "sequence_length": 150,
    "random_sequence_length": True,
    "state_reset": 0.0,
    "evaluation_batch_size": 10,
    "optimizer": "adamw",
    "learning_rate": 2e-3,
    "weight_decay": 1.2e-6,
    "global_clipnorm": 0.25,
    "schedule": "decay",
    "decay_factor": 0.1**0.01,
    "decay_after": 300,
    "epochs": 500,
}
