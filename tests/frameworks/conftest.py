"""Before any framework is imported: what `frameworks` does for torchvision."""

import frameworks  # noqa: F401

collect_ignore = ["ddp_run.py", "hf_ddp_run.py"]  # programs of the processes that tests start
