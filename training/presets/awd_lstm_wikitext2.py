"""Merity et al. 2018, "Regularizing and Optimizing LSTM Language Models" (AWD-LSTM), for WikiText-2.

    zoo-train --preset=awd_lstm_wikitext2 --dataset=text --train_path=wiki.train.tokens \\
        --validation_path=wiki.valid.tokens --test_path=wiki.test.tokens --output_dir=OUT
    zoo-evaluate --model_dir=OUT --split=test --evaluation_batch_size=1
    zoo-evaluate --model_dir=OUT --split=test --evaluation_batch_size=1 \\
        --cache_size=3785 --cache_weight=0.1279 --cache_flatness=0.662

arXiv:1708.02182, section 5: as awd_lstm_ptb, but locked dropout of 0.65 on embeddings and 0.2 between
layers (the authors' code), 80 sequences at a time, 750 epochs.

Published: perplexity 68.6 on the validation and 65.8 on the test split; by the authors' later code 68.7 and
65.6, after finetuning, which is not part of this, 67.4 and 64.7, and then with the cache 52.2 and 50.6.

Measured: on two cores two steps, of WikiText-2 (33.6 million weights): 14 s for 6,000 tokens, tracing
included, and 6 s for 2,560; 3.5 GB. No figure was reached: it has not been trained to the end.
"""

from training.presets import awd_lstm_ptb

CONFIG = {
    **awd_lstm_ptb.CONFIG,
    "dropout": 0.2,
    "input_dropout": 0.65,
    "batch_size": 80,
    "epochs": 750,
}
