"""The toy world: draw a scene, put it into words, read it back from pixels."""
