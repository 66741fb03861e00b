"""Scores predicted panoptic maps against the ground truth of any dataset: PQ, VPQ, STQ and mIoU."""

import argparse
import sys

from pix2seq_d.commands import run_command
from pix2seq_d.evaluation import add_evaluation_arguments, run_evaluation

if __name__ == "__main__":
    parser = argparse.ArgumentParser(prog="evaluate.py", description=__doc__)
    add_evaluation_arguments(parser)
    sys.exit(run_command(run_evaluation, parser.parse_args()))
