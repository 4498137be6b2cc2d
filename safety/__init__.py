"""Safety: prompts and frames are judged, our own videos are recognised, files are signed."""
