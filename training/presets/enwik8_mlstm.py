"""Krause et al. 2016, "Multiplicative LSTM for sequence modelling", for the Hutter prize's enwik8.

    iconv -f latin1 -t utf8 enwik8 > enwik8.txt     # each byte a character: 205 of them, bits are per byte
    zoo-train --preset=enwik8_mlstm --dataset=text:enwik8.txt --output_dir=OUT
    zoo-evaluate --model_dir=OUT --split=test
    zoo-evaluate --model_dir=OUT --split=test --dynamic_learning_rate=5e-5 --dynamic_segment=20

arXiv:1609.07959: as text8_mlstm, but over the bytes of enwik8, the first 90 million for training.

Published: 1.24 bits per byte on the test split (1.08 with dynamic evaluation, Krause et al. 2018).

Measured: nothing but text8_mlstm, which see; on enwik8 itself it has not been run.
"""

from training.presets import text8_mlstm

CONFIG = {**text8_mlstm.CONFIG}
