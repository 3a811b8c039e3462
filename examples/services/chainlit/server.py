"""A chainlit app that keeps notes, served by `chainlit run`. NOTES is `session` (the user's own) or `global`."""

import os

import chainlit

NOTES: list[str] = []

if os.environ.get("CHAINLIT_AUTH_SECRET"):

    @chainlit.header_auth_callback
    def who(headers: dict[str, str]) -> None:
        # Tokens of this app are made elsewhere; the callback alone makes chainlit ask for one.
        return None


@chainlit.on_message
async def note(message: chainlit.Message) -> None:
    notes = NOTES if os.environ["NOTES"] == "global" else chainlit.user_session.get("notes", [])
    if message.content == "recall":
        await chainlit.Message(" ".join(notes)).send()
        return
    notes.append(message.content)
    chainlit.user_session.set("notes", notes)
    await chainlit.Message("ok").send()
