"""The model behind one protocol: handles, a client of OpenAI-compatible servers, and turns by user."""
