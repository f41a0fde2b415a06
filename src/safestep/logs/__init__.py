"""Where records go: JSON lines and CSV, TensorBoard and W&B where they are installed. One sink a file."""

from safestep.logs.csv_file import Csv
from safestep.logs.every import Every
from safestep.logs.json_lines import JsonLines
from safestep.logs.ranks import EachRank
from safestep.logs.reader import read
from safestep.logs.sink import Sink
from safestep.logs.tensorboard import TensorBoard
from safestep.logs.wandb import WandB

__all__ = ["Csv", "EachRank", "Every", "JsonLines", "Sink", "TensorBoard", "WandB", "read"]
