"""The controls of the chat page and where they stand; what they do is chat_page.py's."""

from __future__ import annotations

from collections.abc import Sequence

import gradio as gr

from dress.feedback.conversations import LONGEST_TEXT
from dress.page import cards
from dress.page.feedback_form import FeedbackForm
from dress.page.server import UNUSED_S
from dress.records import ASPECTS

OWN = "own"  # neither of the presets: the three sliders
INTRODUCTION = (
    "Draw a scene or give a picture, and ask about it. Then rate the answer, say what is wrong and "
    "send a refinement: the model answers anew, and the next model can be trained on what you said."
)
MOST_TEMPERATURE = 2.0
MOST_SAMPLES = 4  # of all models together


class ChatLayout:
    """Build them: `preset` is chosen first, `several` says that there are two models."""

    def __init__(
        self, *, preset: str, several: bool, proposing: bool, commands: Sequence[str]
    ) -> None:
        with gr.Blocks(
            title="DRESS chat", analytics_enabled=False, delete_cache=UNUSED_S
        ) as self.blocks:
            self.tab = gr.BrowserState(storage_key="dress-chat", secret="dress-chat-state")
            gr.HTML(cards.heading("DRESS chat", INTRODUCTION))
            with gr.Row():
                with gr.Column(scale=1, min_width=300, elem_classes="side"):
                    with gr.Column():
                        self._build_picture()
                    with gr.Column(elem_classes="settings"):
                        self._build_settings(preset, several=several)
                with gr.Column(scale=2, min_width=320, elem_classes="talk"):
                    self._build_talk()
                    self._build_feedback(proposing=proposing)
            with gr.Accordion("Train on what was said", open=False):
                gr.HTML(cards.verbatim("\n".join(commands)))

    def _build_picture(self) -> None:
        self.picture = gr.HTML(cards.picture(None))
        with gr.Row():
            self.upload = gr.UploadButton(
                "Upload a picture", file_types=["image"], elem_id="upload", size="sm", min_width=90
            )
            self.draw = gr.Button("Draw a scene", size="sm", min_width=90)
        self.questions = gr.Dropdown([], label="Questions about the scene", visible=False)
        with gr.Accordion("The truth about the scene", open=False, visible=False) as self.truth_box:
            self.truth = gr.HTML("")

    def _build_settings(self, preset: str, *, several: bool) -> None:
        self.preset = gr.Radio(
            ["best", "none", "worst", OWN], value=preset, label="Answer as if it were rated"
        )
        with gr.Accordion("Own ratings, temperature, samples", open=False):
            self.levels = [
                gr.Slider(1, 4, value=4, step=1, label=aspect.capitalize()) for aspect in ASPECTS
            ]
            self.temperature = gr.Slider(
                0, MOST_TEMPERATURE, value=0, step=0.1, label="Temperature"
            )
            self.samples = gr.Slider(
                1, MOST_SAMPLES, value=1, step=1, label="Samples (of a temperature above 0)"
            )
        with gr.Accordion("What the model reads", open=False):
            self.prompt = gr.HTML("")
        self.blind = gr.Checkbox(label="Blind: no names until you choose", visible=several)
        self.who = gr.Textbox(label="Your name, kept with what you say", max_length=60)

    def _build_talk(self) -> None:
        self.history = gr.HTML(cards.history([]))
        self.columns = gr.HTML("")
        self.text = gr.Textbox(
            label="Your message (Enter sends)",
            placeholder="Ask about the picture.",
            max_length=LONGEST_TEXT,
            max_lines=8,
            autofocus=True,
            elem_id="message",
        )
        with gr.Row():
            self.send = gr.Button("Send", variant="primary", size="sm", min_width=70)
            self.halt = gr.Button("Stop", size="sm", min_width=70)
            self.edit = gr.Button("Edit", size="sm", min_width=70)
            self.resend = gr.Button("Ask again", size="sm", min_width=80)
            self.fresh = gr.Button("New", size="sm", min_width=70)
        self.status = gr.HTML(cards.status(""))

    def _build_feedback(self, *, proposing: bool) -> None:
        with gr.Accordion("Feedback", open=True, visible=False) as self.feedback:
            with gr.Row():
                self.about = gr.Radio([], label="About which answer", visible=False)
                self.better = gr.Radio([], label="The better answer is", visible=False)
            self.form = FeedbackForm()
            with gr.Row():
                self.save = gr.Button("Save feedback", variant="primary", size="sm", min_width=90)
                self.send_refinement = gr.Button(
                    "Send refinement as next turn", size="sm", min_width=120
                )
                self.propose = gr.Button(
                    "Propose feedback", visible=proposing, size="sm", min_width=90
                )
