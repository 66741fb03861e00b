"""The page itself, in Gradio (optional extra `app`): components, and what happens on them."""

from __future__ import annotations

import socket
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from pix2seq_d.app.session import Progress, RunSettings, Session
from pix2seq_d.app.streaming import Reporter, stream_reports
from pix2seq_d.app.uploads import FrameClip, example_clip, read_clip
from pix2seq_d.app.views import (
    LAYERS,
    draw_estimate,
    draw_frame,
    draw_to_correct,
    painted_mask,
    segments_html,
    status_html,
    targets,
)
from pix2seq_d.models.pix2seq_d import Pix2SeqD

FONTS = ("system-ui", "sans-serif"), ("ui-monospace", "monospace")  # of the reader's machine: nothing is fetched
MAX_STEPS, MAX_SAMPLES = 100, 8
SESSION_SECONDS = 3600  # an upload and its maps are forgotten so long after they were last used
MAX_SESSIONS, MAX_WAITING = 16, 16
EXPECTED = (ValueError, ImportError, OSError)  # what users can do something about

Update = dict[Any, Any]


def _check_port(host: str, port: int) -> None:
    """Gradio's own message names none of our options."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.socket(family) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
        except OSError as error:
            raise OSError(
                f"--host {host} --port {port}: expected a free port to listen on ({error.strerror})"
            ) from None


def import_gradio() -> Any:
    """Gradio; raises ImportError that says what to install."""
    try:
        import gradio
    except ImportError:
        raise ImportError("the page needs Gradio, which is not installed: pip install pix2seq_d[app]") from None
    return gradio


class Page:
    """The page for one model; what it does is in `Session`, what it shows in `views`.

    Args:
        model: in eval mode, used by one run at a time.
        max_frames: of a clip; further ones are left out, and the page says so.

    Attributes:
        blocks: the Gradio app, to be launched.
    """

    def __init__(self, model: Pix2SeqD, *, max_frames: int) -> None:
        self.model, self.max_frames, self.lock = model, max_frames, threading.Lock()
        self.gr = import_gradio()
        gr = self.gr
        with gr.Blocks(title="pix2seq_d", analytics_enabled=False, delete_cache=(600, SESSION_SECONDS)) as self.blocks:
            self.session = gr.State(time_to_live=SESSION_SECONDS)
            self.folder = gr.State()  # of the zip; goes with the session
            self.corrected = gr.State(-1)  # index of the frame in the editor, -1 = none
            gr.HTML(
                "<h1>pix2seq_d</h1><p>Panoptic segmentation of images and video by diffusion on analog bits.</p>",
                padding=False,
            )
            with gr.Row(equal_height=False):
                with gr.Column(scale=1, min_width=280):
                    self._make_controls()
                with gr.Column(scale=3, min_width=320):
                    self._make_stage()
            self._connect()

    def launch(self, *, host: str, port: int | None, max_upload_mb: int, block: bool = True) -> tuple[Any, str]:
        """Serves the page.

        Args:
            host: address to listen on.
            port: to listen on; None takes a free one.
            max_upload_mb: of a file.
            block: until Ctrl-C; else the server runs in the background until `blocks.close()`.

        Returns:
            The ASGI application and the URL.

        Raises:
            OSError: the port is taken.
        """
        if port is not None:
            _check_port(host, port)
        theme = self.gr.themes.Default(primary_hue="blue", font=FONTS[0], font_mono=FONTS[1])
        self.blocks.queue(max_size=MAX_WAITING, api_open=False)
        app, url, _ = self.blocks.launch(
            server_name=host,
            server_port=port,
            share=False,
            quiet=True,
            footer_links=[],
            max_file_size=max_upload_mb * 2**20,
            state_session_capacity=MAX_SESSIONS,
            enable_monitoring=False,
            ssr_mode=False,
            mcp_server=False,
            pwa=False,
            theme=theme,
            css_paths=Path(__file__).parent / "page.css",
            prevent_thread_lock=not block,
        )
        return app, url

    # components

    def _make_controls(self) -> None:
        gr = self.gr
        self.files = gr.File(
            label=f"Images or one video, up to {self.max_frames} frames", file_count="multiple", height=160
        )
        self.example = gr.Button("Example clip", size="sm")
        model = self.model
        self.num_steps = gr.Slider(1, MAX_STEPS, model.num_steps, step=1, label="Steps, first frame")
        self.num_steps_next = gr.Slider(1, MAX_STEPS, model.num_steps_next, step=1, label="Steps, later frames")
        self.num_samples = gr.Slider(1, MAX_SAMPLES, 1, step=1, label="Samples of every frame")
        self.seed = gr.Number(0, label="Seed", precision=0, minimum=0)
        with gr.Row():
            self.run = gr.Button("Run", variant="primary", min_width=120)
            self.stop = gr.Button("Stop", interactive=False, min_width=120)
        self.download = gr.DownloadButton("Download maps (.zip)", interactive=False)

    def _make_stage(self) -> None:
        gr = self.gr
        self.status = gr.HTML(status_html("Loading the example clip ..."))
        with gr.Column(elem_classes="plain") as self.viewer:
            self.layer = gr.Radio(
                [(name.capitalize(), name) for name in LAYERS],
                value=LAYERS[0],
                label="Layer",
                show_label=False,
                container=False,
            )
            self.picture = gr.Image(
                label="Frame",
                show_label=False,
                format="png",
                interactive=False,
                buttons=["fullscreen"],
                elem_id="stage",
            )
            self.frame = gr.Slider(1, 2, 1, step=1, label="Frame", interactive=False, buttons=[])
            self.segments = gr.HTML(padding=False)
            self.correct = gr.Button("Correct this frame", size="sm", interactive=False)
        with gr.Column(elem_classes="plain", visible=False) as self.workbench:
            self.target = gr.Dropdown([], label="Paint as", interactive=True)
            self.editor = gr.ImageEditor(
                label="Paint",
                show_label=False,
                sources=(),
                transforms=(),
                layers=False,
                brush=gr.Brush(default_size=12, colors=["#ff2d55"], color_mode="fixed"),
                image_mode="RGBA",
                format="png",
                buttons=[],
                elem_id="editor",
            )
            with gr.Row():
                self.paint = gr.Button("Apply paint", size="sm", min_width=120)
                self.undo = gr.Button("Undo all", size="sm", min_width=120)
                self.cancel = gr.Button("Back", size="sm", min_width=120)
                self.propagate = gr.Button("Propagate", variant="primary", size="sm", min_width=120)

    # events

    def _connect(self) -> None:
        shown = [self.session, self.folder, self.corrected, self.status, self.viewer, self.workbench, self.picture]
        shown += [self.frame, self.segments, self.correct, self.target, self.editor, self.run, self.stop]
        shown += [self.propagate, self.download, self.files]
        place = [self.session, self.frame, self.layer]
        quick: dict[str, Any] = {"outputs": shown, "show_progress": "hidden", "api_visibility": "private"}
        long: dict[str, Any] = {**quick, "concurrency_limit": 1, "concurrency_id": "model"}
        numbers = [self.num_steps, self.num_steps_next, self.num_samples, self.seed]
        painted = [self.session, self.corrected, self.target, self.editor]
        running = [
            self.run.click(self._on_run, [self.session, self.folder, self.layer, *numbers], **long),
            self.propagate.click(self._on_propagate, [*painted, self.folder, self.layer], **long),
        ]
        stopped = self.stop.click(None, cancels=running)  # first: a late report would hide what the next one shows
        stopped.then(self._on_stop, [self.session, self.folder, *place[1:]], **quick)
        self.files.upload(self._on_files, [self.files, self.session, self.folder], cancels=running, **quick)
        self.example.click(self._on_example, None, cancels=running, **quick)
        self.blocks.load(self._on_example, None, **quick)
        self.frame.input(self._on_look, place, trigger_mode="always_last", **quick)
        self.layer.input(self._on_look, place, trigger_mode="always_last", **quick)
        self.correct.click(self._on_correct, place[:2], **quick)
        self.paint.click(self._on_paint, painted, **quick)
        self.undo.click(self._on_undo, painted[:2], **quick)
        self.cancel.click(self._on_back, [*place, self.folder, self.corrected], **quick)

    def _on_example(self) -> Update:
        return self._opened(example_clip())

    def _on_files(self, paths: list[str] | None, session: Session | None, folder: Any) -> Update:
        try:
            return self._opened(read_clip(paths or [], max_frames=self.max_frames))
        except EXPECTED as error:
            return {
                self.status: status_html(str(error), is_error=True),
                self.files: None,
                **self._idle(session, folder),
            }

    def _opened(self, clip: FrameClip) -> Update:
        gr, session, folder = self.gr, Session(clip, self.model), TemporaryDirectory(prefix="pix2seq_d-")
        count, (height, width) = len(clip.frames), clip.size
        text = f"{count} frame{'s' if count > 1 else ''} of {width}x{height}. {clip.note or ''} Press Run."
        return {
            self.files: None,
            self.session: session,
            self.folder: folder,
            self.status: status_html(" ".join(text.split())),
            self.frame: gr.update(value=1, maximum=max(count, 2), interactive=count > 1),
            self.picture: draw_frame(session, 0, LAYERS[0]),
            self.segments: "",
            **self._idle(session, folder),
        }

    def _on_look(self, session: Session | None, frame: int, layer: str) -> Update:
        if session is None:
            return self._gone()
        index = min(int(frame), len(session.clip.frames)) - 1
        return {
            self.picture: draw_frame(session, index, layer),
            self.segments: segments_html(session, index),
            self.correct: self.gr.update(interactive=index < len(session.results)),
        }

    def _on_run(self, session: Session | None, folder: Any, layer: str, *numbers: float | None) -> Iterator[Update]:
        if session is None:
            yield self._gone()
            return
        settings = RunSettings(*(int(number or 0) for number in numbers))
        yield from self._follow(session, folder, layer, lambda report: session.run(settings, report))

    def _on_propagate(
        self,
        session: Session | None,
        index: int,
        target: str,
        drawn: dict[str, Any] | None,
        folder: Any,
        layer: str,
    ) -> Iterator[Update]:
        if session is None:
            yield self._gone()
            return
        try:
            mask = painted_mask((drawn or {}).get("layers") or [], session.clip.size)
            if mask.any():  # drawn, but not applied
                session.paint(index, mask, targets(session, index)[target])
        except EXPECTED as error:
            yield {self.status: status_html(str(error), is_error=True)}
            return
        yield from self._follow(session, folder, layer, lambda report: session.propagate(index, report))

    def _follow(
        self, session: Session, folder: Any, layer: str, work: Callable[[Reporter[Progress]], None]
    ) -> Iterator[Update]:
        """Shows a run while it goes on; errors that users can do something about are shown in its place."""
        gr = self.gr
        count = len(session.clip.frames)
        yield {
            self.status: status_html("Waiting for the model ..."),
            **{button: gr.update(interactive=False) for button in (self.run, self.propagate, self.correct)},
            self.stop: gr.update(interactive=True),
        }
        try:
            for progress in stream_reports(work, lock=self.lock):
                yield self._progress(session, progress, layer)
        except EXPECTED as error:
            yield {self.status: status_html(str(error), is_error=True), **self._idle(session, folder)}
            return
        text = f"Done: {count} frame{'s' if count > 1 else ''}. Look at them, or correct one and propagate."
        yield {self.status: status_html(text), **self._idle(session, folder)}

    def _progress(self, session: Session, progress: Progress, layer: str) -> Update:
        where = f"Frame {progress.index + 1} of {len(session.clip.frames)}"
        shown = {self.viewer: self.gr.update(visible=True), self.workbench: self.gr.update(visible=False)}
        shown[self.frame] = self.gr.update(value=progress.index + 1)
        if progress.estimate is not None:
            text = f"{where}, step {progress.step} of {progress.num_steps}"
            return {**shown, self.status: status_html(text), self.picture: draw_estimate(session, progress, layer)}
        return {
            **shown,
            self.status: status_html(where),
            self.picture: draw_frame(session, progress.index, layer),
            self.segments: segments_html(session, progress.index),
        }

    def _on_stop(self, session: Session | None, folder: Any, frame: int, layer: str) -> Update:
        if session is None:
            return self._gone()
        text = f"Stopped after {len(session.results)} of {len(session.clip.frames)} frames."
        return {
            self.status: status_html(text),
            **self._idle(session, folder),
            **self._on_look(session, frame, layer),
        }

    def _idle(self, session: Session | None, folder: Any) -> Update:
        """Buttons while nothing runs, with the maps to take home as they are now; the viewer."""
        gr = self.gr
        return {
            self.run: gr.update(interactive=session is not None),
            self.stop: gr.update(interactive=False),
            self.propagate: gr.update(interactive=True),
            self.correct: gr.update(interactive=session is not None and bool(session.results)),
            self.viewer: gr.update(visible=True),
            self.workbench: gr.update(visible=False),
            self.download: self._zip(session, folder),
        }

    def _zip(self, session: Session | None, folder: Any) -> Any:
        if session is None or not session.results:
            return self.gr.update(value=None, interactive=False)
        return self.gr.update(value=str(session.write_zip(Path(folder.name) / "maps.zip")), interactive=True)

    def _gone(self) -> Update:
        text = "This session has been forgotten: upload the frames again, or take the example clip."
        return {self.status: status_html(text, is_error=True), **self._idle(None, None)}

    # correcting

    def _on_correct(self, session: Session | None, frame: int) -> Update:
        if session is None:
            return self._gone()
        index = int(frame) - 1
        if index >= len(session.results):
            return {self.status: status_html(f"Frame {index + 1} is not predicted yet: run first.", is_error=True)}
        text = (
            f"Correcting frame {index + 1}: choose what the paint stands for, paint, apply. "
            "Propagate predicts the frames after it again."
        )
        return {
            self.corrected: index,
            self.status: status_html(text),
            self.download: self.gr.update(interactive=False),  # until what is painted is in it
            self.viewer: self.gr.update(visible=False),
            self.workbench: self.gr.update(visible=True),
            **self._canvas(session, index, None),
        }

    def _canvas(self, session: Session, index: int, target: str | None) -> Update:
        """The frame to paint on, and what paint can stand for."""
        names = list(targets(session, index))
        picture = draw_to_correct(session, index)
        return {
            self.target: self.gr.update(choices=names, value=target if target in names else names[0]),
            self.editor: self.gr.update(
                value={"background": picture, "layers": [], "composite": None}, height=min(picture.shape[0], 560) + 80
            ),
        }

    def _on_paint(self, session: Session | None, index: int, target: str, drawn: dict[str, Any] | None) -> Update:
        if session is None:
            return self._gone()
        try:
            chosen = targets(session, index)[target]
            session.paint(index, painted_mask((drawn or {}).get("layers") or [], session.clip.size), chosen)
        except EXPECTED as error:
            return {self.status: status_html(str(error), is_error=True)}
        name = next(name for name, key in targets(session, index).items() if key == chosen)  # a new object has one now
        text = f"Painted as {name}. Paint more, or propagate."
        return {self.status: status_html(text), **self._canvas(session, index, name)}

    def _on_undo(self, session: Session | None, index: int) -> Update:
        if session is None:
            return self._gone()
        session.discard(index)
        return {self.status: status_html("The map is as predicted."), **self._canvas(session, index, None)}

    def _on_back(self, session: Session | None, frame: int, layer: str, folder: Any, index: int) -> Update:
        if session is None:
            return self._gone()
        kept = index in session.edits
        text = "What you painted is kept until the frame is predicted again." if kept else "Nothing was changed."
        return {self.status: status_html(text), **self._idle(session, folder), **self._on_look(session, frame, layer)}
