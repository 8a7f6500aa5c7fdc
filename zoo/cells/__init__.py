"""The recurrences, by name."""

from zoo.cells.base import Cell
from zoo.cells.elman import Elman
from zoo.cells.gru import GRU
from zoo.cells.lstm import LSTM

CELLS: dict[str, type[Cell]] = {
    "elman": Elman,
    "gru": GRU,
    "lstm": LSTM,
}
