"""`python -m pix2seq_d COMMAND`: download, check, train, plot, ema, infer, evaluate, report, export, save."""

import argparse
import sys

from pix2seq_d.commands import (
    add_check_arguments,
    add_download_arguments,
    add_export_arguments,
    add_save_arguments,
    run_check,
    run_command,
    run_download,
    run_export,
    run_save,
    run_train,
)
from pix2seq_d.commands_ema import add_ema_arguments, run_ema
from pix2seq_d.commands_plot import add_plot_arguments, run_plot
from pix2seq_d.commands_report import add_report_arguments, run_report
from pix2seq_d.evaluation import add_evaluation_arguments, run_evaluation
from pix2seq_d.inference import add_inference_arguments, run_inference

TRAINING = {"train": ("kitti-step", "results/train"), "pretrain": ("cityscapes", "results/pretrain")}


def main(arguments: list[str] | None = None) -> int:
    """Entry point of the `pix2seq_d` command; returns the exit code."""
    arguments = sys.argv[1:] if arguments is None else arguments
    if arguments and arguments[0] in TRAINING:
        preset, output_dir = TRAINING[arguments[0]]
        program = f"pix2seq_d {arguments[0]}"
        about = "Trains a model; every setting can be given as a dotted option."
        named = {"program": program, "about": about, "preset": preset, "output_dir": output_dir}
        return run_command(run_train, **named, arguments=arguments[1:])
    parser = argparse.ArgumentParser(prog="pix2seq_d", description="Panoptic segmentation by diffusion on analog bits.")
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    for name in TRAINING:
        commands.add_parser(name, help=f"{name} a model (all settings: pix2seq_d {name} --help)")
    download = commands.add_parser("download", help="fetch a dataset from the Hub")
    add_download_arguments(download)
    download.set_defaults(run=run_download)
    plot = commands.add_parser("plot", help="draw the curves of a training run")
    add_plot_arguments(plot)
    plot.set_defaults(run=run_plot)
    ema = commands.add_parser("ema", help="make an average of another width after a training run")
    add_ema_arguments(ema)
    ema.set_defaults(run=run_ema)
    infer = commands.add_parser("infer", help="predict a folder of frames")
    add_inference_arguments(infer)
    infer.set_defaults(run=run_inference)
    evaluation = commands.add_parser("evaluate", help="score a folder of maps")
    add_evaluation_arguments(evaluation)
    evaluation.set_defaults(run=run_evaluation)
    report = commands.add_parser("report", help="write a page to look at the results of inference")
    add_report_arguments(report)
    report.set_defaults(run=run_report)
    check = commands.add_parser("check", help="read every frame of a dataset and say what it holds")
    add_check_arguments(check)
    check.set_defaults(run=run_check)
    export = commands.add_parser("export", help="write predictions as a benchmark takes them")
    add_export_arguments(export)
    export.set_defaults(run=run_export)
    save = commands.add_parser("save", help="write a model for sharing")
    add_save_arguments(save)
    save.set_defaults(run=run_save)
    parsed = parser.parse_args(arguments)
    return run_command(parsed.run, parsed)


if __name__ == "__main__":
    sys.exit(main())
