"""Predicts panoptic maps for folders of frames, videos, patterns or lists; every subfolder is a video of its own."""

import argparse
import sys

from pix2seq_d.commands import run_command
from pix2seq_d.inference import add_inference_arguments, run_inference

if __name__ == "__main__":
    parser = argparse.ArgumentParser(prog="inference.py", description=__doc__)
    add_inference_arguments(parser)
    sys.exit(run_command(run_inference, parser.parse_args()))
