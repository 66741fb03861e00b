"""Pretrains on still images (Cityscapes by default), made into clips; train.py continues from the result."""

import sys

from pix2seq_d.commands import run_command, run_train

if __name__ == "__main__":
    sys.exit(
        run_command(run_train, program="pretrain.py", about=__doc__, preset="cityscapes", output_dir="results/pretrain")
    )
