"""The recurrences, by name."""

from zoo.cells.base import Cell
from zoo.cells.conditioned import MogrifierLSTM, MultiplicativeLSTM
from zoo.cells.elman import IRNN, Antisymmetric, Elman, IndRNN, Jordan
from zoo.cells.fast import FastGRNN, FastRNN
from zoo.cells.gru import GRU, MGU, GRUResetAfter, LayerNormGRU
from zoo.cells.highway import RHN
from zoo.cells.hyper_lstm import HyperLSTM
from zoo.cells.light import ATR, RAN, UGRNN, LightGRU, MinimalRNN
from zoo.cells.linear import RGLRU, SRU, MinGRU, MinLSTM
from zoo.cells.lstm import LSTM
from zoo.cells.lstm_variants import (
    JANET,
    LSTM1997,
    CoupledLSTM,
    LayerNormLSTM,
    PeepholeLSTM,
    ProjectedLSTM,
    WeightDroppedLSTM,
)
from zoo.cells.mlstm import MLSTM
from zoo.cells.qrnn import QRNN
from zoo.cells.scrn import SCRN
from zoo.cells.slstm import SLSTM

CELLS: dict[str, type[Cell]] = {
    "elman": Elman,
    "jordan": Jordan,
    "irnn": IRNN,
    "indrnn": IndRNN,
    "antisymmetric": Antisymmetric,
    "fast_rnn": FastRNN,
    "fast_grnn": FastGRNN,
    "scrn": SCRN,
    "rhn": RHN,
    "lstm_1997": LSTM1997,
    "lstm": LSTM,
    "peephole_lstm": PeepholeLSTM,
    "coupled_lstm": CoupledLSTM,
    "projected_lstm": ProjectedLSTM,
    "layer_norm_lstm": LayerNormLSTM,
    "weight_dropped_lstm": WeightDroppedLSTM,
    "multiplicative_lstm": MultiplicativeLSTM,
    "mogrifier_lstm": MogrifierLSTM,
    "hyper_lstm": HyperLSTM,
    "janet": JANET,
    "slstm": SLSTM,
    "gru": GRU,
    "gru_reset_after": GRUResetAfter,
    "layer_norm_gru": LayerNormGRU,
    "mgu": MGU,
    "ugrnn": UGRNN,
    "light_gru": LightGRU,
    "ran": RAN,
    "minimal_rnn": MinimalRNN,
    "atr": ATR,
    "min_gru": MinGRU,
    "min_lstm": MinLSTM,
    "sru": SRU,
    "qrnn": QRNN,
    "rg_lru": RGLRU,
    "mlstm": MLSTM,
}
