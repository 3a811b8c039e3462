"""A gradio app that keeps notes. Arguments: port, and where: `state` (one's own session) or `global` (a variable)."""

import sys

import gradio

NOTES: list[str] = []


def remember(text: str, notes: list[str]) -> tuple[str, list[str]]:
    if sys.argv[2] == "global":
        NOTES.append(text)
        return "ok", notes
    return "ok", [*notes, text]


def recall(notes: list[str]) -> str:
    return " ".join(NOTES if sys.argv[2] == "global" else notes)


with gradio.Blocks(analytics_enabled=False) as app:
    notes = gradio.State([])
    text, shown = gradio.Textbox(), gradio.Textbox()
    gradio.Button("remember").click(remember, [text, notes], [shown, notes], api_name="remember")
    gradio.Button("recall").click(recall, [notes], [shown], api_name="recall")

app.launch(server_name="127.0.0.1", server_port=int(sys.argv[1]), share=False, quiet=True)
