"""Trains on video (KITTI-STEP by default); resumes by itself. --train.init_from takes a pretrained run or model."""

import sys

from pix2seq_d.commands import run_command, run_train

if __name__ == "__main__":
    sys.exit(run_command(run_train, program="train.py", about=__doc__, preset="kitti-step", output_dir="results/train"))
