"""Pure judgement: from a history or from samples to a verdict. Nothing here runs anything."""
