"""Sinks of records: JSON lines, CSV, TensorBoard and W&B; and logs read back."""

from safestep.logs.csv_file import Csv
from safestep.logs.every import Every
from safestep.logs.line_file import JsonLines
from safestep.logs.reader import read
from safestep.logs.sink import EachRank, Sink
from safestep.logs.tensorboard import TensorBoard
from safestep.logs.wandb import WandB

__all__ = ["Csv", "EachRank", "Every", "JsonLines", "Sink", "TensorBoard", "WandB", "read"]
