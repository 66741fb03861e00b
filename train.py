"""Trains on video: python train.py --preset kitti-step [--train.init_from results/pretrain] [--help for every setting]."""

import logging

from pix2seq_d.cli import parse_run_config
from pix2seq_d.launch import run_training

if __name__ == "__main__":
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    run_training(
        parse_run_config(
            None, program="train.py", description=__doc__, preset="kitti-step", output_dir="results/train"
        )
    )
