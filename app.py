"""A page to try the model: frames or a clip in, masks as they appear, corrections that propagate; on this machine."""

import argparse
import sys

from pix2seq_d.app.command import add_app_arguments, run_app
from pix2seq_d.commands import run_command

if __name__ == "__main__":
    parser = argparse.ArgumentParser(prog="app.py", description=__doc__)
    add_app_arguments(parser)
    sys.exit(run_command(run_app, parser.parse_args()))
